"""Whole measuring protocols by name."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.metrics.image import luma, psnr, ssim

Metric = Callable[[Float[Array, "*b h w 3"], Float[Array, "*b h w 3"]], Float[Array, "*b"]]
"""(restored, clean), floats that stand for [0, 1] -> one value per image; larger is better."""


def _unit(measure: Callable[..., Array], **options: Any) -> Metric:
    """Measure images clipped to [0, 1]."""

    def metric(image: Array, target: Array) -> Array:
        return measure(jnp.clip(image, 0, 1), jnp.clip(target, 0, 1), **options)

    return metric


def _luma(measure: Callable[..., Array], **options: Any) -> Metric:
    """Measure Y of images rounded to 8 bits."""

    def metric(image: Array, target: Array) -> Array:
        return measure(luma(image), luma(target), data_range=255.0, **options)

    return metric


def _eight_bits(measure: Callable[..., Array], **options: Any) -> Metric:
    """Measure images rounded to 8 bits."""

    def metric(image: Array, target: Array) -> Array:
        images = [jnp.round(jnp.clip(a, 0, 1) * 255) for a in (image, target)]
        return measure(*images, data_range=255.0, **options)

    return metric


def _equal_is_100(image: Array, target: Array) -> Array:
    decibel = METRICS["psnr_rgb"](image, target)
    return jnp.where(jnp.isposinf(decibel), 100.0, decibel)


METRICS: dict[str, Metric] = {
    # All-in-one restoration (AdaIR, PromptIR), dehazing, denoising in colour.
    "psnr_rgb": _unit(psnr),
    "ssim_rgb": _unit(ssim),
    # Dehazing (DEA-Net): Gaussian window over a border of zeros, 100 dB for equal images.
    "psnr_rgb_equal100": _equal_is_100,
    "ssim_rgb_gaussian11_zero": _unit(ssim, window="gaussian11", padding="zero"),
    "ssim_rgb_gaussian11": _unit(ssim, window="gaussian11"),
    # Deraining and low light (RDDM): 8-bit files, Y of ITU-R BT.601.
    "psnr_y": _luma(psnr),
    "ssim_y_gaussian11": _luma(ssim, window="gaussian11"),
    # Deblurring (RDDM): MATLAB's functions on 8-bit RGB.
    "psnr_rgb8": _eight_bits(psnr),
    "ssim_rgb8_volume": _eight_bits(ssim, window="gaussian11", padding="edge", volume=True),
}
"""Name -> metric. Not comparable with each other, even where they share half of a name:

``psnr_*`` is in dB, per image, infinite for equal images except with ``_equal100``; ``_rgb`` has
no rounding and data range 1; ``_y`` is measured on Y after rounding to 8 bits, data range 255.
``ssim_rgb`` has a 7x7 uniform window with sample
covariance, the ``gaussian11`` ones 11x11 Gaussian weights without it; windows lie inside the
image except with ``_zero``.
``_rgb8`` is measured on RGB of 8 bits, and ``_volume`` slides the Gaussian along the channels too,
with the border repeated outside.
"""

PROTOCOLS: dict[str, tuple[Metric, Metric]] = {
    "rgb": (METRICS["psnr_rgb"], METRICS["ssim_rgb"]),
    "rgb_gaussian": (METRICS["psnr_rgb_equal100"], METRICS["ssim_rgb_gaussian11_zero"]),
    "y": (METRICS["psnr_y"], METRICS["ssim_y_gaussian11"]),
    "matlab_rgb": (METRICS["psnr_rgb8"], METRICS["ssim_rgb8_volume"]),
}
"""Name -> PSNR and SSIM as they are reported together.

"rgb" is what AdaIR prints, "rgb_gaussian" what DEA-Net does; their PSNR differs for equal images
only, their SSIM always.
"y" with images resized to 256x256 is what RDDM prints for raindrops and low light, "matlab_rgb"
what it prints for deblurring; neither can be compared with "rgb" on whole images.
"""
