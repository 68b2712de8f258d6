"""Random parameters from one draw."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey

from jaxcore.typing import Key, Params

_Path = tuple[DictKey, ...]


def init_params(init: Callable[[Key], Any], key: Key) -> Params:
    """Parameters of a network built from the layers of `jaxcore.nn`, quickly.

    Has the distribution of ``init(key)``, but every ``kernel`` and its ``bias`` are cut out of a
    single vector of uniform numbers. One random call per parameter costs 25 s of compilation for
    a network of a hundred parameters, this costs one second. Everything else (norms, constant
    factors) is taken from ``init`` itself.

    Args:
      init: the module's own initialisation, key to parameters. Kernels are uniform in
        ``+-1/sqrt(fan_in)``; an odd number of axes means a leading axis of stacked layers.
      key: from ``jax.random.key``.
    """
    shapes, structure = jax.tree_util.tree_flatten_with_path(jax.eval_shape(init, key))
    fan_in = {path[:-1]: _fan_in(leaf.shape) for path, leaf in shapes if _name(path) == "kernel"}
    drawn = [_name(path) in ("kernel", "bias") and path[:-1] in fan_in for path, _ in shapes]
    total = sum(leaf.size for (_, leaf), draw in zip(shapes, drawn, strict=True) if draw)
    numbers = jax.random.uniform(key, (total,), jnp.float32, -1.0, 1.0)
    # Under jit the random part of these leaves is unused and never compiled.
    constants = jax.tree.leaves(init(key))
    leaves, start = [], 0
    for (path, leaf), constant, draw in zip(shapes, constants, drawn, strict=True):
        if draw:
            piece = numbers[start : start + leaf.size].reshape(leaf.shape)
            constant = (piece * fan_in[path[:-1]] ** -0.5).astype(leaf.dtype)
            start += leaf.size
        leaves.append(constant)
    return jax.tree.unflatten(structure, leaves)


def _name(path: Any) -> str:
    return path[-1].key


def _fan_in(shape: tuple[int, ...]) -> int:
    return math.prod(shape[len(shape) % 2 : -1])
