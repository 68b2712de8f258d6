"""AdaIR: adaptive all-in-one image restoration by frequency mining and modulation.

Cui, Zamir, Khan, Knoll, Shah, Khan, ICLR 2025; the backbone is Restormer (Zamir et al., CVPR
2022). Layout NHWC. Where the released code and the paper differ, the code is followed; see
`AdaIRConfig` for the options that differ from it.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.models.adair.blocks import Downsample, TransformerBlock, Upsample
from jaxcore.models.adair.config import MULTIPLE, AdaIRConfig
from jaxcore.models.adair.frequency import AFLB
from jaxcore.models.base import check_images
from jaxcore.nn import Conv, PointwiseConv, Types, apply_block, apply_stack, in_loops, tap
from jaxcore.typing import Key, Params


class AdaIR(nn.Module):
    """The whole network.

    The blocks of a level are one stack: every parameter below ``encoder_level1`` and so on has a
    leading axis of the number of blocks.

    Taps: the output of every level (``encoder_level1`` and so on, ``latent``, ``refinement``) and
    of every AFLB (``fre1``), and those of the AFLBs' parts (``fre1/mining/mask``).

    Attributes:
      cfg: sizes and options.
    """

    cfg: AdaIRConfig

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w i"],
        context: Float[Array, "b d"] | None = None,
    ) -> Float[Array, "b h w i"]:
        """Restore images; see :func:`apply`."""
        cfg = self.cfg
        x = self._conv("patch_embed", cfg.dim)(image)
        skips = []
        for level in (1, 2, 3):
            x = self._stage(f"encoder_level{level}", level, x)
            skips.append(x)
            x = Downsample(types=self._types, name=f"down{level}_{level + 1}")(x)
        if context is not None:
            x = x + context.astype(x.dtype)[:, None, None, :]
        x = self._stage("latent", 4, x)
        x = self._aflb("fre1", 4, image, x)
        for level in (3, 2, 1):
            up = Upsample(types=self._types, name=f"up{level + 1}_{level}")(x)
            x = jnp.concatenate([up, skips[level - 1]], axis=-1)
            if level > 1:
                reduce = PointwiseConv(
                    features=x.shape[-1] // 2,
                    use_bias=cfg.bias,
                    types=self._types,
                    name=f"reduce_chan_level{level}",
                )
                x = reduce(x)
            x = self._stage(f"decoder_level{level}", level, x)
            if level > 1:
                x = self._aflb(f"fre{5 - level}", level, image, x)
        x = self._stage("refinement", 1, x)
        residual = self._conv("output", cfg.out_channels, cfg.bias)(x)
        # The sum is formed in float32, also after half-precision arithmetic.
        wide = ops.accumulation_dtype(cfg.dtype)
        return residual.astype(wide) + image.astype(wide)

    @property
    def _types(self) -> Types:
        return Types.of(self.cfg)

    def _conv(self, name: str, features: int, use_bias: bool = False) -> Conv:
        return Conv(features=features, use_bias=use_bias, types=self._types, name=name)

    def _window(self, level: int) -> int | None:
        side = self.cfg.stat_window
        return None if side is None else side // 2 ** (level - 1)

    def _stage(self, name: str, level: int, x: Array) -> Array:
        """A stack of transformer blocks."""
        cfg = self.cfg
        length = cfg.num_refinement_blocks if name == "refinement" else cfg.num_blocks[level - 1]
        block = TransformerBlock(
            num_heads=cfg.heads[level - 1],
            expansion=cfg.ffn_expansion,
            use_bias=cfg.bias,
            norm_bias=cfg.norm_type == "WithBias",
            window=self._window(level),
            types=self._types,
            name=name,
        )
        x, _ = apply_stack(block, x, length=length, scan=in_loops(cfg.scan_blocks), remat=cfg.remat)
        return tap(self, name, x)

    def _aflb(self, name: str, level: int, image: Array, y: Array) -> Array:
        if not self.cfg.decoder:
            return y
        block = AFLB(cfg=self.cfg, window=self._window(level), name=name)
        return tap(self, name, apply_block(block, image, y, remat=self.cfg.remat))


def draw(key: Key, cfg: AdaIRConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    image = jnp.zeros((1, MULTIPLE, MULTIPLE, cfg.in_channels), jnp.float32)
    variables: Any = AdaIR(cfg).init(key, image)
    return variables["params"]


def apply(
    params: Params,
    x: Float[Array, "b h w i"],
    cfg: AdaIRConfig,
    *,
    context: Float[Array, "b d"] | None = None,
) -> Float[Array, "b h w i"]:
    """Restore images. Pure: can be jitted (``cfg`` static), mapped, differentiated, sharded.

    Args:
      params: from `init` or `from_torch`.
      x: degraded images in [0, 1], height and width multiples of 8. For other sizes see
        `restore`.
      cfg: sizes and options.
      context: a hook for extensions that know more about the degradation: one vector of
        ``8 * cfg.dim`` numbers per image, added to every pixel entering the latent level. No
        published weights use it.

    Returns:
      Restored images, float32 (float64 if ``cfg.dtype`` is), not clipped to [0, 1].

    Raises:
      UserError: shape or type of ``x`` or ``context`` do not fit.

    >>> import jax
    >>> from jaxcore.models import adair
    >>> cfg = AdaIRConfig.tiny()
    >>> x = jnp.zeros((2, 16, 24, 3))
    >>> jax.eval_shape(lambda params: apply(params, x, cfg), adair.param_shapes(cfg)).shape
    (2, 16, 24, 3)
    """
    check_images(cfg.title, x, channels=cfg.in_channels, multiple=MULTIPLE)
    _check_context(x, context, cfg)
    out: Any = AdaIR(cfg).apply({"params": params}, x, context)
    return out


def _check_context(x: Array, context: Array | None, cfg: AdaIRConfig) -> None:
    expected = (x.shape[0], cfg.dim * 8)
    if context is not None and tuple(context.shape) != expected:
        raise UserError(f"context must have shape {expected}, found {tuple(context.shape)}.")
