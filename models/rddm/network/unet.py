"""The networks of RDDM: one U-Net, two, or two decoders behind one encoder.

Liu, Wang, Fan, Wang, Tang, Qu, CVPR 2024. Layout NHWC. Level i of the U-Net has ``dim_mults[i]``
times ``dim`` channels at half the resolution of the level before.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

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
from jaxcore.nn import Conv, PointwiseConv, types_of

Times = tuple[Float[Array, " b"], ...]
"""One time per network."""


class Unet(nn.Module):
    """One encoder and one decoder, or two decoders.

    With two, the first sees no maps of the encoder but the last one.

    Attributes:
      cfg: sizes and options.
      decoders: 1 or 2.
    """

    cfg: UnetConfig
    decoders: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], time: Float[Array, " b"]
    ) -> tuple[tuple[Float[Array, "b h w c"], ...], dict[str, Array]]:
        """One output per decoder, and the intermediate maps by their official names."""
        cfg, seen = self.cfg, {}
        learned = None if cfg.time_embedding == "sinusoidal" else cfg.learned_frequencies
        embed = TimeEmbedding(cfg.dim, learned, name="time_mlp", **self._types)
        told = seen["time_mlp"] = embed(time)
        stem = Conv(features=cfg.dim, kernel_size=7, use_bias=True, name="init_conv", **self._types)
        first = x = seen["init_conv"] = stem(x)
        widths = cfg.widths
        skips: list[Array] = []
        for i, (narrow, wide) in enumerate(itertools.pairwise(widths)):
            last = i == len(cfg.dim_mults) - 1
            for j in (0, 1):
                x = self._block(f"downs_{i}_block_{j}", narrow, x, told)
                seen[f"downs.{i}.{j}"] = x
                if j:
                    x = seen[f"downs.{i}.2"] = self._attention(f"downs_{i}_attn", x)
                skips.append(x)
            x = seen[f"downs.{i}.3"] = self._resample(f"downs_{i}", wide, not last, Downsample)(x)
        x = seen["mid_block1"] = self._block("mid_block1", widths[-1], x, told)
        x = seen["mid_attn"] = self._attention("mid_attn", x, full=True)
        x = seen["mid_block2"] = self._block("mid_block2", widths[-1], x, told)
        decode = functools.partial(self._decode, x, told, widths, seen)
        if self.decoders == 1:
            return (decode("ups", [first, *skips], ""),), seen
        return (decode("ups_no_skip", None, "_1"), decode("ups", [first, *skips], "_2")), seen

    def _decode(
        self,
        x: Array,
        told: Array,
        widths: Sequence[int],
        seen: dict[str, Array],
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
                x = self._block(f"{side}_{i}_block_{j}", wide, join(x), told)
                seen[f"{side}.{i}.{j}"] = x
            x = seen[f"{side}.{i}.2"] = self._attention(f"{side}_{i}_attn", x)
            x = self._resample(f"{side}_{i}", narrow, i < len(levels) - 1, Upsample)(x)
            seen[f"{side}.{i}.3"] = x
        x = self._block(f"final_res_block{ending}", self.cfg.dim, join(x), told)
        seen[f"final_res_block{ending}"] = x
        last = PointwiseConv(
            features=self.cfg.channels, use_bias=True, name=f"final_conv{ending}", **self._types
        )
        return last(x).astype(ops.accumulation_dtype(self.cfg.dtype))

    @property
    def _types(self) -> dict[str, Any]:
        return types_of(self.cfg)

    def _block(self, name: str, width: int, x: Array, told: Array) -> Array:
        block = nn.remat(ResnetBlock) if self.cfg.remat else ResnetBlock
        options = {"groups": self.cfg.groups, "eps": self.cfg.eps}
        return block(width, name=name, **options, **self._types)(x, told)

    def _attention(self, name: str, x: Array, *, full: bool = False) -> Array:
        layer = nn.remat(AttentionLayer) if self.cfg.remat else AttentionLayer
        cfg = self.cfg
        options = {"heads": cfg.heads, "dim_head": cfg.dim_head, "eps": cfg.eps, **self._types}
        return layer(full, name=name, **options)(x)

    def _resample(
        self, level: str, width: int, halfway: bool, kind: type[Downsample | Upsample]
    ) -> Callable[[Array], Array]:
        """To the next level; the outermost keeps its resolution."""
        if halfway:
            return kind(width, name=f"{level}_resample", **self._types)
        return Conv(features=width, use_bias=True, name=f"{level}_conv", **self._types)


class Networks(nn.Module):
    """One U-Net for each time, or two decoders behind one encoder.

    Attributes:
      cfg: sizes and options of each.
    """

    cfg: UnetConfig

    @nn.compact
    def __call__(self, x: Array, times: Times) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """One output per time, and the intermediate maps by their official names."""
        cfg = self.cfg
        if cfg.share_encoder:
            return Unet(cfg, 2, name="shared")(x, times[0])
        outputs, seen = (), {}
        for i, time in enumerate(times):
            name = f"unet{i}"
            output, maps = Unet(cfg, name=name)(x, time)
            outputs += output
            seen |= {f"{name}.{key}": value for key, value in maps.items()}
        return outputs, seen
