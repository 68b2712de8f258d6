"""Wiener deconvolution: every frequency weighed by its signal and its noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution.masks import fill_missing, restore_weighted
from jaxcore.models.deconvolution.tikhonov import restore_tikhonov
from jaxcore.ops.grids import Upsampling, factor_between, upsample_flux
from jaxcore.ops.spectra import (
    aligned,
    convolve,
    image,
    multiplicity,
    per_image,
    power,
    psf_to_tf,
    spectrum,
    times,
)


def radial_power(x: Float[Array, "*b h w"]) -> Float[Array, "*b h w2"]:
    """Squared modulus of the spectrum, averaged over all frequencies of about the same size.

    >>> radial_power(jnp.eye(8))[0, 0]
    Array(64., dtype=float32)
    """
    h, w = x.shape[-2:]
    rows, cols = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None, :]
    ring = np.rint(np.hypot(rows, cols) * max(h, w)).astype(int)
    weights = np.broadcast_to(multiplicity(w), ring.shape)
    share = weights / np.bincount(ring.ravel(), weights.ravel())[ring]
    values = power(spectrum(x))
    flat = (values * aligned(jnp.asarray(share, values.dtype), values.ndim)).reshape(-1, ring.size)
    sums = jnp.zeros((flat.shape[0], ring.max() + 1), values.dtype).at[:, ring.ravel()].add(flat)
    return sums[:, ring].reshape(values.shape)


@functools.partial(jax.jit, static_argnames="upsample")
def wiener(
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h2 w2"],
    *,
    sigma: float | Float[Array, "*b"] | None = None,
    weights: Float[Array, "*b h w"] | None = None,
    signal: Float[Array, "*b h2 w4"] | None = None,
    target_psf: Float[Array, "*b h2 w2"] | None = None,
    upsample: Upsampling = "mirror",
) -> Float[Array, "*b h2 w2"]:
    """The linear filter of least mean square error, ``conj(H) / (|H|^2 + N / S)``.

    Args:
      y: observations.
      psf: on the grid of the restored image; see `restore_tikhonov`.
      sigma: standard deviation of the noise in a pixel of ``y``.
      weights: of the pixels of ``y``; see `restore_tikhonov`.
      signal: expected squared modulus of the spectrum of the restored image; None takes that of
        a Tikhonov deconvolution with chosen regularisation, averaged over directions.
      target_psf: the PSF that the restored image shall have; None for none.
      upsample: see `upsample_flux`.

    Raises:
      UserError: there is no noise level.

    >>> from jaxcore.models.deconvolution import moffat_psf
    >>> psf = jnp.asarray(moffat_psf((32, 32), 4.0), "float32")
    >>> wiener(jnp.ones((32, 32)), psf, sigma=0.1)[0, 0].round(3)
    Array(1., dtype=float32)
    """
    if sigma is None:
        raise UserError("Expected sigma, the noise level, for Wiener's filter, found none.")
    factor = factor_between(y.shape, psf.shape)
    if weights is not None:
        y = fill_missing(y, weights)
    fine, tf = upsample_flux(y, factor, upsample), psf_to_tf(psf)
    if signal is None:
        signal = radial_power(restore_tikhonov(y, psf, "sure", sigma=sigma, upsample=upsample))
    # Interpolation spreads the noise of a pixel: no frequency holds more than this.
    noise = per_image(sigma, fine) ** 2 * (fine.shape[-2] * fine.shape[-1] / factor**2)
    gain = aligned(power(tf), signal.ndim)
    below = gain * signal + noise
    wanted = times(jnp.conj(tf), signal / jnp.where(below > 0, below, 1))

    def restore(fine: Array) -> Array:
        return image(times(spectrum(fine), wanted), fine.shape)

    x = restore(fine) if weights is None else restore_weighted(restore, fine, weights, tf)
    return x if target_psf is None else convolve(x, psf_to_tf(target_psf))
