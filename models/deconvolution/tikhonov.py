"""Tikhonov deconvolution in Fourier space, and how much regularisation to take.

The restored image minimises ``|y - h * x|^2 + lam |g * x|^2`` with the Laplacian ``g``, which
leaves the flux alone, or with ``g = 1``.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution.masks import fill_missing, restore_weighted
from jaxcore.ops.grids import Upsampling, factor_between, upsample_flux
from jaxcore.ops.spectra import (
    aligned,
    convolve,
    image,
    laplacian_tf,
    per_image,
    power,
    psf_to_tf,
    spectrum,
    times,
    total,
)

Regularizer: TypeAlias = Literal["laplacian", "identity"]
Choice: TypeAlias = Literal["sure", "gcv", "discrepancy"]

LAM = 9e-3
"""The published regularisation, one for all images."""
RANGE = (1e-8, 1e4)
"""Where an automatic choice looks for the regularisation."""


def penalty(shape: tuple[int, ...], regularizer: Regularizer) -> Float[Array, "h w2"]:
    """Squared modulus of the regulariser's transfer function."""
    if regularizer not in ("laplacian", "identity"):
        raise UserError(f"Expected a regularizer laplacian or identity, found {regularizer!r}.")
    laplacian = laplacian_tf(shape)
    values = laplacian**2 if regularizer == "laplacian" else laplacian * 0 + 1
    return jnp.asarray(values, float)


def _inverse(tf: Array, lam: Array | float, squared: Array) -> Array:
    """``1 / (|H|^2 + lam |G|^2)``, zero where both vanish."""
    lam = per_image(lam, tf)
    ndim = max(tf.ndim, lam.ndim)
    gain = aligned(power(tf), ndim)
    below = gain + aligned(lam, ndim) * aligned(squared.astype(gain.dtype), ndim)
    empty = below == 0
    return jnp.where(empty, 0, 1 / jnp.where(empty, 1, below))


def tikhonov_filter(
    tf: Complex[Array, "*b h w2"],
    lam: float | Float[Array, "*b"],
    shape: tuple[int, ...],
    regularizer: Regularizer = "laplacian",
) -> Complex[Array, "*b h w2"]:
    """Transfer function of the deconvolution, ``conj(H) / (|H|^2 + lam |G|^2)``.

    Args:
      tf: transfer function of the PSF; see `psf_to_tf`.
      lam: regularisation, one number or one per transfer function.
      shape: of the images; the last two sides are used.
      regularizer: "laplacian" or "identity".
    """
    return times(jnp.conj(tf), _inverse(tf, lam, penalty(shape, regularizer)))


@functools.partial(jax.jit, static_argnames="regularizer")
def tikhonov(
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h w"],
    lam: float | Float[Array, "*b"] = LAM,
    *,
    regularizer: Regularizer = "laplacian",
    target_psf: Float[Array, "*b h w"] | None = None,
) -> Float[Array, "*b h w"]:
    """Deconvolve images in closed form.

    With the Laplacian the sum of the result is exactly that of ``y`` over that of the PSF.

    Args:
      y: observations on the grid of the PSF, such as `upsample_flux` makes; periodic.
      psf: with its middle in the pixel ``(h // 2, w // 2)``; one for all images, or one for each.
        It is neither centred nor normalised.
      lam: regularisation, one number or one per image. Larger is smoother.
      regularizer: "laplacian" or "identity".
      target_psf: the PSF that the restored image shall have, in the middle like ``psf``; None for
        none. A finite one, of two pixels, avoids ringing.

    Returns:
      Images of the shape of ``y``.

    References:
      Sureau, Lechat, Starck 2020, "Deep learning for a space-variant deconvolution in galaxy
      surveys", Astronomy & Astrophysics 641.

    >>> x = jnp.eye(8)
    >>> psf = jnp.zeros((8, 8)).at[4, 4].set(1.0)
    >>> bool(jnp.allclose(tikhonov(x, psf, 1e-9), x, atol=1e-5))
    True
    """
    wanted = tikhonov_filter(psf_to_tf(psf), lam, y.shape, regularizer)
    restored = times(spectrum(y), wanted)
    if target_psf is not None:
        restored = times(restored, psf_to_tf(target_psf))
    return image(restored, y.shape)


