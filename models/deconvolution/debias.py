"""Step 3: what a network has lost is taken back from the residual, where it is significant.

The multi-resolution support (Starck, Murtagh, Bijaoui) marks the wavelet coefficients that noise
does not explain, the active coefficients. The official code of the method does not hold this
step; every choice of it is this library's, and an argument.
"""

import functools
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution.dictionary import Dictionary
from jaxcore.models.deconvolution.masks import fill_missing
from jaxcore.models.deconvolution.tikhonov import LAM, Regularizer, noise_gain, tikhonov_filter
from jaxcore.ops.grids import factor_between, rebin, replicate
from jaxcore.ops.spectra import (
    aligned,
    convolve,
    correlate,
    per_image,
    psf_to_tf,
)
from jaxcore.ops.starlet import Starlet, mad_sigma

Domain: TypeAlias = Literal["data", "image"]
Coarse: TypeAlias = Literal["keep", "drop"]

N_SCALES, K, K_FIRST = 4, 3.0, 4.0


class Debiased(NamedTuple):
    """Result of `debias`.

    Attributes:
      image: debiased images.
      support: active coefficients of every wavelet plane.
      residual_norms: for every iteration the norms of the residual and of its active part, before
        the update; shape ``(n_iter, 2)`` after the axes of the batch.
    """

    image: Float[Array, "*b h w"]
    support: Bool[Array, "*b j h w"]
    residual_norms: Float[Array, "*b t 2"]


def noise_scales(
    dictionary: Dictionary,
    sigma: float | Float[Array, "*b"] | None,
    variance: Float[Array, "*b h w"] | None = None,
    ndim: int = 2,
) -> Float[Array, "*b j h w"]:
    """Standard deviation of every wavelet coefficient of the noise.

    Args:
      dictionary: the transform.
      sigma: of white noise, one number or one per image; None where a variance map is given.
      variance: of the noise of every pixel, instead.
      ndim: number of axes of the images.

    Raises:
      UserError: both or neither are given.

    >>> noise_scales(Starlet(2), 2.0).shape
    (2, 1, 1)
    """
    if (sigma is None) == (variance is None):
        raise UserError("Expected either sigma or variance, found both or neither.")
    if variance is not None:
        return dictionary.noise_maps(aligned(variance, ndim))
    value = jnp.asarray(sigma, float)[..., None, None, None]
    norms = jnp.asarray(dictionary.norms(), float)[:, None, None]
    return aligned(value, ndim + 1) * aligned(norms, ndim + 1)


def tikhonov_noise_scales(
    dictionary: Dictionary,
    tf: Complex[Array, "*b h w2"],
    sigma: float | Float[Array, "*b"],
    shape: tuple[int, ...],
    lam: float | Float[Array, "*b"] = LAM,
    regularizer: Regularizer = "laplacian",
) -> Float[Array, "*b j"]:
    """Standard deviation of the wavelet coefficients of white noise behind Tikhonov's filter.

    Args:
      dictionary: the transform; borders count as periodic.
      tf: transfer function of the PSF.
      sigma: of the noise before the filter, one number or one per image.
      shape: of the images; the last two sides are used.
      lam: regularisation.
      regularizer: see `tikhonov`.

    >>> from jaxcore.models.deconvolution import moffat_psf
    >>> tf = psf_to_tf(jnp.asarray(moffat_psf((32, 32), 5.0), "float32"))
    >>> tikhonov_noise_scales(Starlet(3), tf, 1.0, (32, 32)).shape
    (3,)
    """
    wanted = tikhonov_filter(tf, lam, shape, regularizer)[..., None, :, :]
    transfer = dictionary.transfer((shape[-2], shape[-1]))
    gain = noise_gain(wanted, shape[-1], jnp.asarray(transfer, wanted.real.dtype))
    sigma = jnp.asarray(sigma, gain.dtype)[..., None]
    ndim = max(sigma.ndim, gain.ndim)
    return aligned(sigma, ndim) * aligned(gain, ndim)


