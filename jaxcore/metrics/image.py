"""PSNR and SSIM as the restoration papers measure them.

Papers that print "SSIM" mean different things; `jaxcore.metrics.METRICS` names whole protocols.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError

Window = Literal["uniform7", "gaussian11"]
Padding = Literal["valid", "zero", "edge"]


def psnr(
    image: Float[Array, "*b h w c"],
    target: Float[Array, "*b h w c"],
    *,
    data_range: float = 1.0,
    border: int = 0,
) -> Float[Array, "*b"]:
    """Peak signal-to-noise ratio of each image, in dB, over all its pixels and channels.

    Equal images give infinity (with gradient 0), and so does a mean with one of them.

    Args:
      image: restored; values outside [0, data_range] count as they are.
      target: clean, of the same shape.
      data_range: largest possible value.
      border: pixels left out at each side.

    Raises:
      UserError: the shapes differ, the images are not floating point, or the border is all.

    >>> float(psnr(jnp.zeros((2, 2, 3)), jnp.full((2, 2, 3), 0.1)).round(3))
    20.0
    """
    image, target = _prepare(image, target, border)
    error = jnp.mean(jnp.square(image - target), axis=(-3, -2, -1))
    unequal = error > 0
    decibel = 10 * jnp.log10(data_range**2 / jnp.where(unequal, error, 1.0))
    return jnp.where(jnp.isnan(error), error, jnp.where(unequal, decibel, jnp.inf))


def _gaussian(size: int, sigma: float) -> np.ndarray:
    weights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


# Weights along each axis, and the factor that makes a variance that of a sample.
_WINDOWS = {
    "uniform7": (np.full(7, 1 / 7), 49 / 48),
    "gaussian11": (_gaussian(11, 1.5), 1.0),
}


def ssim(
    image: Float[Array, "*b h w c"],
    target: Float[Array, "*b h w c"],
    *,
    data_range: float = 1.0,
    window: Window = "uniform7",
    padding: Padding = "valid",
    border: int = 0,
    volume: bool = False,
) -> Float[Array, "*b"]:
    """Structural similarity of each image: the mean over pixels and channels of a local index.

    Args:
      image: restored; values outside [0, data_range] count as they are.
      target: clean, of the same shape.
      data_range: largest possible value.
      window: "uniform7" is the plain mean over 7x7 pixels with the covariance of a sample (the
        default of scikit-image); "gaussian11" has 11x11 Gaussian weights, sigma 1.5, and no such
        correction (Wang et al.).
      padding: "valid" takes only windows that lie inside the image; "zero" takes one around
        every pixel, with zeros outside, "edge" with the border repeated outside.
      border: pixels left out at each side, before anything else.
      volume: slide the window along the channels too, as if they were a third dimension: what
        MATLAB's ``ssim`` does with colour images; needs "edge".

    Raises:
      UserError: the shapes differ, the images are not floating point or smaller than the window.

    References:
      Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, 2004 (K1 = 0.01, K2 = 0.03).

    >>> float(ssim(jnp.ones((8, 8, 3)), jnp.ones((8, 8, 3))))
    1.0
    """
    if window not in _WINDOWS or padding not in get_args(Padding):
        raise UserError(
            f"Expected a window of {', '.join(_WINDOWS)} and padding of "
            f"{', '.join(get_args(Padding))}, found {window!r} and {padding!r}."
        )
    if volume and padding != "edge":
        raise UserError(f"Expected padding edge for the SSIM of a volume, found {padding}.")
    image, target = _prepare(image, target, border)
    side = len(_WINDOWS[window][0])
    if padding == "valid" and min(image.shape[-3:-1]) < side:
        raise UserError(
            f"Expected images of at least {side}x{side} pixels for this SSIM, found "
            f"{image.shape[-3]}x{image.shape[-2]}."
        )
    axes = (-3, -2, -1) if volume else (-3, -2)
    if padding != "valid":
        widths = [
            (side // 2,) * 2 if axis - image.ndim in axes else (0, 0) for axis in range(image.ndim)
        ]
        mode = "constant" if padding == "zero" else "edge"
        image, target = jnp.pad(image, widths, mode=mode), jnp.pad(target, widths, mode=mode)
    return _ssim(image, target, float(data_range), window, axes)


@functools.partial(jax.jit, static_argnames=("data_range", "window", "axes"))
def _ssim(x: Array, y: Array, data_range: float, window: Window, axes: tuple[int, ...]) -> Array:
    weights, sample = _WINDOWS[window]

    def local(a: Array) -> Array:
        for axis in axes:
            a = _slide(a, weights, axis)
        return a

    # Variances are differences of squares: about the middle of the range they cancel least.
    middle = data_range / 2
    x, y = x - middle, y - middle
    mx, my = local(x), local(y)
    vx = sample * (local(x * x) - mx * mx)
    vy = sample * (local(y * y) - my * my)
    vxy = sample * (local(x * y) - mx * my)
    mx, my = mx + middle, my + middle
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    index = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return jnp.mean(index, axis=(-3, -2, -1))


def _slide(a: Array, weights: np.ndarray, axis: int) -> Array:
    """Weighted sum of shifted copies along an axis: cheap, and cheap to differentiate."""
    length = a.shape[axis] - len(weights) + 1
    total = float(weights[0]) * jax.lax.slice_in_dim(a, 0, length, axis=axis)
    for k, weight in enumerate(weights[1:], 1):
        total = total + float(weight) * jax.lax.slice_in_dim(a, k, k + length, axis=axis)
    return total


def luma(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 1"]:
    """Y of ITU-R BT.601 as MATLAB's ``rgb2ycbcr`` makes it of 8-bit images.

    Args:
      image: RGB; clipped to [0, 1] and rounded to 8 bits first.

    Returns:
      Whole numbers from 16 to 235, as float32. The rounding has no gradient.

    >>> [int(luma(jnp.full((1, 1, 3), grey)).item()) for grey in (0.0, 1.0)]
    [16, 235]
    """
    if image.shape[-1] != 3:
        raise UserError(f"Expected RGB images for Y, found {image.shape[-1]} channels.")
    levels = jnp.round(jnp.clip(image.astype(jnp.float32), 0, 1) * 255)
    weights = jnp.array([65.481, 128.553, 24.966], jnp.float32)
    total = jnp.einsum("...c,c->...", levels, weights, precision="highest")
    return jnp.round(16 + total / 255)[..., None]


def _prepare(image: Array, target: Array, border: int) -> tuple[Array, Array]:
    image, target = jnp.asarray(image), jnp.asarray(target)
    if image.shape != target.shape:
        raise UserError(f"Expected images of one shape, found {image.shape} and {target.shape}.")
    if image.ndim < 3:
        raise UserError(f"Expected images (height, width, channels), found shape {image.shape}.")
    for a in (image, target):
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise UserError(f"Expected floating-point images, found {a.dtype}.")
    height, width = image.shape[-3:-1]
    if border < 0 or min(height, width) <= 2 * border:
        raise UserError(
            f"Expected a border that leaves pixels of {height}x{width}, found {border}."
        )
    inside = (..., slice(border, height - border), slice(border, width - border), slice(None))
    return image[inside].astype(jnp.float32), target[inside].astype(jnp.float32)
