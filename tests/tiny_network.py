"""A network of two convolutions, which compiles in a second; in the registry as "tiny"."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcore import registry
from jaxcore.bounds import Count
from jaxcore.convert import CONV, Rule, strip_prefix
from jaxcore.errors import UserError
from jaxcore.models.base import ImageNetwork, check_images
from jaxcore.models.config import DType, NetworkConfig
from jaxcore.typing import Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyConfig(NetworkConfig):
    """Sizes."""

    title: ClassVar[str] = "Tiny"

    channels: Count = 3
    width: Count = 4
    gain: float = 1.0  # of what is added to the input; weights do not tell it
    dtype: DType = "float32"
    param_dtype: DType = "float32"


class Tiny(nn.Module):
    """Two convolutions and the input."""

    cfg: TinyConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg = self.cfg
        types = {"dtype": jnp.dtype(cfg.dtype), "param_dtype": jnp.dtype(cfg.param_dtype)}
        y = nn.relu(nn.Conv(cfg.width, (3, 3), name="first", **types)(x.astype(types["dtype"])))
        y = nn.Conv(cfg.channels, (3, 3), name="last", **types)(y)
        return x + cfg.gain * y.astype(x.dtype)


def draw(key: Key, cfg: TinyConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    variables: Any = Tiny(cfg).init(key, jnp.zeros((1, 4, 4, cfg.channels)))
    return variables["params"]


def apply(params: Params, x: jax.Array, cfg: TinyConfig) -> jax.Array:
    """Restore images of sides that are multiples of four."""
    check_images(cfg.title, x, channels=cfg.channels, multiple=4)
    out: Any = Tiny(cfg).apply({"params": params}, x)
    return out


def config_from_state_dict(state_dict: Mapping[str, Any]) -> TinyConfig:
    """Sizes from the shapes of weights."""
    tensors = strip_prefix(state_dict, ["first.weight"])
    if "first.weight" not in tensors:
        raise UserError("Weights of Tiny contain the key 'first.weight', which these do not.")
    width, channels = tensors["first.weight"].shape[:2]
    return TinyConfig(channels=channels, width=width)


NETWORK = ImageNetwork(
    name="tiny",
    package=__name__,
    config_class=TinyConfig,
    draw=draw,
    apply=apply,
    channels=lambda cfg: cfg.channels,
    multiple=lambda cfg: 4,
    tiny=TinyConfig,
    recipes="tests.tiny_recipes",
    rules=(
        Rule(r"(first|last)/kernel", r"\1.weight", CONV),
        Rule(r"(first|last)/bias", r"\1.bias"),
    ),
    config_from_state_dict=config_from_state_dict,
)
registry.register(NETWORK)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
restore = NETWORK.restore
