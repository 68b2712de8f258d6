"""The networks that are timed: what one call and one training step are, in full and tiny sizes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.models import adair, dea_net, llama, sunet
from jaxcore.models.adair import AdaIRConfig
from jaxcore.models.dea_net import DEANetConfig
from jaxcore.models.llama import LlamaConfig
from jaxcore.models.rddm.network import ddpm_unet
from jaxcore.models.rddm.network.ddpm_unet import DDPMUnetConfig
from jaxcore.models.sunet import SUNetConfig

Pass = Literal["forward", "step"]
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Network:
    """One network and the batches it is timed on.

    Attributes:
      module: with ``init`` and ``apply``.
      full: configuration as published.
      tiny: configuration for trying the benchmark out.
      batches: images and side of each pass.
      tiny_side: of the two images of a trial.
      timed: whether ``apply`` takes a time beside images.
      reads: whether it takes tokens; a side is then their number.
    """

    module: Any
    full: Any
    tiny: Any
    batches: dict[Pass, tuple[int, int]]
    tiny_side: int = 16
    timed: bool = False
    reads: bool = False

    def config(self, which: Pass, dtype: Dtype, smoke: bool) -> Any:
        """Sizes, in the form of that pass and the type of activations."""
        cfg = dataclasses.replace(self.tiny if smoke else self.full, dtype=dtype)
        return cfg.deployed() if which == "forward" and hasattr(cfg, "deployed") else cfg

    def arrays(self, which: Pass, smoke: bool) -> tuple[np.ndarray, ...]:
        """What the network is shown, NHWC or tokens, and for a step what it is to make."""
        count, side = (2, self.tiny_side) if smoke else self.batches[which]
        if self.reads:
            return self._texts(count, side, which, smoke)
        channels = getattr(self.full, "in_channels", 3)
        rng = np.random.default_rng(side)
        shape = (count, side, side, channels)
        x, y = (rng.uniform(size=shape).astype(np.float32) for _ in range(2))
        times = (np.full((count,), 500, np.float32),) if self.timed else ()
        return (x, *times) if which == "forward" else (x, *times, y)

    def _texts(self, count: int, side: int, which: Pass, smoke: bool) -> tuple[np.ndarray, ...]:
        words, rng = (self.tiny if smoke else self.full).vocab_size, np.random.default_rng(side)
        tokens = rng.integers(words, size=(count, side)).astype(np.int32)
        if which == "forward":
            return (tokens,)
        return tokens, rng.uniform(size=(count, side, words)).astype(np.float32)


class _Logits:
    """A decoder whose ``apply`` gives the logits of all tokens."""

    param_shapes = llama.param_shapes

    @staticmethod
    def apply(params: Any, tokens: jax.Array, *, cfg: LlamaConfig) -> Any:
        return llama.apply(params, tokens, cfg).logits


NETWORKS: dict[str, Network] = {
    "restormer": Network(
        adair,
        AdaIRConfig.restormer(),
        AdaIRConfig.tiny(decoder=False),
        {"forward": (8, 256), "step": (8, 128)},
    ),
    "dea_net": Network(
        dea_net,
        DEANetConfig(),
        DEANetConfig(base_dim=4, depths=(1, 1, 1, 1, 1)),
        {"forward": (8, 512), "step": (16, 256)},
    ),
    "rddm": Network(
        ddpm_unet,
        DDPMUnetConfig(dim=64),
        DDPMUnetConfig(dim=8, dim_mults=(1, 2), heads=2, dim_head=4),
        {"forward": (8, 256), "step": (8, 256)},
        timed=True,
    ),
    "sunet": Network(
        sunet,
        SUNetConfig.deconv(),
        SUNetConfig.tiny(),
        {"forward": (64, 128), "step": (16, 128)},
    ),
    "llama": Network(
        _Logits,
        LlamaConfig(
            width=1024,
            depth=12,
            num_heads=16,
            num_kv_heads=8,
            head_dim=64,
            mlp_width=2816,
            vocab_size=8192,
            scan_blocks=False,
        ),
        LlamaConfig.tiny(),
        {"forward": (8, 1024), "step": (8, 1024)},
        reads=True,
    ),
    "adair": Network(
        adair,
        AdaIRConfig.five_task(),
        AdaIRConfig.tiny(),
        {"forward": (8, 256), "step": (8, 128)},
    ),
}


def forward(network: Network, cfg: Any) -> Callable[..., jax.Array]:
    """``fn(params, x, ...)``."""
    return functools.partial(network.module.apply, cfg=cfg)


def loss(network: Network, cfg: Any) -> Callable[..., jax.Array]:
    """``fn(params, x, ..., y)``: mean absolute difference."""

    def run(params: Any, *arrays: jax.Array) -> jax.Array:
        *inputs, y = arrays
        return jnp.mean(jnp.abs(network.module.apply(params, *inputs, cfg=cfg) - y))

    return run


def params(network: Network, cfg: Any) -> Any:
    """Drawn, without compiling the initialisers."""
    shapes = network.module.param_shapes(cfg)
    rng = np.random.default_rng(0)

    def draw(a: Any) -> np.ndarray:
        fan_in = max(int(np.prod(a.shape[:-1])), 4)
        return (rng.normal(size=a.shape) / fan_in**0.5).astype(a.dtype)

    return jax.device_put(jax.tree.map(draw, shapes))
