"""Networks with their weights: of runs, of files, and of this folder."""

from jaxcore.weights.encoders import ImageEncoder, load_encoder
from jaxcore.weights.language import LanguageModel, load_language
from jaxcore.weights.loading import DEFAULT_MODEL, Loaded, Which, describe, load
from jaxcore.weights.shipped import HAZE, NOISE, SHIPPED, Shipped, shipped

__all__ = [
    "DEFAULT_MODEL",
    "HAZE",
    "NOISE",
    "SHIPPED",
    "ImageEncoder",
    "LanguageModel",
    "Loaded",
    "Shipped",
    "Which",
    "describe",
    "load",
    "load_encoder",
    "load_language",
    "shipped",
]
