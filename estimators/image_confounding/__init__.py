"""Effects of a treatment whose assignment shows in images of the places.

Jerzak, Johansson and Daoud (2023), Integrating Earth Observation Data into Causal Inference:
Challenges and Opportunities, arXiv 2301.12985; formulas are written anew from their description.
"""

from jaxcore.estimators.image_confounding.cluster_result import ImageHeterogeneityResult
from jaxcore.estimators.image_confounding.clusters import ImageHeterogeneity
from jaxcore.estimators.image_confounding.estimator import ImageConfounding
from jaxcore.estimators.image_confounding.networks import Training
from jaxcore.estimators.image_confounding.result import ImageConfoundingResult

__all__ = [
    "ImageConfounding",
    "ImageConfoundingResult",
    "ImageHeterogeneity",
    "ImageHeterogeneityResult",
    "Training",
]