def noise_gain(
    tf: Complex[Array, "*b h w2"], width: int, factor: Array | None = None
) -> Float[Array, "*b"]:
    """Standard deviation of filtered white noise of standard deviation one, on a periodic image.

    Args:
      tf: transfer function of a linear filter, such as `tikhonov_filter`.
      width: of the images.
      factor: real transfer functions behind it, with axes of their own in front of those of
        ``tf``; None for none.
    """
    gain = power(tf)
    if factor is not None:
        gain = gain * aligned(jnp.asarray(factor, gain.dtype) ** 2, gain.ndim)
    return jnp.sqrt(total(gain, width) / (gain.shape[-2] * width))


@functools.partial(jax.jit, static_argnames=("choice", "regularizer", "size"))
def choose_lam(
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h2 w2"],
    choice: Choice = "sure",
    *,
    sigma: float | Float[Array, "*b"] | None = None,
    regularizer: Regularizer = "laplacian",
    size: int = 97,
) -> Float[Array, "*b"]:
    """Regularisation from the data, for each image.

    Works with the pixels of the camera, whose noise is white, also where the PSF has finer ones:
    then with the frequencies that the camera samples.

    Args:
      y: observations.
      psf: on the grid of the observations or a finer one, one for all images or one for each.
      choice: "sure" minimises an unbiased estimate of the error of ``h * x``; "gcv", generalised
        cross-validation, needs no noise level; "discrepancy" makes the residual as large as the
        noise, which is smoother than the others.
      sigma: standard deviation of the noise in a pixel of ``y``, one number or one per image; not
        needed for "gcv".
      regularizer: "laplacian" or "identity".
      size: number of values that are tried, evenly spread in the logarithm, before the best one
        is refined by a parabola; also the number of halvings for "discrepancy".

    Returns:
      One number per image, between 1e-8 and 1e4.

    Raises:
      UserError: the choice is unknown or needs a noise level.

    >>> x = jnp.zeros((32, 32)).at[16, 15:18].set(20.0)  # a point, blurred along its row
    >>> noisy = x + jax.random.normal(jax.random.key(0), x.shape)
    >>> psf = jnp.zeros((32, 32)).at[16, 15:18].set(1 / 3)
    >>> 1e-4 < float(choose_lam(noisy, psf, sigma=1.0)) < 1e2
    True
    """
    if choice not in ("sure", "gcv", "discrepancy"):
        raise UserError(f"Expected a choice sure, gcv or discrepancy, found {choice!r}.")
    if choice != "gcv" and sigma is None:
        raise UserError(f"Expected sigma, the noise level, for the choice {choice!r}, found none.")
    h, w = y.shape[-2:]
    factor_between(y.shape, psf.shape)
    tf = psf_to_tf(psf)
    squared = power(_low(spectrum(y), h, w)) / (h * w)
    gain = aligned(_low(power(tf), h, w).astype(squared.dtype), squared.ndim)
    smooth = _low(penalty(psf.shape, regularizer), h, w).astype(squared.dtype)
    smooth = aligned(smooth, squared.ndim)
    noise = jnp.zeros((), squared.dtype) if sigma is None else sigma
    variance = per_image(noise, squared)[..., 0, 0] ** 2
    pixels = h * w

    def lost(log_lam: Array) -> Array:
        """The share ``1 - a`` of every frequency that does not pass through filter and PSF."""
        below = gain + per_image(jnp.exp(log_lam), squared) * smooth
        return 1 - jnp.where(gain > 0, gain / jnp.where(below > 0, below, 1), 0)

    def residual(log_lam: Array) -> Array:
        return total(lost(log_lam) ** 2 * squared, w)

    def risk(log_lam: Array) -> Array:
        passed_not = total(lost(log_lam), w)
        if choice == "gcv":
            return jnp.log(residual(log_lam)) - 2 * jnp.log(passed_not)
        return residual(log_lam) + 2 * variance * (pixels - passed_not) - pixels * variance

    batch = squared.shape[:-2]
    low, high = (jnp.full(batch, jnp.log(value), squared.dtype) for value in RANGE)
    if choice == "discrepancy":
        halve = functools.partial(_halve, residual, pixels * variance)
        low, high = jax.lax.fori_loop(0, size, lambda _, ends: halve(*ends), (low, high))
        return jnp.exp((low + high) / 2)
    logs = jnp.linspace(math.log(RANGE[0]), math.log(RANGE[1]), size, dtype=squared.dtype)
    risks = jax.lax.map(lambda log: risk(jnp.broadcast_to(log, batch)), logs)
    return jnp.exp(_lowest(logs, risks))


