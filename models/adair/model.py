"""AdaIR: adaptive all-in-one image restoration by frequency mining and modulation.

Cui, Zamir, Khan, Knoll, Shah, Khan, ICLR 2025; the backbone is Restormer (Zamir et al., CVPR
2022). Layout NHWC. Where the released code and the paper differ, the code is followed; see
`AdaIRConfig` for the options that differ from it.
"""

import functools
from typing import Any, Literal, overload

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.models.adair.blocks import Downsample, TransformerBlock, Upsample
from jaxcore.models.adair.config import MULTIPLE, AdaIRConfig
from jaxcore.models.adair.frequency import AFLB
from jaxcore.models.base import check_images
from jaxcore.nn import Conv, PointwiseConv, apply_stack, types_of
from jaxcore.typing import Key, Params


class AdaIR(nn.Module):
    """The whole network.

    The blocks of a level are one stack: every parameter below ``encoder_level1`` and so on has a
    leading axis of the number of blocks.

    Attributes:
      cfg: sizes and options.
    """

    cfg: AdaIRConfig

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w i"],
        context: Float[Array, "b d"] | None = None,
    ) -> tuple[Float[Array, "b h w i"], dict[str, Array]]:
        """Restore images; see :func:`apply`. Returns the output and the intermediate maps."""
        cfg, seen = self.cfg, {}
        x = self._conv("patch_embed", cfg.dim)(image)
        skips = []
        for level in (1, 2, 3):
            x = seen[f"encoder_level{level}"] = self._stage(f"encoder_level{level}", level, x)
            skips.append(x)
            x = Downsample(name=f"down{level}_{level + 1}", **self._types)(x)
        if context is not None:
            x = x + context.astype(x.dtype)[:, None, None, :]
        x = seen["latent"] = self._stage("latent", 4, x)
        x = self._aflb("fre1", 4, image, x, seen)
        for level in (3, 2, 1):
            up = Upsample(name=f"up{level + 1}_{level}", **self._types)(x)
            x = jnp.concatenate([up, skips[level - 1]], axis=-1)
            if level > 1:
                reduce = PointwiseConv(
                    features=x.shape[-1] // 2,
                    use_bias=cfg.bias,
                    name=f"reduce_chan_level{level}",
                    **self._types,
                )
                x = reduce(x)
            x = seen[f"decoder_level{level}"] = self._stage(f"decoder_level{level}", level, x)
            if level > 1:
                x = self._aflb(f"fre{5 - level}", level, image, x, seen)
        x = seen["refinement"] = self._stage("refinement", 1, x)
        residual = self._conv("output", cfg.out_channels, cfg.bias)(x)
        # The sum is formed in float32, also after half-precision arithmetic.
        wide = ops.accumulation_dtype(cfg.dtype)
        return residual.astype(wide) + image.astype(wide), seen

    @property
    def _types(self) -> dict[str, Any]:
        return types_of(self.cfg)

    def _conv(self, name: str, features: int, use_bias: bool = False) -> Conv:
        return Conv(features=features, use_bias=use_bias, name=name, **self._types)

    def _window(self, level: int) -> int | None:
        side = self.cfg.stat_window
        return None if side is None else side // 2 ** (level - 1)

    def _stage(self, name: str, level: int, x: Array) -> Array:
        """A stack of transformer blocks."""
        cfg = self.cfg
        length = cfg.num_refinement_blocks if name == "refinement" else cfg.num_blocks[level - 1]
        make = functools.partial(
            TransformerBlock,
            num_heads=cfg.heads[level - 1],
            expansion=cfg.ffn_expansion,
            use_bias=cfg.bias,
            norm_bias=cfg.norm_type == "WithBias",
            window=self._window(level),
            **self._types,
        )
        return apply_stack(
            self, make, name, x, length=length, scan=cfg.scan_blocks, remat=cfg.remat
        )

    def _aflb(self, name: str, level: int, image: Array, y: Array, seen: dict[str, Array]) -> Array:
        if not self.cfg.decoder:
            return y
        block = nn.remat(AFLB) if self.cfg.remat else AFLB
        y, info = block(self.cfg, self._window(level), name=name)(image, y)
        seen[name] = y
        seen.update({f"{name}_{key}": value for key, value in info.items()})
        return y


def draw(key: Key, cfg: AdaIRConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    image = jnp.zeros((1, MULTIPLE, MULTIPLE, cfg.in_channels), jnp.float32)
    variables: Any = AdaIR(cfg).init(key, image)
    return variables["params"]


@overload
def apply(
    params: Params,
    x: Array,
    cfg: AdaIRConfig,
    *,
    context: Array | None = None,
    return_intermediates: Literal[False] = False,
) -> Array: ...
@overload
def apply(
    params: Params,
    x: Array,
    cfg: AdaIRConfig,
    *,
    context: Array | None = None,
    return_intermediates: Literal[True],
) -> tuple[Array, dict[str, Array]]: ...
def apply(
    params: Params,
    x: Float[Array, "b h w i"],
    cfg: AdaIRConfig,
    *,
    context: Float[Array, "b d"] | None = None,
    return_intermediates: bool = False,
) -> Float[Array, "b h w i"] | tuple[Float[Array, "b h w i"], dict[str, Array]]:
    """Restore images. Pure: can be jitted (``cfg`` static), mapped, differentiated, sharded.

    Args:
      params: from `init` or `from_torch`.
      x: degraded images in [0, 1], height and width multiples of 8. For other sizes see
        `restore`.
      cfg: sizes and options.
      context: a hook for extensions that know more about the degradation: one vector of
        ``8 * cfg.dim`` numbers per image, added to every pixel entering the latent level. No
        published weights use it.
      return_intermediates: also return a dict with the output of every level and AFLB and, per
        AFLB, ``<name>_threshold``, ``<name>_half_width`` and ``<name>_mask`` (in FFT order).

    Returns:
      Restored images, float32 (float64 if ``cfg.dtype`` is), not clipped to [0, 1].

    Raises:
      UserError: shape or type of ``x`` or ``context`` do not fit.

    >>> from jaxcore.models import adair
    >>> cfg = AdaIRConfig.tiny()
    >>> params = adair.init(jax.random.key(0), cfg)
    >>> jax.jit(apply, static_argnames="cfg")(params, jnp.zeros((2, 16, 24, 3)), cfg=cfg).shape
    (2, 16, 24, 3)
    """
    check_images(cfg.title, x, channels=cfg.in_channels, multiple=MULTIPLE)
    _check_context(x, context, cfg)
    out: Any = AdaIR(cfg).apply({"params": params}, x, context)
    y, seen = out
    return (y, seen) if return_intermediates else y


def _check_context(x: Array, context: Array | None, cfg: AdaIRConfig) -> None:
    expected = (x.shape[0], cfg.dim * 8)
    if context is not None and tuple(context.shape) != expected:
        raise UserError(f"context must have shape {expected}, found {tuple(context.shape)}.")
