"""Effects of a treatment whose assignment shows in images of the places.

Jerzak, Johansson and Daoud (2023), Integrating Earth Observation Data into Causal Inference:
Challenges and Opportunities, arXiv 2301.12985; formulas are written anew from their description.
"""