def _low(values: Array, h: int, w: int) -> Array:
    """Those frequencies of a spectrum that a coarser grid of ``h x w`` pixels has too."""
    rows = values.shape[-2]
    values = values[..., : w // 2 + 1]
    if rows == h:
        return values
    return jnp.concatenate([values[..., : (h + 1) // 2, :], values[..., rows - h // 2 :, :]], -2)


def _halve(
    residual: Callable[[Array], Array], wanted: Array, low: Array, high: Array
) -> tuple[Array, Array]:
    middle = (low + high) / 2
    more = residual(middle) < wanted
    return jnp.where(more, middle, low), jnp.where(more, high, middle)


def _lowest(places: Array, values: Array) -> Array:
    """Where a function is lowest, by the parabola through the lowest sample and its neighbours."""
    best = jnp.clip(jnp.argmin(values, axis=0), 1, len(places) - 2)
    before, here, after = (
        jnp.take_along_axis(values, (best + i)[None], axis=0)[0] for i in (-1, 0, 1)
    )
    bend = before - 2 * here + after
    shift = jnp.where(bend > 0, 0.5 * (before - after) / jnp.where(bend > 0, bend, 1), 0)
    return places[best] + jnp.clip(shift, -1, 1) * (places[1] - places[0])


def restore_tikhonov(
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h2 w2"],
    lam: float | Choice = LAM,
    *,
    sigma: float | Float[Array, "*b"] | None = None,
    weights: Float[Array, "*b h w"] | None = None,
    regularizer: Regularizer = "laplacian",
    target_psf: Float[Array, "*b h2 w2"] | None = None,
    upsample: Upsampling = "mirror",
) -> Float[Array, "*b h2 w2"]:
    """Step 1 of the method: to the grid of the PSF, choose the regularisation, deconvolve.

    Args:
      y: observations.
      psf: on the grid of the restored image, whose pixels are as large or divide those of ``y``.
      lam: a number, or how to choose it; see `choose_lam`.
      sigma: standard deviation of the noise in a pixel of ``y``.
      weights: of the pixels of ``y``, from 0 for missing ones (which may be NaN) to 1; None for 1.
        Missing pixels are filled from their neighbours, then by what the result predicts for them.
      regularizer: "laplacian" or "identity".
      target_psf: see `tikhonov`.
      upsample: see `upsample_flux`.

    >>> from jaxcore.models.deconvolution import moffat_psf
    >>> psf = jnp.asarray(moffat_psf((32, 32), 4.0), "float32")
    >>> restore_tikhonov(jnp.ones((16, 16)), psf)[0, 0].round(3)
    Array(0.25, dtype=float32)
    """
    factor = factor_between(y.shape, psf.shape)
    if weights is not None:
        y = fill_missing(y, weights)
    value = lam
    if isinstance(lam, str):
        value = choose_lam(y, psf, lam, sigma=sigma, regularizer=regularizer)
    fine = upsample_flux(y, factor, upsample)

    def restore(fine: Array) -> Array:
        return tikhonov(fine, psf, value, regularizer=regularizer)

    tf = psf_to_tf(psf)
    x = restore(fine) if weights is None else restore_weighted(restore, fine, weights, tf)
    return x if target_psf is None else convolve(x, psf_to_tf(target_psf))
