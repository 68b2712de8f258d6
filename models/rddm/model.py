"""RDDM as a function of its configuration: parameters, and one call of its networks."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.models.base import check_images
from jaxcore.models.rddm.config import RDDMConfig
from jaxcore.models.rddm.network.blocks import STANDARDISED, standardise_kernel
from jaxcore.models.rddm.network.unet import Networks, Times
from jaxcore.typing import Key, Params

START = 0.5
"""Weight of the search for an objective at the beginning: undecided."""


def draw(key: Key, cfg: RDDMConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    side = cfg.multiple
    x = jnp.zeros((1, side, side, cfg.input_channels), jnp.float32)
    times = (jnp.zeros((1,), jnp.float32),) * cfg.num_unet
    params: Any = Networks(cfg.unet).init(key, x, times)["params"]
    if cfg.searching:
        return {"network": params, "weight": jnp.full((), START, jnp.float32)}
    return params


def trainable(params: Params, cfg: RDDMConfig) -> Any:
    """True for every parameter that learns: all but the frequencies of random Fourier features."""
    if cfg.unet.time_embedding != "random":
        return None
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "frequencies", params)


def standardise(params: Params, cfg: RDDMConfig) -> Params:
    """Parameters for inference, whose kernels need no standardisation at every call.

    The result computes the same and is accepted wherever parameters are applied; it cannot be
    trained or exported.

    >>> from jaxcore.models import rddm
    >>> cfg = RDDMConfig.tiny()
    >>> block = standardise(rddm.init(jax.random.key(0), cfg), cfg)["unet0"]["mid_block1"]["block1"]
    >>> sorted(block["proj"])
    ['bias', 'standardised']
    """

    def walk(node: Any, name: str) -> Any:
        if not isinstance(node, dict):
            return node
        if name == "proj" and "kernel" in node:
            rest = {key: value for key, value in node.items() if key != "kernel"}
            return {STANDARDISED: standardise_kernel(node["kernel"], cfg.unet.eps), **rest}
        return {key: walk(child, key) for key, child in node.items()}

    return walk(params, "")


def apply(
    params: Params,
    x: Float[Array, "b h w i"],
    time: Times | Array,
    cfg: RDDMConfig,
) -> tuple[Array, ...]:
    """Run the networks. Pure: can be jitted (``cfg`` static), mapped, differentiated, sharded.

    Args:
      params: from `init`, `from_torch` or :func:`standardise`.
      x: channels in the order self conditioning, I_t, I_in, conditions, images in [-1, 1]; height
        and width multiples of ``cfg.multiple``. See `network_input`.
      time: one time per network, or one for all.
      cfg: sizes and options.

    Returns:
      One output per network or decoder, float32 (float64 if ``cfg.unet.dtype`` is).

    Raises:
      UserError: shape or type of ``x`` or the number of times do not fit.

    >>> from jaxcore.models import rddm
    >>> cfg = RDDMConfig.tiny()
    >>> x, time = jnp.zeros((2, 4, 6, 6)), jnp.array([3.0, 7.5])
    >>> found = jax.eval_shape(lambda params: apply(params, x, time, cfg), rddm.param_shapes(cfg))
    >>> [y.shape for y in found]
    [(2, 4, 6, 3)]
    """
    times = time if isinstance(time, tuple) else (time,) * cfg.num_unet
    check_images(
        cfg.title,
        x,
        channels=cfg.input_channels,
        multiple=cfg.multiple,
        what=cfg.input_description,
        values="[-1, 1]",
    )
    _check_times(x, times, cfg)
    if "network" in params:
        params = params["network"]
    out: Any = Networks(cfg.unet).apply({"params": params}, x, times)
    return out


def _check_times(x: Array, times: Times, cfg: RDDMConfig) -> None:
    shapes = [tuple(time.shape) for time in times]
    if shapes != [x.shape[:1]] * cfg.num_unet:
        raise UserError(
            f"RDDM expects {cfg.num_unet} vector(s) of times, one entry per image, found shapes "
            f"{shapes} for {x.shape[0]} images."
        )
