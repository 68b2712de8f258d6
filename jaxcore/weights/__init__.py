"""Networks with their weights: of runs, of files, and of those that come with the library."""

from jaxcore.weights.loading import DEFAULT_MODEL, Loaded, Which, describe, load
from jaxcore.weights.shipped import SHIPPED, Shipped, shipped

__all__ = ["DEFAULT_MODEL", "SHIPPED", "Loaded", "Shipped", "Which", "describe", "load", "shipped"]