def multiresolution_support(
    y: Float[Array, "*b h w"],
    sigma: float | Float[Array, "*b"] | None = None,
    *,
    variance: Float[Array, "*b h w"] | None = None,
    scales: Float[Array, "*b j"] | None = None,
    k: float = K,
    k_first: float = K_FIRST,
    dictionary: Dictionary = Starlet(N_SCALES),
    drop_isolated: bool = False,
) -> Bool[Array, "*b j h w"]:
    """Active coefficients: those of which noise alone does not make as large ones.

    Args:
      y: images.
      sigma: standard deviation of white noise in a pixel; estimated from ``y`` if nothing is
        given.
      variance: of the noise of every pixel, instead.
      scales: standard deviation of the noise in every wavelet plane, instead; see
        `tikhonov_noise_scales`.
      k: how many standard deviations are significant.
      k_first: the same for the finest plane, which has most pixels.
      dictionary: the transform.
      drop_isolated: leave out coefficients none of whose eight neighbours is active.

    >>> x = jnp.zeros((32, 32)).at[16, 16].set(50.0)
    >>> support = multiresolution_support(x, 1.0)
    >>> support.shape, bool(support[0, 16, 16]), bool(support[0, 0, 0])
    ((4, 32, 32), True, False)
    """
    if scales is not None:
        noise = aligned(scales[..., None, None], y.ndim + 1)
    else:
        if sigma is None and variance is None:
            sigma = mad_sigma(y, dictionary.boundary)
        noise = noise_scales(dictionary, sigma, variance, y.ndim)
    factors = jnp.full(dictionary.n_scales * dictionary.per_scale, k, noise.dtype)
    factors = factors.at[: dictionary.per_scale].set(k_first)
    limits = noise * aligned(factors[:, None, None], noise.ndim)
    active = jnp.abs(dictionary.planes(y)[..., :-1, :, :]) >= limits.astype(y.dtype)
    return _with_neighbours(active) if drop_isolated else active


def _with_neighbours(active: Array) -> Array:
    pads = [(0, 0)] * (active.ndim - 2) + [(1, 1), (1, 1)]
    count = jnp.pad(active, pads).astype(jnp.int32)
    for axis in (-2, -1):
        length = active.shape[axis]
        count = sum(
            jax.lax.slice_in_dim(count, i, i + length, axis=axis) for i in (1, 2)
        ) + jax.lax.slice_in_dim(count, 0, length, axis=axis)
    return active & (count > 1)


