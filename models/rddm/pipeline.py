"""From images in [0, 1] and parameters to restored images: everything around the networks."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore import tiling
from jaxcore.errors import UserError
from jaxcore.models.rddm.config import DEFAULT_STEPS, RDDMConfig
from jaxcore.models.rddm.model import apply, standardise
from jaxcore.models.rddm.network.unet import Times
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.losses import ApplyFn
from jaxcore.models.rddm.process.objectives import Mode, RDDMObjective
from jaxcore.models.rddm.process.selector import OBJECTIVES, ObjectiveSelector
from jaxcore.models.rddm.sampling.released import generalised
from jaxcore.models.rddm.sampling.sampler import sample
from jaxcore.models.rddm.sampling.table import SamplingTable
from jaxcore.typing import Params


@functools.lru_cache(maxsize=16)
def apply_fn(cfg: RDDMConfig) -> ApplyFn:
    """The networks as losses and samplers call them; one object for equal configurations.

    >>> apply_fn(RDDMConfig.tiny()) is apply_fn(RDDMConfig.tiny())
    True
    """

    def run(params: Params, x: Array, times: Times) -> tuple[Array, ...]:
        return apply(params, x, times, cfg)

    return run


def selector(cfg: RDDMConfig) -> ObjectiveSelector:
    """The search for an objective (AOSA)."""
    return ObjectiveSelector(config=cfg.objective, concat_input=cfg.kind == "restoration")


def objective_of(params: Params, cfg: RDDMConfig) -> RDDMObjective:
    """How the networks are read; while an objective is searched, as its weight leans.

    >>> cfg = RDDMConfig.tiny(objective={"name": "auto_res_noise"})
    >>> objective_of({"weight": jnp.float32(0.502)}, cfg).name
    'pred_res'
    """
    if not cfg.searching:
        return cfg.make_objective()
    leaning = "residual" if float(params["weight"]) > 0.5 else "noise"
    return selector(cfg).objective(leaning)


def chosen(params: Params, cfg: RDDMConfig) -> RDDMConfig | None:
    """Configuration for a network with fresh parameters, once the search has a result.

    >>> cfg = RDDMConfig.tiny(objective={"name": "auto_res_noise"})
    >>> chosen({"weight": jnp.float32(0.48)}, cfg).objective.name
    'pred_noise'
    >>> chosen({"weight": jnp.float32(0.505)}, cfg) is None
    True
    """
    choice = selector(cfg).choice(float(params["weight"]))
    return None if choice is None else cfg.replace(objective={"name": OBJECTIVES[choice]})


@functools.lru_cache(maxsize=16)
def _table(cfg: RDDMConfig, steps: int) -> SamplingTable:
    # Never the ancestral loop: restoration adds no noise, also with a step at every time.
    return generalised(cfg.schedule.make(), steps)


_standardise = jax.jit(standardise, static_argnames="cfg")


def restore(
    params: Params,
    image: Float[np.ndarray, "*b h w c"],
    cfg: RDDMConfig,
    *,
    steps: int | None = None,
    seed: int = 0,
    noise: Float[np.ndarray, "*b h w c"] | None = None,
    condition: Float[np.ndarray, "*b h w m"] | None = None,
    mode: Mode | None = None,
    tile: int | None = None,
    overlap: int = 32,
    blend: tiling.Blend = "linear",
    ensemble: bool = False,
    bucket: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "*b h w c"]:
    """Restore (or translate) an image, or a batch of images of one size, deterministically.

    Sampling starts from the degraded image with noise on it, so the result depends on the seed;
    the steps add none. The noise is that of the whole image also with tiles, which therefore agree
    where they overlap. Attention and norms see everything a network is given at once, so tiles
    give another result than the whole image. For fresh noise in the steps, other orders and
    schedules, and for generation, see `sample`.

    Args:
      params: from `init`, `from_torch` or training.
      image: degraded, floats in [0, 1], any size; HWC or NHWC.
      cfg: configuration of the parameters.
      steps: calls of the networks; None takes those of the published experiments (2 to 5).
      seed: of the noise on the degraded image.
      noise: standard normal noise of the shape of ``image``, instead of one from the seed.
      condition: further channels the networks expect, such as a mask in [0, 1].
      mode: which outputs are used; None for all, see `RDDMObjective`.
      tile: side of tiles in pixels, a multiple of ``cfg.multiple``; None for the whole image.
      overlap: pixels shared by neighbouring tiles.
      blend: "linear" or "uniform" weights where tiles overlap.
      ensemble: average over the eight flips and quarter turns.
      bucket: pad to multiples of this, itself a multiple of ``cfg.multiple``.
      progress: called with (tiles done, tiles in all).

    Returns:
      float32 array of the shape of ``image``, on the host, in [0, 1].

    Raises:
      UserError: the image, the condition or an option does not fit, or the networks generate.

    >>> from jaxcore.models import rddm
    >>> cfg = rddm.RDDMConfig.tiny()
    >>> params = rddm.init(jax.random.key(0), cfg)
    >>> restore(params, np.zeros((13, 10, 3), np.float32), cfg, steps=2).shape
    (13, 10, 3)
    """
    if cfg.kind == "generation":
        raise UserError("Expected networks that restore images, found networks that generate them.")
    image = np.asarray(image)
    parts = [image, *_conditions(image, condition, cfg), _noise(image, noise, seed, cfg)]
    objective = objective_of(params, cfg)
    objective.check_mode(mode)
    table = _table(cfg, DEFAULT_STEPS.get(objective.name, 5) if steps is None else steps)
    weights = _standardise(params.get("network", params), cfg=cfg)
    widths = np.cumsum([cfg.unet.channels, cfg.condition_channels])

    def run(stacked: np.ndarray) -> Any:
        degraded, shown, start = jnp.split(jnp.asarray(stacked), widths, axis=-1)
        out = sample(
            apply_fn(cfg),
            weights,
            forward.to_signed(degraded),
            table=table,
            objective=objective,
            noise=start[None],
            condition=shown if cfg.condition_channels else None,
            mode=mode,
        )
        return forward.to_unit(out)

    return tiling.restore(
        run,
        np.concatenate([part.astype(np.float32) for part in parts], axis=-1),
        multiple=cfg.multiple,
        tile=tile,
        overlap=overlap,
        blend=blend,
        ensemble=ensemble,
        bucket=bucket,
        progress=progress,
    )


def _conditions(image: np.ndarray, condition: Any, cfg: RDDMConfig) -> list[np.ndarray]:
    """The condition, checked, as a list that may be empty."""
    if image.ndim not in (3, 4) or image.shape[-1] != cfg.unet.channels:
        raise UserError(
            f"Expected an image of shape (height, width, {cfg.unet.channels}) or a batch of such, "
            f"found {tuple(image.shape)}."
        )
    if image.dtype.kind != "f":
        raise UserError(f"Expected floating-point images in [0, 1], found {image.dtype}.")
    if not cfg.condition_channels:
        if condition is not None:
            raise UserError(
                "Expected no condition for networks without further channels, found one."
            )
        return []
    expected = (*image.shape[:-1], cfg.condition_channels)
    if condition is None:
        raise UserError(
            f"Expected a condition of shape {expected}, such as a mask, beside the image, found "
            "none."
        )
    condition = np.asarray(condition)
    if condition.shape != expected:
        raise UserError(f"Expected a condition of shape {expected}, found {condition.shape}.")
    if condition.dtype.kind != "f":
        raise UserError(f"Expected a floating-point condition, found {condition.dtype}.")
    return [condition]


def _noise(image: np.ndarray, noise: Any, seed: int, cfg: RDDMConfig) -> np.ndarray:
    if noise is None:
        if seed < 0:
            raise UserError(f"Expected a seed of at least 0, found {seed}.")
        return np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    if np.shape(noise) != image.shape:
        raise UserError(
            f"Expected noise of the shape {image.shape} of the image, found {np.shape(noise)}."
        )
    return np.asarray(noise)
