"""Image metrics as pure functions, per image, in float32, and means that can be merged."""

from jaxcore.metrics.image import luma, psnr, ssim
from jaxcore.metrics.protocols import METRICS, PROTOCOLS, Metric
from jaxcore.metrics.shadow import shadow_scores, srgb_to_lab
from jaxcore.metrics.state import MeanState

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "MeanState",
    "Metric",
    "luma",
    "psnr",
    "shadow_scores",
    "srgb_to_lab",
    "ssim",
]
