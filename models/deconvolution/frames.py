"""Several exposures of the same sky, each with its own seeing and noise, into one image."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution.tikhonov import LAM, Regularizer, penalty
from jaxcore.ops.grids import Upsampling, factor_between, upsample_flux
from jaxcore.ops.spectra import aligned, image, per_image, power, psf_to_tf, spectrum, times


@functools.partial(jax.jit, static_argnames=("regularizer", "upsample"))
def tikhonov_frames(
    y: Float[Array, "*b f h w"],
    psf: Float[Array, "*b f h2 w2"],
    lam: float = LAM,
    *,
    sigma: Float[Array, "*b f"] | None = None,
    regularizer: Regularizer = "laplacian",
    target_psf: Float[Array, "h2 w2"] | None = None,
    upsample: Upsampling = "mirror",
) -> Float[Array, "*b h2 w2"]:
    """The one image that all frames have in common, in closed form.

    Minimises ``sum_f v_f |y_f - h_f * x|^2 + lam |g * x|^2`` with weights ``v_f`` that go with one
    over the variance and sum to one, so that ``lam`` means what it means for one frame.

    Args:
      y: frames on one grid, in one unit, without shifts between them (a shift may be in the PSF).
      psf: of every frame, on the grid of the result; see `restore_tikhonov`.
      lam: regularisation.
      sigma: standard deviation of the noise in a pixel of every frame; None: equal ones.
      regularizer: "laplacian" or "identity".
      target_psf: the PSF that the restored image shall have; None for none.
      upsample: see `upsample_flux`.

    Raises:
      UserError: not one PSF for every frame, or grids that do not fit.

    >>> psf = jnp.zeros((3, 8, 8)).at[:, 4, 4].set(1.0)
    >>> frames = jnp.stack([jnp.eye(8), jnp.eye(8), 4 * jnp.eye(8)])
    >>> tikhonov_frames(frames, psf, 1e-9).round(3)[0, 0]
    Array(2., dtype=float32)
    """
    if y.ndim < 3 or psf.ndim < 3 or psf.shape[-3] != y.shape[-3]:
        raise UserError(
            f"Expected one PSF for every frame, found frames {y.shape} and PSFs {psf.shape}."
        )
    fine = upsample_flux(y, factor_between(y.shape, psf.shape), upsample)
    tf = psf_to_tf(psf)
    precision = jnp.ones(y.shape[:-2], y.dtype) if sigma is None else 1 / sigma**2
    share = per_image(precision / jnp.sum(precision, axis=-1, keepdims=True), fine)
    above = jnp.sum(times(times(spectrum(fine), jnp.conj(tf)), share), axis=-3)
    gain = jnp.sum(aligned(power(tf), share.ndim) * share, axis=-3)
    smooth = lam * penalty(psf.shape, regularizer).astype(gain.dtype)
    below = gain + aligned(smooth, gain.ndim)
    restored = times(above, jnp.where(below > 0, 1 / jnp.where(below > 0, below, 1), 0))
    if target_psf is not None:
        restored = times(restored, psf_to_tf(target_psf))
    return image(restored, fine.shape)
