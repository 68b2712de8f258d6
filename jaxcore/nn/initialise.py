"""Random parameters from one draw."""

import abc
import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax.core import meta
from jaxtyping import Array

from jaxcore.typing import Key, Params

_pending = contextvars.ContextVar("pending", default=False)


class _Law(abc.ABC):
    """An initialiser that may leave its numbers to the one draw of `init_params`."""

    def __call__(
        self, key: Key, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32
    ) -> Array:
        """Numbers of one parameter."""
        if _pending.get():
            empty: Any = _Pending(jnp.zeros(shape, dtype), self)
            return empty
        return self.draw(key, shape, dtype)

    @abc.abstractmethod
    def draw(self, key: Key, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
        """Numbers from a key of their own."""

    @abc.abstractmethod
    def shaped(self, numbers: Array) -> Array:
        """Numbers of this distribution from numbers uniform in [-1, 1)."""


@dataclasses.dataclass(frozen=True)
class Uniform(_Law):
    """Initialiser: uniform in ``+-bound``. `init_params` draws all such parameters at once.

    >>> Uniform(0.5)(jax.random.key(0), (2, 3)).shape
    (2, 3)
    """

    bound: float

    def draw(self, key: Key, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
        """See `_Law`."""
        return jax.random.uniform(key, shape, dtype, -self.bound, self.bound)

    def shaped(self, numbers: Array) -> Array:
        """See `_Law`."""
        return numbers * self.bound


@dataclasses.dataclass(frozen=True)
class Normal(_Law):
    """Initialiser: normal about 0. `init_params` draws all such parameters at once.

    >>> Normal(0.02)(jax.random.key(0), (2, 3)).shape
    (2, 3)
    """

    std: float

    def draw(self, key: Key, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
        """See `_Law`."""
        return jax.random.normal(key, shape, dtype) * jnp.asarray(self.std, dtype)

    def shaped(self, numbers: Array) -> Array:
        """See `_Law`."""
        inside = jnp.maximum(numbers, jnp.nextafter(jnp.float32(-1), jnp.float32(0)))
        return jax.lax.erf_inv(inside) * (self.std * 2**0.5)


def torch_uniform(fan_in: int) -> Uniform:
    """PyTorch's default for convolutions and dense layers, kernel and bias.

    >>> torch_uniform(16)
    Uniform(bound=0.25)
    """
    return Uniform(fan_in**-0.5)


class _Pending(flax.struct.PyTreeNode, meta.AxisMetadata[Array]):
    """A parameter whose numbers are still to be drawn; leaves the module beside the others."""

    value: Array
    kind: _Law = flax.struct.field(pytree_node=False)

    def unbox(self) -> Array:
        return self.value

    def replace_boxed(self, val: Any) -> Any:
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "_Pending":
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "_Pending":
        return self


@contextlib.contextmanager
def _leaving_out() -> Iterator[None]:
    token = _pending.set(True)
    try:
        yield
    finally:
        _pending.reset(token)


def init_params(init: Callable[[Key], Any], key: Key) -> Params:
    """Parameters of a network, quickly.

    Has the distribution of ``init(key)``, but all parameters whose initialiser is `Uniform`, as
    those of the layers of `jaxcore.nn` are, or `Normal` are cut out of a single vector of uniform
    numbers.
    One random call per parameter costs 25 s of compilation for a network of a hundred
    parameters, this costs one second. Every other parameter is what ``init`` makes it.

    Args:
      init: the module's own initialisation, key to parameters.
      key: from ``jax.random.key``.

    >>> from jaxcore.nn import Conv
    >>> layer, x = Conv(features=4), jnp.zeros((1, 8, 8, 2))
    >>> init_params(lambda key: layer.init(key, x)["params"], jax.random.key(0))["kernel"].shape
    (3, 3, 2, 4)
    """
    with _leaving_out():
        found = init(key)
    leaves, structure = jax.tree.flatten(found, is_leaf=lambda x: isinstance(x, _Pending))
    total = sum(leaf.value.size for leaf in leaves if isinstance(leaf, _Pending))
    numbers = jax.random.uniform(key, (total,), jnp.float32, -1.0, 1.0)
    start = 0
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, _Pending):
            stop = start + leaf.value.size
            piece = numbers[start:stop].reshape(leaf.value.shape)
            leaves[i], start = leaf.kind.shaped(piece).astype(leaf.value.dtype), stop
    return jax.tree.unflatten(structure, leaves)


def init_shapes(init: Callable[[Key], Any]) -> Params:
    """Shapes and types of `init_params`, without a number drawn.

    >>> from jaxcore.nn import Conv
    >>> layer, x = Conv(features=4), jnp.zeros((1, 8, 8, 2))
    >>> init_shapes(lambda key: layer.init(key, x)["params"])["kernel"].shape
    (3, 3, 2, 4)
    """
    with _leaving_out():
        found = jax.eval_shape(init, jax.random.key(0))
    boxed = {"is_leaf": lambda leaf: isinstance(leaf, _Pending)}
    return jax.tree.map(lambda x: x.value if isinstance(x, _Pending) else x, found, **boxed)
