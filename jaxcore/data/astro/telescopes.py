"""What a telescope makes of the sky: a point spread function, larger pixels and noise; pure JAX."""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxcore.bounds import Count, Positive
from jaxcore.errors import UserError
from jaxcore.ops.grids import rebin
from jaxcore.ops.spectra import convolve, psf_to_tf
from jaxcore.serial import Serial

_OVERSAMPLING = 3  # samples along the side of a pixel of a PSF
_FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Telescope(Serial):
    """A ground-based telescope, and the resolution that restored images shall have.

    Lengths are in pixels of the restored image. The defaults are those of a small experiment;
    values are drawn uniformly, the signal-to-noise ratio by ``snr_spacing``.
    """

    factor: Count = 1  # pixels of the restored image along the side of an observed one
    profile: Literal["moffat", "gaussian"] = "moffat"  # of the seeing
    fwhm: tuple[Positive, Positive] = (6.0, 6.0)  # of the seeing: lowest and highest
    beta: Positive = 3.0  # exponent of the Moffat profile
    axis_ratio: tuple[Positive, Positive] = (1.0, 1.0)  # of the PSF, at a random angle
    target_fwhm: Positive = 2.0  # of the Gaussian PSF of the restored image
    # largest pixel without noise over the standard deviation of the noise
    snr: tuple[Positive, Positive] = (20.0, 100.0)
    snr_spacing: Literal["uniform", "log"] = "uniform"
    # Photons per unit of flux, whose noise is added to the white one; None for none. A Gaussian
    # stands for the Poisson distribution.
    gain: Positive | None = None

    def problems(self) -> list[str]:
        """What does not fit together."""
        return [
            f"{name} must be in rising order, found {getattr(self, name)}"
            for name in ("fwhm", "snr", "axis_ratio")
            if getattr(self, name)[0] > getattr(self, name)[1]
        ]


class Observed(NamedTuple):
    """Stamps of ``n`` objects.

    Attributes:
      target: what a perfect deconvolution would return.
      observed: through the ground-based telescope, with noise.
      psf: of each observation, on the grid of the target, with sum one.
      sigma: standard deviation of the white noise in a pixel of each observation.
    """

    target: Float[Array, "n h2 w2"]
    observed: Float[Array, "n h w"]
    psf: Float[Array, "n h2 w2"]
    sigma: Float[Array, " n"]


