"""A convolutional network of separable blocks from images to log-odds of treatment.

The backbone of the package `causalimages` (arXiv:2310.00233) until July 2025. Layout NHWC.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.convnet.config import ConvNetConfig
from jaxcore.models.regression import (
    Head,
    OverTime,
    blank,
    frames_of,
    functions,
    with_covariates,
)
from jaxcore.nn import BatchNorm, DepthwiseConv, PointwiseConv, Types, tap
from jaxcore.nn.encoder import inverse_softplus
from jaxcore.typing import Key, Params

CARRIED = ("batch_stats",)
"""Running statistics, at the top of the tree of parameters."""


class Separable(nn.Module):
    """Depthwise filters without padding, then a 1x1 convolution with a bias.

    Attributes:
      cfg: sizes and options.
      stride: of the filters.
    """

    cfg: ConvNetConfig
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Convolve maps."""
        cfg, types = self.cfg, Types.of(self.cfg)
        x = DepthwiseConv(
            kernel_size=cfg.kernel_size,
            stride=self.stride,
            padding=0,
            types=types,
            name="SeperableSpatial",
        )(x)
        return PointwiseConv(
            features=cfg.width, use_bias=True, types=types, name="SeperableFeature"
        )(x)


class Block(nn.Module):
    """One block, with a residual path that is pooled; the names are those of the package.

    Attributes:
      cfg: sizes and options.
      stride: of the depthwise filters.
      train: normalise by the statistics of the batch.
    """

    cfg: ConvNetConfig
    stride: int
    train: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Transform maps."""
        cfg = self.cfg
        m = _norm(cfg, self.train, "BN1")(Separable(cfg, self.stride, name="separable")(x))
        gated = jax.nn.silu(self._mix("SeperableFeature2", m)) * self._mix("SeperableFeature3", m)
        m = self._mix("SeperableFeature4", gated)
        size = int(cfg.shrink * m.shape[1]), int(cfg.shrink * m.shape[2])
        m = self._mix("ResidualTPath", ops.adaptive_pool(m, size, "max", cfg.bins))
        # The projection of means is the mean of projections, at a smaller size.
        rest = ops.adaptive_pool(x.astype(cfg.dtype), size, "mean", cfg.bins)
        share = inverse_softplus((2 * cfg.depth) ** -0.5)
        draw = nn.initializers.constant(share)
        factor = self.param("RightWt1", draw, (), jnp.dtype(cfg.param_dtype))
        update = jax.nn.softplus(factor).astype(m.dtype) * m
        return tap(self, "out", self._mix("ResidualTm1Path", rest) + update)

    def _mix(self, name: str, x: Array) -> Array:
        return PointwiseConv(features=self.cfg.width, types=Types.of(self.cfg), name=name)(x)


def _norm(cfg: ConvNetConfig, train: bool, name: str) -> BatchNorm:
    return BatchNorm(
        train=train,
        momentum=0.99,
        epsilon=1e-4,
        use_bias=False,
        types=Types.of(cfg),
        name=name,
    )


class ConvNet(nn.Module):
    """The whole network.

    Taps: the map after each block, ``Spatial_d1/out`` and so on.

    Attributes:
      cfg: sizes and options.
      train: normalise by the statistics of the batch, and give new running ones.
    """

    cfg: ConvNetConfig
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *t h w c"], covariates: Float[Array, "b p"] | None
    ) -> tuple[Float[Array, "b d"], Float[Array, "b o"]]:
        """Features, and the numbers from them."""
        cfg = self.cfg
        x = frames_of(cfg, x, covariates, cfg.least)
        for i in range(1, cfg.depth + 1):
            stride = cfg.stride if i == 1 else 1
            x = Block(cfg, stride, self.train, name=f"Spatial_d{i}")(x)
        x = _norm(cfg, self.train, "FinalCNNBN")(ops.global_max(x))
        features = with_covariates(OverTime(cfg, name="over_time")(x), covariates)
        out = Head(cfg, name="head")(features)
        wide = ops.accumulation_dtype(cfg.dtype)
        return features.astype(wide), out.astype(wide)


def draw(key: Key, cfg: ConvNetConfig) -> Params:
    """Parameters by the initialisers of the modules, and statistics of nothing."""
    variables: Any = ConvNet(cfg).init(key, *blank(cfg, cfg.least))
    return {**variables["params"], **{name: variables[name] for name in CARRIED}}


apply, features, learn = functions(ConvNet, CARRIED)


def random_features(
    params: Params, x: Float[Array, "b h w c"], cfg: ConvNetConfig
) -> Float[Array, "b e"]:
    """Features of a network that is not trained: those of the first pair of convolutions.

    Args:
      params: from `init`; no other part is read.
      x: single images (b, h, w, c), standardised.
      cfg: sizes and options.

    Returns:
      (b, 3 ``cfg.width``): the largest and the mean value of each channel, and their product.

    Raises:
      UserError: shape or type of ``x`` do not fit.

    >>> from jaxcore.models import convnet
    >>> cfg = ConvNetConfig.tiny()
    >>> params = convnet.init(jax.random.key(0), cfg)
    >>> random_features(params, jnp.ones((2, 16, 16, 3)), cfg).shape
    (2, 12)
    """
    frames_of(cfg, x, jnp.zeros((x.shape[0], cfg.covariates)) if cfg.covariates else None, 1)
    own = {"params": params["Spatial_d1"]["separable"]}
    maps: Any = Separable(cfg, cfg.stride).apply(own, x)
    largest, mean = ops.global_max(maps), jnp.mean(maps, axis=(1, 2))
    return jnp.concatenate([largest, mean, largest * mean], axis=-1)
