"""A vision transformer from images and covariates to log-odds of treatment.

Jerzak, Johansson, Daoud, "Integrating Earth observation data into causal inference: challenges and
opportunities", arXiv:2301.12985, in the form of their package `causalimages` (arXiv:2310.00233).
Unlike there, the transformer over time has weights of its own. Layout NHWC.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.regression import (
    Head,
    OverTime,
    blank,
    frames_of,
    functions,
    with_covariates,
)
from jaxcore.models.vit.config import ViTConfig
from jaxcore.nn import Encoder, PointwiseConv, Types, drop_out
from jaxcore.nn.conv import ConvWeights
from jaxcore.typing import Key, Params


class ViT(nn.Module):
    """The whole network.

    Taps: those of `jaxcore.nn.Encoder` below ``encoder``.

    Attributes:
      cfg: sizes and options.
      train: whether statistics are those of the batch; there are none here.
    """

    cfg: ViTConfig
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *t h w c"], covariates: Float[Array, "b p"] | None
    ) -> tuple[Float[Array, "b d"], Float[Array, "b o"]]:
        """Features, and the numbers from them."""
        cfg, types = self.cfg, Types.of(self.cfg)
        images = frames_of(cfg, x, covariates, cfg.least)
        tokens = []
        if cfg.covariate_mode != "only":
            tokens.append(self._patches(images))
        if covariates is not None and cfg.covariate_mode != "head":
            linear = PointwiseConv(features=cfg.width, types=types, name="XProj")
            token = drop_out(self, linear(covariates), cfg.dropout)
            tokens.append(jnp.repeat(token, cfg.frames or 1, axis=0)[:, None])
        encoder = Encoder(
            depth=cfg.depth,
            num_heads=cfg.num_heads,
            start=cfg.start,
            drop_path=cfg.drop_path,
            dropout=cfg.dropout,
            scan=cfg.scan_blocks,
            types=types,
            name="encoder",
        )
        features = OverTime(cfg, drop_path=cfg.drop_path, name="over_time")(
            encoder(jnp.concatenate(tokens, axis=1))
        )
        if cfg.covariate_mode == "head":
            features = with_covariates(features, covariates)
        out = Head(cfg, name="head")(features)
        wide = ops.accumulation_dtype(cfg.dtype)
        return features.astype(wide), out.astype(wide)

    def _patches(self, images: Float[Array, "n h w c"]) -> Float[Array, "n t d"]:
        """Patches that do not overlap, row after row: a convolution as one product."""
        cfg, side = self.cfg, self.cfg.patch_size
        if cfg.pad_to_patch:
            more = [(0, -length % side) for length in images.shape[1:3]]
            images = jnp.pad(images, ((0, 0), *more, (0, 0)))
        rows, cols = (length // side for length in images.shape[1:3])
        images = images[:, : rows * side, : cols * side]
        cut = images.reshape(-1, rows, side, cols, side, cfg.in_channels).swapaxes(2, 3)
        shape = (side, side, cfg.in_channels, cfg.width)
        weights = ConvWeights(shape=shape, use_bias=True, types=Types.of(cfg), name="PatchEmbedder")
        kernel, bias = weights()
        flat = cut.reshape(images.shape[0], rows * cols, -1).astype(cfg.dtype)
        tokens = ops.pointwise(flat, kernel.reshape(-1, cfg.width))
        return tokens + bias.astype(cfg.dtype).reshape(1, 1, -1)


def draw(key: Key, cfg: ViTConfig) -> Params:
    """Parameters by the initialisers of the modules."""
    variables: Any = ViT(cfg).init(key, *blank(cfg, cfg.patch_size))
    return variables["params"]


apply, features, learn = functions(ViT)