def seeing(
    shape: tuple[int, int],
    fwhm: float | Float[Array, ""],
    *,
    profile: Literal["moffat", "gaussian"] = "moffat",
    beta: float = 3.0,
    axis_ratio: float | Float[Array, ""] = 1.0,
    angle: float | Float[Array, ""] = 0.0,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Float[Array, "h w"]:
    """A PSF integrated over pixels, with sum one; differentiable in all numbers.

    Args:
      shape: height and width; the middle is the pixel ``(h // 2, w // 2)``.
      fwhm: full width at half maximum along the major axis, pixels.
      profile: "moffat" or "gaussian".
      beta: exponent of the Moffat profile.
      axis_ratio: minor over major axis.
      angle: of the major axis, from the columns to the rows.
      offset: of the peak from the middle, rows and columns, fractions of pixels allowed.

    >>> psf = seeing((32, 32), 4.0)
    >>> float(psf.sum().round(5)), divmod(int(psf.argmax()), 32)
    (1.0, (16, 16))
    """
    row, col = (
        jnp.asarray((np.arange(n * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - 0.5 - n // 2, float)
        - jnp.asarray(shift, float)
        for n, shift in zip(shape, offset, strict=True)
    )
    cos, sin = jnp.cos(jnp.asarray(angle, float)), jnp.sin(jnp.asarray(angle, float))
    along = col[None, :] * cos + row[:, None] * sin
    across = (row[:, None] * cos - col[None, :] * sin) / axis_ratio
    squared = (along**2 + across**2) / jnp.asarray(fwhm, float) ** 2
    if profile == "gaussian":
        psf = jnp.exp(-0.5 * _FWHM_PER_SIGMA**2 * squared)
    else:
        psf = (1 + 4 * (2 ** (1 / beta) - 1) * squared) ** -beta
    psf = rebin(psf, _OVERSAMPLING)
    return psf / jnp.sum(psf)


def resample_psf(
    psf: Float[np.ndarray, "*b k l"], ratio: float, shape: tuple[int, int]
) -> Float[np.ndarray, "*b h w"]:
    """A sampled PSF on larger or smaller pixels, its middle in the middle, with sum one.

    Every pixel takes from those beneath it by the area they share.

    Args:
      psf: with its peak in the pixel ``(k // 2, l // 2)``.
      ratio: side of the new pixels over that of the old ones.
      shape: height and width of the new grid.

    Raises:
      UserError: nothing of the PSF falls onto the grid, or the ratio is not positive.

    >>> point = np.eye(1, 81, 40).reshape(9, 9)
    >>> resample_psf(point, 3.0, (4, 4))[2].tolist()
    [0.0, 0.0, 1.0, 0.0]
    """
    psf = np.asarray(psf, float)
    if not ratio > 0:
        raise UserError(f"Expected a positive ratio of pixels, found {ratio}.")
    rows, cols = (_shares(n, m, ratio) for n, m in zip(shape, psf.shape[-2:], strict=True))
    out = rows @ psf @ cols.T
    total = out.sum((-2, -1), keepdims=True)
    if not (total > 0).all():
        raise UserError("Expected a PSF with a positive sum on the new grid, found none.")
    return out / total


def _shares(new: int, old: int, ratio: float) -> np.ndarray:
    """Length that each new pixel shares with each old one, over that of an old one."""
    start = (np.arange(new) - new // 2 - 0.5) * ratio
    edge = np.arange(old) - old // 2 - 0.5
    low = np.maximum(start[:, None], edge[None, :])
    high = np.minimum(start[:, None] + ratio, edge[None, :] + 1)
    return np.maximum(high - low, 0)


@functools.partial(jax.jit, static_argnames="telescope")
def observe(
    keys: Key[Array, " n"],
    truth: Float[Array, "n h w"],
    telescope: Telescope,
    target_psfs: Float[Array, "m h w"] | None = None,
) -> Observed:
    """Look at images through a telescope; each row depends on its own key alone.

    Fluxes are conserved: without noise an observation has the sum of its truth. Images are
    periodic.

    Args:
      keys: one per image.
      truth: before any telescope, or as sharp as a space telescope makes it.
      telescope: what it does.
      target_psfs: PSFs of a space telescope on the grid of the truth, one of which is drawn for
        each image; None takes the telescope's Gaussian.

    Raises:
      UserError: the sides of the images are no multiples of the telescope's factor.

    >>> truth = jnp.ones((2, 32, 32))
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> seen = observe(keys, truth, Telescope(factor=2))
    >>> seen.observed.shape, seen.target.shape
    ((2, 16, 16), (2, 32, 32))
    """
    if any(side % telescope.factor for side in truth.shape[1:]):
        raise UserError(
            f"Expected stamps whose sides are multiples of {telescope.factor}, the factor between "
            f"the pixels, found {truth.shape[1]} x {truth.shape[2]}."
        )
    return jax.vmap(lambda key, image: _observe(key, image, telescope, target_psfs))(keys, truth)


def _observe(
    key: Key[Array, ""], truth: Array, telescope: Telescope, target_psfs: Array | None
) -> Observed:
    for_noise, for_numbers = jax.random.split(key)
    numbers = iter(jax.random.uniform(for_numbers, (5,)))
    shape = (truth.shape[0], truth.shape[1])

    def uniform(ends: tuple[float, float]) -> Array:
        return ends[0] + (ends[1] - ends[0]) * next(numbers)

    psf = seeing(
        shape,
        uniform(telescope.fwhm),
        profile=telescope.profile,
        beta=telescope.beta,
        axis_ratio=uniform(telescope.axis_ratio),
        angle=uniform((0.0, np.pi)),
    )
    if target_psfs is None:
        target_psf = seeing(shape, telescope.target_fwhm, profile="gaussian")
    else:
        count = len(target_psfs)
        which = jnp.minimum(jnp.floor(count * next(numbers)).astype(int), count - 1)
        target_psf = target_psfs[which]
    clean = rebin(convolve(truth, psf_to_tf(psf)), telescope.factor)
    low, high = telescope.snr
    if telescope.snr_spacing == "log":
        snr = jnp.exp(uniform((float(np.log(low)), float(np.log(high)))))
    else:
        snr = uniform((low, high))
    sigma = jnp.maximum(jnp.max(clean), 1e-12) / snr
    variance = sigma**2
    if telescope.gain is not None:
        variance = variance + jnp.maximum(clean, 0) / telescope.gain
    noise = jnp.sqrt(variance) * jax.random.normal(for_noise, clean.shape)
    return Observed(convolve(truth, psf_to_tf(target_psf)), clean + noise, psf, sigma)
