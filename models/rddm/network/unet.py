"""The networks of RDDM: one U-Net, two, or two decoders behind one encoder.

Liu, Wang, Fan, Wang, Tang, Qu, CVPR 2024. Layout NHWC. Level i of the U-Net has ``dim_mults[i]``
times ``dim`` channels at half the resolution of the level before.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.rddm.network.blocks import (
    AttentionLayer,
    Downsample,
    ResnetBlock,
    TimeEmbedding,
    Upsample,
)
from jaxcore.models.rddm.network.config import UnetConfig
from jaxcore.nn import Conv, PointwiseConv, Types, apply_block, tap

Times = tuple[Float[Array, " b"], ...]
"""One time per network."""


class Unet(nn.Module):
    """One encoder and one decoder, or two decoders.

    With two, the first sees no maps of the encoder but the last one.

    Taps: ``time_mlp``, and the outputs of blocks, attention layers and resampling by their
    official names (``downs.0.1``, ``mid_attn``, ``final_res_block``).

    Attributes:
      cfg: sizes and options.
      decoders: 1 or 2.
    """

    cfg: UnetConfig
    decoders: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], time: Float[Array, " b"]
    ) -> tuple[Float[Array, "b h w c"], ...]:
        """One output per decoder."""
        cfg = self.cfg
        learned = None if cfg.time_embedding == "sinusoidal" else cfg.learned_frequencies
        types = Types.of(cfg)
        embed = TimeEmbedding(dim=cfg.dim, frequencies=learned, types=types, name="time_mlp")
        embedded = tap(self, "time_mlp", embed(time))
        stem = Conv(features=cfg.dim, kernel_size=7, use_bias=True, types=types, name="init_conv")
        first = x = tap(self, "init_conv", stem(x))
        widths = cfg.widths
        skips: list[Array] = []
        for i, (narrow, wide) in enumerate(itertools.pairwise(widths)):
            last = i == len(cfg.dim_mults) - 1
            for j in (0, 1):
                x = self._block(f"downs_{i}_block_{j}", narrow, x, embedded)
                x = tap(self, f"downs.{i}.{j}", x)
                if j:
                    x = tap(self, f"downs.{i}.2", self._attention(f"downs_{i}_attn", x))
                skips.append(x)
            x = self._resample(f"downs_{i}", wide, not last, Downsample)(x)
            x = tap(self, f"downs.{i}.3", x)
        x = tap(self, "mid_block1", self._block("mid_block1", widths[-1], x, embedded))
        x = tap(self, "mid_attn", self._attention("mid_attn", x, full=True))
        x = tap(self, "mid_block2", self._block("mid_block2", widths[-1], x, embedded))
        decode = functools.partial(self._decode, x, embedded, widths)
        if self.decoders == 1:
            return (decode("ups", [first, *skips], ""),)
        return decode("ups_no_skip", None, "_1"), decode("ups", [first, *skips], "_2")

    def _decode(
        self,
        x: Array,
        embedded: Array,
        widths: Sequence[int],
        side: str,
        skips: list[Array] | None,
        ending: str,
    ) -> Array:
        """A decoder: to full resolution, and to the channels of an image in float32."""

        def join(x: Array) -> Array:
            return x if skips is None else jnp.concatenate([x, skips.pop()], axis=-1)

        levels = range(len(widths) - 1)
        for i, level in enumerate(reversed(levels)):
            narrow, wide = widths[level], widths[level + 1]
            for j in (0, 1):
                x = self._block(f"{side}_{i}_block_{j}", wide, join(x), embedded)
                x = tap(self, f"{side}.{i}.{j}", x)
            x = tap(self, f"{side}.{i}.2", self._attention(f"{side}_{i}_attn", x))
            x = self._resample(f"{side}_{i}", narrow, i < len(levels) - 1, Upsample)(x)
            x = tap(self, f"{side}.{i}.3", x)
        x = self._block(f"final_res_block{ending}", self.cfg.dim, join(x), embedded)
        x = tap(self, f"final_res_block{ending}", x)
        last = PointwiseConv(
            features=self.cfg.channels,
            use_bias=True,
            types=Types.of(self.cfg),
            name=f"final_conv{ending}",
        )
        return last(x).astype(ops.accumulation_dtype(self.cfg.dtype))

    def _block(self, name: str, width: int, x: Array, embedded: Array) -> Array:
        cfg = self.cfg
        block = ResnetBlock(
            features=width, groups=cfg.groups, eps=cfg.eps, types=Types.of(cfg), name=name
        )
        return apply_block(block, x, embedded, remat=cfg.remat)

    def _attention(self, name: str, x: Array, *, full: bool = False) -> Array:
        cfg = self.cfg
        layer = AttentionLayer(
            full=full,
            heads=cfg.heads,
            dim_head=cfg.dim_head,
            eps=cfg.eps,
            types=Types.of(cfg),
            name=name,
        )
        return apply_block(layer, x, remat=cfg.remat)

    def _resample(
        self, level: str, width: int, halfway: bool, kind: type[Downsample | Upsample]
    ) -> Callable[[Array], Array]:
        """To the next level; the outermost keeps its resolution."""
        if halfway:
            return kind(features=width, types=Types.of(self.cfg), name=f"{level}_resample")
        return Conv(features=width, use_bias=True, types=Types.of(self.cfg), name=f"{level}_conv")


class Networks(nn.Module):
    """One U-Net for each time, or two decoders behind one encoder.

    Attributes:
      cfg: sizes and options of each.
    """

    cfg: UnetConfig

    @nn.compact
    def __call__(self, x: Array, times: Times) -> tuple[Array, ...]:
        """One output per network or decoder."""
        cfg = self.cfg
        if cfg.share_encoder:
            return Unet(cfg, 2, name="shared")(x, times[0])
        networks = [Unet(cfg, name=f"unet{i}") for i in range(len(times))]
        outputs = [unet(x, time) for unet, time in zip(networks, times, strict=True)]
        return tuple(itertools.chain.from_iterable(outputs))
