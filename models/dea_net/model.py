"""DEA-Net: single image dehazing with detail-enhanced convolution and content-guided attention.

Chen, He, Lu, IEEE Transactions on Image Processing 33, 2024. Layout NHWC. Where the released
code and the paper differ, the code is followed; see `DEANetConfig`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.base import check_images
from jaxcore.models.dea_net.blocks import CGAFusion, DEBlock
from jaxcore.models.dea_net.config import LEAST, MULTIPLE, DEANetConfig
from jaxcore.nn import Conv, ConvTranspose, Types, apply_stack, in_loops, tap
from jaxcore.typing import Key, Params


class DEANet(nn.Module):
    """The whole network.

    The blocks of a level are one stack: every parameter below ``down_level1`` and so on has a
    leading axis of the number of blocks.

    Taps: the output of every level (``down_level1`` and so on), of every change of resolution
    (``down1``, ``up1``) and of every fusion (``mix1``).

    Attributes:
      cfg: sizes and options.
    """

    cfg: DEANetConfig

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Restore images; see :func:`apply`."""
        cfg = self.cfg
        width, (n1, n2, n3, m2, m1) = cfg.base_dim, cfg.depths
        relu = jax.nn.relu
        x = tap(self, "down1", self._conv("down1", width)(image))
        x = self._stage("down_level1", n1, x)
        d2 = tap(self, "down2", relu(self._conv("down2", 2 * width, stride=2)(x)))
        x = self._conv("fe_level_2", 2 * width)(d2)
        x = self._stage("down_level2", n2, x)
        d3 = tap(self, "down3", relu(self._conv("down3", 4 * width, stride=2)(x)))
        x = self._conv("fe_level_3", 4 * width)(d3)
        x = self._stage("level3", n3, x, attention=cfg.cga)
        x = self._fusion("mix1", 8, d3, x)
        x = tap(self, "up1", relu(self._up("up1", 2 * width)(x)))
        x = self._stage("up_level2", m2, x)
        x = self._fusion("mix2", 4, d2, x)
        x = tap(self, "up2", relu(self._up("up2", width)(x)))
        x = self._stage("up_level1", m1, x)
        y = self._conv("up3", cfg.in_channels)(x)
        # Sums are formed in float32, also after half-precision arithmetic.
        wide = ops.accumulation_dtype(cfg.dtype)
        y = y.astype(wide)
        return y + image.astype(wide) if cfg.global_residual else y

    def _conv(self, name: str, features: int, stride: int = 1) -> Conv:
        types = Types.of(self.cfg)
        return Conv(features=features, stride=stride, use_bias=True, types=types, name=name)

    def _up(self, name: str, features: int) -> ConvTranspose:
        types = Types.of(self.cfg)
        return ConvTranspose(features=features, use_bias=True, types=types, name=name)

    def _fusion(self, name: str, reduction: int, low: Array, high: Array) -> Array:
        cfg = self.cfg
        fusion = CGAFusion(
            reduction=reduction,
            mixup=cfg.mixup,
            double_sigmoid=cfg.double_sigmoid,
            types=Types.of(cfg),
            name=name,
        )
        return tap(self, name, fusion(low, high))

    def _stage(self, name: str, length: int, x: Array, attention: bool = False) -> Array:
        """A stack of blocks."""
        cfg = self.cfg
        block = DEBlock(
            form=cfg.form,
            branches=cfg.branches,
            attention=attention,
            types=Types.of(cfg),
            name=name,
        )
        x, _ = apply_stack(block, x, length=length, scan=in_loops(cfg.scan_blocks), remat=cfg.remat)
        return tap(self, name, x)


def draw(key: Key, cfg: DEANetConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    image = jnp.zeros((1, LEAST, LEAST, cfg.in_channels), jnp.float32)
    variables: Any = DEANet(cfg).init(key, image)
    return variables["params"]


def apply(
    params: Params,
    x: Float[Array, "b h w 3"],
    cfg: DEANetConfig,
) -> Float[Array, "b h w 3"]:
    """Restore images. Pure: can be jitted (``cfg`` static), mapped, differentiated, sharded.

    Args:
      params: from `init`, `from_torch` or `reparameterize`.
      x: hazy images in [0, 1], height and width multiples of 4 and at least 16. For other sizes
        see `restore`.
      cfg: sizes and options.

    Returns:
      Clear images, float32 (float64 if ``cfg.dtype`` is), not clipped to [0, 1].

    Raises:
      UserError: shape or type of ``x`` do not fit.

    >>> from jaxcore.models import dea_net
    >>> cfg = DEANetConfig.tiny()
    >>> params = dea_net.init(jax.random.key(0), cfg)
    >>> jax.jit(apply, static_argnames="cfg")(params, jnp.zeros((2, 16, 24, 3)), cfg=cfg).shape
    (2, 16, 24, 3)
    """
    check_images(cfg.title, x, channels=cfg.in_channels, multiple=MULTIPLE, least=LEAST)
    out: Any = DEANet(cfg).apply({"params": params}, x)
    return out
