"""Image metrics as pure functions, per image, in float32."""

from jaxcore.metrics.image import luma, psnr, ssim
from jaxcore.metrics.protocols import METRICS, PROTOCOLS, Metric
from jaxcore.metrics.shadow import shadow_scores, srgb_to_lab

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Metric",
    "luma",
    "psnr",
    "shadow_scores",
    "srgb_to_lab",
    "ssim",
]
