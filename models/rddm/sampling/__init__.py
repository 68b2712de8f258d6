"""Samplers: one module per family, and the loop that runs them."""
