"""Keys and values of the tokens that a decoder has seen."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxcore.errors import UserError

Layers: TypeAlias = Float[Array, "l b kv s d"] | tuple[Float[Array, "b kv s d"], ...]
"""Keys or values of all layers, one after the other or each on its own."""


@flax.struct.dataclass
class Cache:
    """What the layers of a decoder have computed of the tokens before; of fixed length.

    Attributes:
      keys: of every layer, after their rotation; see also :meth:`unstacked`.
      values: of every layer.
      valid: slots that hold a token: written, and not padding.
      position: of the next token of each row.
      length: slots written, the same for all rows: shorter prompts are padded on the left.
    """

    keys: Layers
    values: Layers
    valid: Bool[Array, "b s"]
    position: Int[Array, " b"]
    length: Int[Array, ""]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Layers, rows, heads, slots, width of a head."""
        one = self.keys[0] if isinstance(self.keys, tuple) else self.keys
        rows, heads, slots, width = one.shape[-4:]
        return len(self.keys), rows, heads, slots, width

    @property
    def slots(self) -> int:
        """How many tokens it has room for."""
        return self.shape[3]

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return self.shape[1]

    def unstacked(self) -> "Cache":
        """The same with an array of its own for every layer, as `llama.unstacked` has parameters.

        On a CPU a layer of a stack is copied before it is used.

        >>> cache = init_cache(depth=2, num_kv_heads=1, head_dim=4, batch=3, length=8)
        >>> [keys.shape for keys in cache.unstacked().keys]
        [(3, 1, 8, 4), (3, 1, 8, 4)]
        """
        apart = {"keys": tuple(self.keys), "values": tuple(self.values)}
        return self.replace(**apart)  # pyright: ignore[reportAttributeAccessIssue]


def init_cache(
    *,
    depth: int,
    num_kv_heads: int,
    head_dim: int,
    batch: int,
    length: int,
    dtype: DTypeLike = jnp.float32,
) -> Cache:
    """An empty cache.

    Args:
      depth: layers.
      num_kv_heads: heads of the keys and values.
      head_dim: width of a head.
      batch: rows.
      length: slots of each row: tokens of the prompt, and those to come.
      dtype: of keys and values.

    >>> cache = init_cache(depth=2, num_kv_heads=1, head_dim=4, batch=3, length=8)
    >>> cache.keys.shape, int(cache.length)
    ((2, 3, 1, 8, 4), 0)
    """
    # Tokens of a head lie together: so attention reads them without a copy.
    shape = (depth, batch, num_kv_heads, length, head_dim)
    return Cache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        valid=jnp.zeros((batch, length), bool),
        position=jnp.zeros((batch,), jnp.int32),
        length=jnp.zeros((), jnp.int32),
    )


def bytes_per_token(
    *, depth: int, num_kv_heads: int, head_dim: int, dtype: DTypeLike = jnp.float32
) -> int:
    """Bytes of a cache for each slot of each row.

    >>> bytes_per_token(depth=32, num_kv_heads=32, head_dim=128, dtype=jnp.bfloat16)  # Vicuna 7B
    524289
    """
    return 2 * depth * num_kv_heads * head_dim * np.dtype(dtype).itemsize + 1  # one for `valid`


def write(
    stacked: Float[Array, "l b kv s d"], new: Float[Array, "b t kv d"], layer: Any, start: Any
) -> Float[Array, "l b kv s d"]:
    """Keys or values with those of one layer for slots ``start`` to ``start + t - 1`` replaced.

    >>> stacked = jnp.zeros((2, 1, 1, 4, 1))
    >>> write(stacked, jnp.ones((1, 2, 1, 1)), 1, 1)[:, 0, 0, :, 0].tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    """
    zero = jnp.zeros((), jnp.int32)
    at = (jnp.asarray(layer, jnp.int32), zero, zero, jnp.asarray(start, jnp.int32), zero)
    new = jnp.swapaxes(new, 1, 2).astype(stacked.dtype)[None]
    return jax.lax.dynamic_update_slice(stacked, new, at)


def repeat_rows(cache: Cache, times: int) -> Cache:
    """All rows ``times`` over, one copy after the other, as branches lie on the batch axis.

    >>> cache = init_cache(depth=1, num_kv_heads=1, head_dim=2, batch=2, length=4)
    >>> repeat_rows(cache, 3).rows
    6
    """
    return join_rows([cache] * times)


def join_rows(caches: Sequence[Cache]) -> Cache:
    """One cache of the rows of several, in their order.

    Args:
      caches: with the same number of slots, of which as many are written.

    Raises:
      UserError: they differ in slots (what is written cannot be seen here).

    >>> cache = init_cache(depth=1, num_kv_heads=1, head_dim=2, batch=2, length=4)
    >>> join_rows([cache, cache]).keys.shape
    (1, 4, 1, 4, 2)
    """
    slots = {cache.slots for cache in caches}
    if len(slots) != 1:
        raise UserError(f"Expected caches with one number of slots, found {sorted(slots)}.")

    def joined(name: str, axis: int = 0) -> Any:
        parts = [getattr(cache, name) for cache in caches]
        return jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis), *parts)

    return Cache(
        keys=joined("keys", -4),
        values=joined("values", -4),
        valid=joined("valid"),
        position=joined("position"),
        length=caches[0].length,
    )
