"""Image metrics as pure functions, per image, in float32."""

from jaxcore.metrics.image import psnr, ssim

__all__ = ["psnr", "ssim"]