@functools.partial(
    jax.jit,
    static_argnames=(
        "dictionary",
        "k",
        "k_first",
        "n_iter",
        "positivity",
        "coarse",
        "domain",
        "regularizer",
        "update_support",
        "drop_isolated",
    ),
)
def debias(
    x0: Float[Array, "*b h2 w2"],
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h2 w2"],
    *,
    sigma: float | Float[Array, "*b"] | None = None,
    variance: Float[Array, "*b h w"] | None = None,
    weights: Float[Array, "*b h w"] | None = None,
    support: Bool[Array, "*b j h w"] | None = None,
    k: float = K,
    k_first: float = K_FIRST,
    n_iter: int = 10,
    step: float = 1.0,
    positivity: bool = False,
    coarse: Coarse = "keep",
    domain: Domain = "data",
    lam: float | Float[Array, "*b"] = LAM,
    regularizer: Regularizer = "laplacian",
    update_support: bool = False,
    drop_isolated: bool = False,
    dictionary: Dictionary = Starlet(N_SCALES),
) -> Debiased:
    """Add to an image what its residual holds of significant structure, in a few iterations.

    Each iteration takes the residual of the observation, keeps its active coefficients and the
    coarse plane, and adds it, correlated with the PSF, to the image. Noise passes where there is
    signal only; lost flux passes, since it stands out on coarse scales.

    Args:
      x0: images to start from, such as the output of a network.
      y: observations, on the grid of ``x0`` or on coarser pixels whose side is a whole multiple.
      psf: on the grid of ``x0``, with a sum of about one; see `psf_to_tf` for its middle.
      sigma: standard deviation of the noise in a pixel of ``y``, one number or one per image;
        estimated from ``y`` if neither this nor ``variance`` is given.
      variance: of the noise of every pixel of ``y``, instead.
      weights: of the pixels of ``y``, ``sigma**2`` over their variance, 0 for missing ones
        (which may be NaN): their residual counts as zero. None for 1.
      support: active coefficients that are known already, as `multiresolution_support` returns
        them; None for those of the observation, or of ``x0`` in the image domain.
      k: how many standard deviations of the noise a coefficient must reach.
      k_first: the same for the finest plane.
      n_iter: number of iterations.
      step: factor of every update; up to 1 is safe for a PSF without negative pixels and sum one.
      positivity: set negative pixels to zero after every update.
      coarse: "drop" leaves the coarse plane of the residual out, which is worse: most of the lost
        flux is there.
      domain: "data" selects coefficients of the residual of the observation; "image" those of the
        residual correlated with the PSF, by the support of ``x0``. The latter needs ``y`` on the
        grid of ``x0`` and a single noise level.
      lam: regularisation of the step before, which says how much noise ``x0`` has (image domain).
      regularizer: likewise.
      update_support: let coefficients of later residuals join the support.
      drop_isolated: see `multiresolution_support`.
      dictionary: the transform, a `Starlet` or `Stationary`; four scales for 64 pixels, five for
        128.

    Returns:
      Images, their support and the norms of the residuals.

    Raises:
      UserError: shapes or options do not fit each other.

    References:
      Starck, Murtagh, Bijaoui 1998, "Image Processing and Data Analysis", chapter 2; Akhaury et
      al. 2024, "Ground-based image deconvolution with Swin Transformer UNet".

    >>> from jaxcore.models.deconvolution import gaussian_psf
    >>> psf = jnp.asarray(gaussian_psf((32, 32), 4.0), "float32")
    >>> y = convolve(jnp.zeros((32, 32)).at[16, 16].set(100.0), psf_to_tf(psf))
    >>> debias(0.8 * y, y, psf, sigma=0.01).image.sum().round()
    Array(100., dtype=float32)
    """
    factor = factor_between(y.shape, x0.shape)
    factor_between(x0.shape, psf.shape)
    if coarse not in ("keep", "drop") or domain not in ("data", "image"):
        raise UserError(
            "Expected coarse to be keep or drop and domain to be data or image, found "
            f"{coarse!r} and {domain!r}."
        )
    known = None
    if weights is not None:
        weights = aligned(weights, y.ndim).astype(y.dtype)
        known, y = weights > 0, fill_missing(y, weights)
    if sigma is None and variance is None:
        sigma = mad_sigma(y, dictionary.boundary)
    if weights is not None and variance is None and sigma is not None and domain == "data":
        variance = per_image(sigma, y) ** 2 / jnp.where(weights > 0, weights, 1)
        sigma = None
    tf = psf_to_tf(psf)
    select = {"k": k, "k_first": k_first, "dictionary": dictionary, "drop_isolated": drop_isolated}
    in_image = domain == "image"
    if in_image:
        if factor != 1 or sigma is None:
            raise UserError(
                "Expected observations on the grid of the image and sigma, not variance, in the "
                f"image domain, found a factor of {factor} between the grids."
            )
        scales = tikhonov_noise_scales(dictionary, tf, sigma, y.shape, lam, regularizer)
        noise = {"scales": scales}
        active = multiresolution_support(x0, **noise, **select) if support is None else support
    else:
        noise = {"sigma": sigma, "variance": variance}
        active = multiresolution_support(y, **noise, **select) if support is None else support
    keep = coarse == "keep"

    def filtered(r: Array, active: Array) -> Array:
        planes = dictionary.planes(r)
        last = planes[..., -1:, :, :]
        wavelets = jnp.where(active, planes[..., :-1, :, :], 0)
        return dictionary.image(jnp.concatenate([wavelets, last if keep else 0 * last], axis=-3))

    def back(r: Array) -> Array:
        """Adjoint of blurring and rebinning, over the squared norm of the latter."""
        return correlate(replicate(r, factor) / factor**2, tf)

    def iterate(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        x, active = carry
        r = y - rebin(convolve(x, tf), factor)
        if known is not None:
            r = jnp.where(known, r, 0)
        seen = back(r) if in_image else r
        if update_support:
            active = active | multiresolution_support(seen, **noise, **select)
        kept = filtered(seen, active)
        x = x + step * (kept if in_image else back(kept))
        if positivity:
            x = jnp.maximum(x, 0)
        return (x, active), jnp.stack([_norm(r), _norm(kept)], axis=-1)

    start = jnp.broadcast_to(x0, jnp.broadcast_shapes(x0.shape, (*y.shape[:-2], *x0.shape[-2:])))
    active = jnp.broadcast_to(active, (*start.shape[:-2], *active.shape[-3:]))
    (x, active), norms = jax.lax.scan(iterate, (start, active), length=n_iter)
    return Debiased(x, active, jnp.moveaxis(norms, 0, -2))


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x, axis=(-2, -1)))
