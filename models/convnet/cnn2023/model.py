"""The convolutional network of the paper of 2023, from images to log-odds of treatment.

Jerzak, Johansson, Daoud, "Integrating Earth observation data into causal inference: challenges and
opportunities", arXiv:2301.12985. Layout NHWC.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.convnet.cnn2023.config import CNN2023Config
from jaxcore.models.regression import blank, frames_of, functions, with_covariates
from jaxcore.nn import BatchNorm, Conv, PointwiseConv, Types, tap
from jaxcore.typing import Key, Params

CARRIED = ("batch_stats",)
"""Running statistics, at the top of the tree of parameters."""


class CNN2023(nn.Module):
    """The whole network.

    Taps: ``pooled``, largest and mean values before their norm.

    Attributes:
      cfg: sizes and options.
      train: normalise by the statistics of the batch, and give new running ones.
    """

    cfg: CNN2023Config
    train: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], covariates: Float[Array, "b p"] | None
    ) -> tuple[Float[Array, "b d"], Float[Array, "b o"]]:
        """Features, and the numbers from them."""
        cfg = self.cfg
        x = frames_of(cfg, x, covariates, cfg.least)
        fields: dict[str, Any] = {"use_bias": True, "types": Types.of(cfg)}
        for i in range(cfg.depth):
            conv = Conv(
                features=cfg.filters,
                kernel_size=cfg.kernel_size,
                padding=0,
                name=f"conv_{i}",
                **fields,
            )
            x = self._norm(f"bni_{i}", _halved(jax.nn.silu(conv(x))))
            if i < cfg.depth - 1:
                proj = PointwiseConv(features=cfg.low, name=f"proj_{i}", **fields)
                x = self._norm(f"bn_{i}", jax.nn.silu(proj(x)))
        pooled = jnp.concatenate([ops.global_max(x), jnp.mean(x, axis=(1, 2))], axis=-1)
        pooled = self._norm("bnd", tap(self, "pooled", pooled), affine=False)
        features = with_covariates(pooled, covariates)
        hidden = jax.nn.silu(PointwiseConv(features=cfg.hidden, name="hid", **fields)(features))
        out = PointwiseConv(features=cfg.outputs, name="out", **fields)(hidden)
        wide = ops.accumulation_dtype(cfg.dtype)
        return features.astype(wide), out.astype(wide)

    def _norm(self, name: str, x: Array, affine: bool = True) -> Array:
        return BatchNorm(
            train=self.train,
            momentum=0.9,
            epsilon=1e-3,
            use_scale=affine,
            use_bias=affine,
            types=Types.of(self.cfg),
            name=name,
        )(x)


def _halved(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Largest values of squares of two pixels; an odd last row or column is left out."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    return ops.adaptive_pool(x[:, : 2 * height, : 2 * width], (height, width), "max")


def draw(key: Key, cfg: CNN2023Config) -> Params:
    """Parameters by the initialisers of the modules, and statistics of nothing."""
    variables: Any = CNN2023(cfg).init(key, *blank(cfg, cfg.least))
    return {**variables["params"], **{name: variables[name] for name in CARRIED}}


apply, features, learn = functions(CNN2023, CARRIED)
