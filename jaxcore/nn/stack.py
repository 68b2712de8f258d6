"""Equal blocks one after another, with their parameters stacked along a leading axis."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcore.typing import Params


def apply_stack(
    owner: nn.Module,
    make: Callable[..., nn.Module],
    name: str,
    x: Array,
    *,
    length: int,
    scan: bool = True,
    remat: bool = False,
) -> Array:
    """Apply ``length`` blocks; to be called inside a compact method of ``owner``.

    Args:
      owner: module that the blocks belong to.
      make: makes a block, ``make(name=...)`` or ``make(parent=None)``; the block maps an array
        to one of the same shape.
      name: of the stack; every parameter below it has a leading axis of ``length``.
      x: input of the first block.
      length: number of blocks.
      scan: one compiled body in a loop; False unrolls. Same parameters.
      remat: recompute each block in the backward pass.
    """
    if not scan and not owner.is_initializing():
        return _unrolled(make(parent=None), owner.variables["params"][name], x, remat)

    def body(block: Any, x: Array) -> tuple[Array, None]:
        return block(x), None

    if remat:
        # Inside a loop the compiler cannot undo rematerialisation.
        body = nn.remat(body, prevent_cse=False)
    stack = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=length)
    return stack(make(name=name), x)[0]


def _unrolled(block: nn.Module, params: Params, x: Array, remat: bool) -> Array:
    """The same without a loop, so that nothing is copied into and out of stacks."""

    def body(params: Params, x: Array) -> Array:
        out: Any = block.apply({"params": params}, x)
        return out

    if remat:
        body = jax.checkpoint(body)
    stacked, structure = jax.tree.flatten(params)
    for leaves in zip(*map(jnp.unstack, stacked), strict=True):
        x = body(jax.tree.unflatten(structure, leaves), x)
    return x
