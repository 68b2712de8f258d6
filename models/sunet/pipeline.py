"""From an observation and its PSF to a deconvolved image: steps 1 to 3, compiled."""

import functools
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution import debias as debiasing
from jaxcore.models.deconvolution import mean_and_spread, restore_tikhonov
from jaxcore.models.deconvolution.dictionary import Dictionary
from jaxcore.models.deconvolution.tikhonov import LAM, Choice
from jaxcore.models.sunet.config import SUNetConfig
from jaxcore.models.sunet.model import apply
from jaxcore.ops.starlet import Starlet, mad_sigma
from jaxcore.typing import Params

Step: TypeAlias = Literal["tikhonov", "sunet", "debias"]
STEPS: tuple[Step, ...] = ("tikhonov", "sunet", "debias")
_IN_CACHE = 2**14  # pixels whose activations the caches of a CPU hold, about


class Normalised(NamedTuple):
    """Images as the network wants them, and how to go back.

    Attributes:
      images: about 0, with a peak of about 1.
      mean: of every image before.
      peak: largest value of every image before, with its mean.
    """

    images: Float[Array, "*b h w"]
    mean: Float[Array, "*b 1 1"]
    peak: Float[Array, "*b 1 1"]

    def back(self, images: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        """Images in the units from before."""
        return images * self.peak + self.mean


def normalise(t: Float[Array, "*b h w"]) -> Normalised:
    """Take the mean off every image and divide by its largest value, as the official code does.

    Images without a positive value are divided by 1.

    >>> normalise(jnp.array([[1.0, 3.0]])).images.round(4)
    Array([[-0.3333,  0.3333]], dtype=float32)
    """
    mean = jnp.mean(t, axis=(-2, -1), keepdims=True)
    peak = jnp.max(t, axis=(-2, -1), keepdims=True)
    peak = jnp.where(peak > 0, peak, 1)
    return Normalised((t - mean) / peak, mean, peak)


class Deconvolved(NamedTuple):
    """Images after every step that ran.

    Attributes:
      image: after the last step.
      tikhonov: after step 1.
      sunet: after step 2; None without it.
      support: active coefficients of step 3; None without it.
    """

    image: Float[Array, "n c h w"]
    tikhonov: Float[Array, "n c h w"]
    sunet: Float[Array, "n c h w"] | None
    support: Array | None


@functools.partial(jax.jit, static_argnames=("cfg", "lam", "steps", "tile", "dictionary", "n_iter"))
def deconvolve(
    images: Float[Array, "n c h w"],
    psf: Float[Array, "*n c h2 w2"],
    params: Params | None = None,
    cfg: SUNetConfig | None = None,
    *,
    steps: tuple[Step, ...] = STEPS,
    lam: float | Choice = LAM,
    sigma: Float[Array, "n c"] | None = None,
    tile: int | None = None,
    dictionary: Dictionary = Starlet(4),
    n_iter: int = 10,
) -> Deconvolved:
    """Deconvolve a stack of images of several bands in one compiled call.

    Args:
      images: observations, in any unit.
      psf: of every band, (c, h2, w2), or of every image and band; on the grid of the result,
        whose sides are the same whole multiple of those of the observations.
      params: of the network; None without "sunet" among the steps.
      cfg: its configuration.
      steps: which to run, in their order; the first always runs.
      lam: regularisation of step 1, or how to choose it.
      sigma: standard deviation of the noise in a pixel, of every image and band; estimated where
        it is None and needed.
      tile: side of tiles for the network as the official code cuts them, put into the middle of a
        square of zeros and without overlap; None shows it whole images, mirrored to sides it
        takes.
      dictionary: wavelet transform of step 3, a `Starlet` or `Stationary`.
      n_iter: iterations of step 3.

    Returns:
      Images in the unit of the observations, per fine pixel.

    Raises:
      UserError: shapes or options do not fit each other.

    >>> from jaxcore.models.deconvolution import moffat_psf
    >>> psf = jnp.asarray(moffat_psf((32, 32), 4.0), "float32")[None]
    >>> deconvolve(jnp.ones((2, 1, 16, 16)), psf, steps=("tikhonov", "debias")).image.shape
    (2, 1, 32, 32)
    """
    if images.ndim != 4 or psf.ndim not in (3, 4) or psf.shape[-3] != images.shape[1]:
        raise UserError(
            "Expected images (number, bands, height, width) and a PSF (bands, height, width) or "
            f"one for each of them, found {images.shape} and {psf.shape}."
        )
    if not steps or steps[0] != "tikhonov" or list(steps) != [s for s in STEPS if s in steps]:
        raise UserError(f"Expected some of the steps {STEPS} from the first on, found {steps}.")
    if "sunet" in steps and (params is None or cfg is None):
        raise UserError("Expected parameters and a configuration for the step sunet, found none.")
    if sigma is None and ("debias" in steps or lam in ("sure", "discrepancy")):
        sigma = mad_sigma(images)
    image = tikhonov = restore_tikhonov(images, psf, lam, sigma=sigma)
    network = support = None
    if params is not None and cfg is not None and "sunet" in steps:
        image = network = run_network(tikhonov, params, cfg, tile)
    if "debias" in steps:
        out = debiasing(image, images, psf, sigma=sigma, dictionary=dictionary, n_iter=n_iter)
        image, support = out.image, out.support
    return Deconvolved(image, tikhonov, network, support)


def run_network(
    t: Float[Array, "*b h w"], params: Params, cfg: SUNetConfig, tile: int | None = None
) -> Float[Array, "*b h w"]:
    """Step 2: normalise, run the network, and go back.

    Args:
      t: images of step 1, in any unit.
      params: of the network.
      cfg: its configuration.
      tile: see `deconvolve`.

    Raises:
      UserError: the network has several channels.
    """
    if cfg.in_channels != 1:
        raise UserError(f"Expected a network of one channel, found {cfg.in_channels}.")
    normalised, (h, w) = normalise(t), t.shape[-2:]
    flat = normalised.images.reshape(-1, h, w).astype(cfg.dtype)
    if tile is None:
        sides = (-h % cfg.multiple, -w % cfg.multiple)
        # Mirrored about the border pixel as often as it takes.
        padded = jnp.pad(flat, ((0, 0), (0, sides[0]), (0, sides[1])), mode="reflect")
        out = _shown(params, padded[..., None], cfg)[:, :h, :w, 0]
    else:
        out = _tiled(flat, params, cfg, tile)
    return normalised.back(out.reshape(t.shape).astype(t.dtype))


def _shown(params: Params, x: Array, cfg: SUNetConfig) -> Array:
    """Images through the network; on a CPU some after others, which is the same and quicker."""
    count, height, width, _ = x.shape
    most = min(count, max(1, _IN_CACHE // (height * width)))
    if most == count or jax.default_backend() != "cpu":
        return apply(params, x, cfg)
    some = next(size for size in range(most, 0, -1) if count % size == 0)
    parts = x.reshape(-1, some, *x.shape[1:])
    return jax.lax.map(lambda part: apply(params, part, cfg), parts).reshape(x.shape)


def run_networks(
    t: Float[Array, "*b h w"], params: Params, cfg: SUNetConfig
) -> Float[Array, "n *b h w"]:
    """Step 2 by several networks of one configuration, one after the other.

    Args:
      t: images of step 1, in any unit.
      params: of the networks, each array with a new first axis.
      cfg: their configuration.
    """
    return jax.lax.map(lambda one: run_network(t, one, cfg), params)


class Ensemble(NamedTuple):
    """Result of several networks.

    Attributes:
      image: mean of their images after the last step.
      spread: standard deviation of these images.
    """

    image: Float[Array, "n c h w"]
    spread: Float[Array, "n c h w"]


def deconvolve_ensemble(
    images: Float[Array, "n c h w"],
    psf: Float[Array, "*n c h2 w2"],
    params: Params,
    cfg: SUNetConfig,
    **options: Any,
) -> Ensemble:
    """`deconvolve` by several networks, trained from different seeds say.

    Args:
      images: observations.
      psf: of them.
      params: of the networks, each array with a new first axis:
        ``jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second, third)``.
      cfg: their configuration.
      **options: of `deconvolve`.

    Raises:
      UserError: fewer than two networks, and as `deconvolve`.
    """

    def one(params: Params) -> Array:
        return deconvolve(images, psf, params, cfg, **options).image

    return Ensemble(*mean_and_spread(jax.lax.map(one, params)))


def _tiled(flat: Array, params: Params, cfg: SUNetConfig, tile: int) -> Array:
    """The official cutting: in the middle of a square of zeros, tiles without overlap."""
    count, h, w = flat.shape
    across = int(np.ceil(max(h, w) / tile))
    side = across * tile
    top, left = (side - h) // 2, (side - w) // 2
    square = jnp.pad(flat, ((0, 0), (top, side - h - top), (left, side - w - left)))
    cut = square.reshape(count, across, tile, across, tile).swapaxes(2, 3)
    out = _shown(params, cut.reshape(-1, tile, tile, 1), cfg)
    out = out.reshape(count, across, across, tile, tile).swapaxes(2, 3)
    return out.reshape(count, side, side)[:, top : top + h, left : left + w]
