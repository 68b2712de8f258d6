"""SUNet: a U-shaped network of Swin blocks with dual up-sampling.

Fan, Liu, Liu, "SUNet: Swin Transformer UNet for image denoising", ISCAS 2022; with one channel
and one pixel per token it is the second step of Akhaury, Jablonka, Starck, Courbin, "Ground-based
image deconvolution with Swin Transformer UNet", Astronomy & Astrophysics 688, 2024. Layout NHWC.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.base import check_images
from jaxcore.models.sunet.blocks import DualUp, Linear, PatchMerging, SwinBlock, SwinPair
from jaxcore.models.sunet.config import STAGES, SUNetConfig
from jaxcore.nn import ChannelNorm, Conv, Types, apply_block, apply_stack, in_loops, tap
from jaxcore.typing import Key, Params


class SUNet(nn.Module):
    """The whole network.

    Two blocks, one with plain and one with shifted windows, are one layer of a stack: parameters
    below ``layers_0_pairs`` and so on have a leading axis. A stage of an odd number of blocks ends
    with one of its own, ``layers_0_last``.

    Taps: ``conv_first``, ``patch_embed``, after each stage of the encoder and its halving
    (``enc0`` and so on), ``norm``, after the first enlargement and each stage of the decoder
    (``dec0``), what enters such a stage (``concat1``), and ``norm_up``.

    Attributes:
      cfg: sizes and options.
    """

    cfg: SUNetConfig

    @nn.compact
    def __call__(self, image: Float[Array, "b h w i"]) -> Float[Array, "b h w i"]:
        """Restore images; see :func:`apply`."""
        cfg, types = self.cfg, Types.of(self.cfg)
        # A slope that nothing reads; official files hold it.
        self.param("prelu", nn.initializers.constant(0.25), (1,), jnp.dtype(cfg.param_dtype))
        x = tap(self, "conv_first", self._conv("conv_first", cfg.embed_dim)(image))
        x = tap(self, "patch_embed", self._norm("patch_norm")(self._patches(x)))
        skips = []
        for level in range(STAGES):
            skips.append(x)
            x = self._stage(f"layers_{level}", level, x)
            if level < STAGES - 1:
                x = PatchMerging(types=types, name=f"layers_{level}_downsample")(x)
            x = tap(self, f"enc{level}", x)
        x = tap(self, "norm", self._norm("norm")(x))
        x = tap(self, "dec0", DualUp(types=types, name="layers_up_0")(x))
        for k in range(1, STAGES):
            level = STAGES - 1 - k
            x = jnp.concatenate([x, skips[level]], axis=-1)
            width = cfg.widths[level]
            x = Linear(features=width, use_bias=True, types=types, name=f"concat_back_dim_{k}")(x)
            x = self._stage(f"layers_up_{k}", level, tap(self, f"concat{k}", x))
            if k < STAGES - 1:
                x = DualUp(types=types, name=f"layers_up_{k}_upsample")(x)
            x = tap(self, f"dec{k}", x)
        x = tap(self, "norm_up", self._norm("norm_up")(x))
        if cfg.final_upsample == "dual":
            x = DualUp(factor=4, types=types, name="up")(x)
        else:
            height, width = (side * cfg.patch_size for side in x.shape[1:3])
            x = ops.resize_bilinear(x, (height, width))
        y = self._conv("output", cfg.in_channels, use_bias=False)(x)
        return y.astype(ops.accumulation_dtype(cfg.dtype))

    def _conv(self, name: str, features: int, use_bias: bool = True) -> Conv:
        types = Types.of(self.cfg)
        return Conv(features=features, use_bias=use_bias, types=types, name=name)

    def _patches(self, x: Array) -> Array:
        """Tokens: patches that do not overlap."""
        side = self.cfg.patch_size
        conv = Conv(
            features=self.cfg.embed_dim,
            kernel_size=side,
            stride=side,
            padding=0,
            use_bias=True,
            types=Types.of(self.cfg),
            name="patch_embed_proj",
        )
        return conv(x)

    def _norm(self, name: str) -> ChannelNorm:
        return ChannelNorm(types=Types.of(self.cfg), name=name)

    def _stage(self, name: str, level: int, x: Array) -> Array:
        """All blocks of a resolution."""
        cfg, rates = self.cfg, self.cfg.drop_rates[level]
        fields: dict[str, Any] = {
            "num_heads": cfg.num_heads[level],
            "window": cfg.windows[level],
            "mlp_ratio": cfg.mlp_ratio,
            "qk_scale": cfg.qk_scale,
            "types": Types.of(cfg),
        }
        pairs, odd = divmod(cfg.depths[level], 2)
        if pairs:
            block = SwinPair(shift=cfg.shifts[level], name=f"{name}_pairs", **fields)
            scanned = (jnp.asarray(rates[: 2 * pairs], jnp.float32).reshape(pairs, 2),)
            scan, remat = in_loops(cfg.scan_blocks), cfg.remat
            x, _ = apply_stack(block, x, length=pairs, scanned=scanned, scan=scan, remat=remat)
        if odd:
            last = SwinBlock(name=f"{name}_last", **fields)
            x = apply_block(last, x, jnp.float32(rates[-1]), remat=cfg.remat)
        return x


def draw(key: Key, cfg: SUNetConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    side = cfg.multiple
    image = jnp.zeros((1, side, side, cfg.in_channels), jnp.float32)
    variables: Any = SUNet(cfg).init(key, image)
    return variables["params"]


def apply(
    params: Params,
    x: Float[Array, "b h w i"],
    cfg: SUNetConfig,
    *,
    key: Key | None = None,
) -> Float[Array, "b h w i"]:
    """Restore images. Pure: can be jitted (``cfg`` static), mapped, differentiated, sharded.

    Args:
      params: from `init` or `from_torch`.
      x: images, height and width multiples of ``cfg.multiple``. Colour images in [0, 1] for the
        denoiser; for deconvolution what `normalise` makes, about 0 with a peak of about 1. For
        other sizes see `restore`.
      cfg: sizes and options.
      key: for training: leaves blocks out at random, at the rates ``cfg.drop_path`` gives. None
        uses all.

    Returns:
      Restored images, float32 (float64 if ``cfg.dtype`` is), not clipped. The input is not added:
      the network makes the image itself.

    Raises:
      UserError: shape or type of ``x`` do not fit.

    >>> import jax
    >>> from jaxcore.models import sunet
    >>> cfg = SUNetConfig.tiny()
    >>> x = jnp.zeros((2, 16, 32, 1))
    >>> jax.eval_shape(lambda params: apply(params, x, cfg), sunet.param_shapes(cfg)).shape
    (2, 16, 32, 1)
    """
    check_images(cfg.title, x, channels=cfg.in_channels, multiple=cfg.multiple)
    rngs = None if key is None else {"dropout": key}
    out: Any = SUNet(cfg).apply({"params": params}, x, rngs=rngs)
    return out
