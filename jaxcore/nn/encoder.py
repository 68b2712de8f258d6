"""A transformer from tokens to one vector, with rotated queries and keys and gated updates."""

import functools
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from jaxcore import ops
from jaxcore.nn.conv import PointwiseConv
from jaxcore.nn.drop import drop_out, drop_path
from jaxcore.nn.initialise import Normal, Uniform
from jaxcore.nn.norm import RMSNorm
from jaxcore.nn.stack import apply_stack
from jaxcore.nn.taps import tap
from jaxcore.nn.types import Types

Start: TypeAlias = Literal["ours", "official"]
"""How much a block adds before training."""


def inverse_softplus(y: ArrayLike) -> Float[np.ndarray, "*s"]:
    """The ``x`` with ``log(1 + exp(x)) = y``, for positive ``y``.

    >>> np.log1p(np.exp(inverse_softplus([0.3, 2.0]))).round(6).tolist()
    [0.3, 2.0]
    """
    y = np.asarray(y, np.float64)
    return np.asarray(y + np.log(-np.expm1(-y)))


def first_shares(depth: int, start: Start) -> Float[np.ndarray, " l"]:
    """Factors of the updates of each block before training.

    "ours" is ``(2 L)^(-1/2)`` for all ``L`` blocks, with two updates each. "official" is
    ``L^(-1 / (2 l - 2))`` for block ``l``: 1 for a single block, else almost 0 for the first.

    >>> first_shares(2, "official").round(3).tolist()
    [0.0, 0.707]
    """
    if start == "ours":
        return np.full(depth, (2 * depth) ** -0.5)
    below = np.arange(depth)
    exponents = np.divide(-1, 2 * below, out=np.full(depth, -np.inf), where=below > 0)
    return np.clip(float(depth) ** exponents, 1e-6, 1e6)


def turned_tokens(x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Whole vectors, turned by their place in the row."""
    places = np.arange(x.shape[1], dtype=ops.accumulation_dtype(x.dtype))[None]
    return ops.rotary(x, ops.rotary_turns(places, ops.rotary_rates(x.shape[2])))


def _near_one(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
    return 1 + jnp.asarray(1e-4, dtype) * jax.random.normal(key, shape, dtype)


_Norm = functools.partial(RMSNorm, epsilon=1e-3, draw=_near_one)


class Attention(nn.Module, kw_only=True):
    """Multi-head attention whose matrices have no bias.

    Parameters: ``W_q``, ``W_k``, ``W_v`` and ``W_o``, all (d, d), input first.

    Attributes:
      num_heads: divides the width.
      types: of activations and parameters.
    """

    num_heads: int
    types: Types = Types()

    @nn.compact
    def __call__(
        self, q: Float[Array, "b t d"], k: Float[Array, "b s d"], v: Float[Array, "b s d"]
    ) -> Float[Array, "b t d"]:
        """Attend; weights are formed in at least float32."""
        width, dtype = q.shape[-1], jnp.dtype(self.types.dtype)

        def mixed(name: str, x: Array) -> Array:
            param_dtype = jnp.dtype(self.types.param_dtype)
            matrix = self.param(name, Normal(width**-0.5), (width, width), param_dtype)
            return ops.pointwise(x.astype(dtype), matrix)

        def heads(name: str, x: Array) -> Array:
            return mixed(name, x).reshape(*x.shape[:2], self.num_heads, width // self.num_heads)

        y = ops.token_attention(heads("W_q", q), heads("W_k", k), heads("W_v", v))
        return mixed("W_o", y.reshape(q.shape))


class EncoderBlock(nn.Module, kw_only=True):
    """Attention and a gated feed-forward part, each behind a norm and a learned softplus factor.

    Positions turn the whole vector before it is projected and cut into heads.

    Attributes:
      num_heads: of the attention.
      drop_path: rate of leaving an update out.
      dropout: rate inside the feed-forward part.
      types: of activations and parameters.
    """

    num_heads: int
    drop_path: float = 0.0
    dropout: float = 0.0
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], share: Float[Array, ""]) -> Float[Array, "b t d"]:
        """Transform tokens.

        Args:
          x: tokens.
          share: of each update before training.
        """
        width, types = x.shape[-1], self.types
        z = _Norm(types=types, name="norm1")(x)
        turned = turned_tokens(z)
        attention = Attention(num_heads=self.num_heads, types=types, name="attention")
        x = self._updated("RightWt1", x, attention(turned, turned, z), share)
        z = _Norm(types=types, name="norm2")(x)
        inner = int(3.5 * width)
        wide = [PointwiseConv(features=inner, types=types, name=f"FFWide{i}")(z) for i in (1, 2)]
        hidden = drop_out(self, jax.nn.silu(wide[0]) * wide[1], self.dropout)
        update = PointwiseConv(features=width, types=types, name="FFNarrow")(hidden)
        return tap(self, "out", self._updated("RightWt2", x, update, share))

    def _updated(self, name: str, x: Array, update: Array, share: Array) -> Array:
        def first(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
            return jnp.full(shape, 1, dtype) * share.astype(dtype)

        dtype = jnp.dtype(self.types.param_dtype)
        factor = jax.nn.softplus(self.param(name, first, (x.shape[-1],), dtype))
        factor = factor.astype(x.dtype).reshape(1, 1, -1)
        return x + factor * drop_path(self, update, self.drop_path)


class Encoder(nn.Module, kw_only=True):
    """Tokens between two learned ones, blocks, and attention of the first one to all.

    Taps: ``tokens`` before the blocks, and ``layer/out`` after each.

    Attributes:
      depth: number of blocks.
      num_heads: of every attention; divides the width.
      start: how much a block adds before training.
      drop_path: rate of leaving an update out.
      dropout: rate inside the feed-forward parts.
      scan: one compiled body for all blocks; False unrolls.
      types: of activations and parameters.
    """

    depth: int
    num_heads: int = 8
    start: Start = "ours"
    drop_path: float = 0.0
    dropout: float = 0.0
    scan: bool = True
    types: Types = Types()

    @nn.compact
    def __call__(self, tokens: Float[Array, "b t d"]) -> Float[Array, "b d"]:
        """One vector for each row of tokens."""
        types, (batch, _, width) = self.types, tokens.shape
        ends = []
        for name in ("StartEmbed", "StopEmbed"):
            draw = Uniform((6 / width) ** 0.5)
            end = self.param(name, draw, (1, width), jnp.dtype(types.param_dtype))
            ends.append(jnp.broadcast_to(end.astype(types.dtype)[None], (batch, 1, width)))
        x = jnp.concatenate([ends[0], tokens.astype(types.dtype), ends[1]], axis=1)
        x = tap(self, "tokens", x)
        block = EncoderBlock(
            num_heads=self.num_heads,
            drop_path=self.drop_path,
            dropout=self.dropout,
            types=types,
            name="layer",
        )
        shares = inverse_softplus(first_shares(self.depth, self.start))
        shares = jnp.asarray(shares, types.param_dtype)
        x, _ = apply_stack(block, x, length=self.depth, scanned=(shares,), scan=self.scan)
        pool = Attention(num_heads=self.num_heads, types=types, name="Pool")
        pooled = pool(x[:, :1], turned_tokens(x), x)[:, 0]
        project = PointwiseConv(features=width, use_bias=True, types=types, name="PoolProject")
        return _Norm(types=types, name="FinalNorm")(project(pooled))
