"""Equal blocks one after another, with their parameters stacked along a leading axis."""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcore.nn import taps

Carried = TypeVar("Carried")
_FEW = 8  # blocks that are quickly compiled one by one


def apply_stack(
    block: nn.Module,
    x: Carried,
    *,
    length: int,
    broadcast: tuple[Any, ...] = (),
    scanned: tuple[Any, ...] = (),
    scan: bool | None = True,
    remat: bool = False,
) -> tuple[Carried, Any]:
    """Apply ``length`` blocks like ``block``; to be called in a compact method of their owner.

    The block is called as ``block(x, *broadcast, *scanned)``. It returns the next ``x``, of the
    same shape and type, or a pair of that and further results of the layer (None if none). Random
    numbers (dropout) differ from layer to layer, and are the same with and without ``scan``.

    Args:
      block: the first of them; its name is the stack's. Every parameter and other variable below
        it has a leading axis of ``length``.
      x: input of the first block: an array, or a tree of arrays. What is changed in place from
        layer to layer, such as the keys and values of all layers, belongs here.
      length: number of blocks.
      broadcast: trees of arrays that every layer gets as they are: masks, positions.
      scanned: trees of arrays with a leading axis of ``length``, of which every layer gets its
        own entry: edits.
      scan: one compiled body in a loop; False unrolls; None unrolls up to 8 blocks on a processor,
        where a loop takes a third more time to copy what the backward pass needs. Same parameters,
        same numbers.
      remat: recompute each block in the backward pass. Loops on a GPU always do: a map that is kept
        is copied into an array of all layers and out again, which is five passes over memory.

    Returns:
      The output of the last block, and the layers' further results stacked along a leading axis,
      None if there are none.

    >>> import jax
    >>> class Block(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, mask, cache):
    ...         scale = self.param("scale", nn.initializers.ones, ())
    ...         x = x * scale * mask + cache
    ...         return x, {"cache": x}
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, mask, caches):
    ...         stack = {"length": 3, "broadcast": (mask,), "scanned": (caches,)}
    ...         return apply_stack(Block(name="layers"), x, **stack)
    >>> inputs = jnp.ones(2), jnp.array([1.0, 0.0]), jnp.arange(3.0)
    >>> (x, per_layer), variables = Net().init_with_output(jax.random.key(0), *inputs)
    >>> x.tolist(), per_layer["cache"].shape, variables["params"]["layers"]["scale"].shape
    ([4.0, 2.0], (3, 2), (3,))
    """

    def body(block: Any, x: Any, broadcast: Any, scanned: Any, layer: Array | None) -> Any:
        with taps.nested(layer) as values:
            out = block(x, *broadcast, *scanned)
        x, per_layer = out if isinstance(out, tuple) else (out, None)
        return x, (per_layer, values)

    if scan is None:
        scan = length > _FEW or jax.default_backend() != "cpu"
    if remat or (scan and jax.default_backend() == "gpu"):
        # Inside a loop the compiler cannot undo rematerialisation.
        body = nn.remat(body, prevent_cse=not scan)
    in_axes: Any = (nn.broadcast, 0, 0)  # Flax's annotation knows one axis for all
    stack = nn.scan(
        body,
        variable_axes={True: 0},
        split_rngs={True: True},
        in_axes=in_axes,
        length=length,
        unroll=1 if scan or block.is_initializing() else length,
        check_constancy_invariants=False,  # the body would be traced once more for it
    )
    layers = jnp.arange(length) if taps.active() else None
    x, (per_layer, values) = stack(block, x, broadcast, scanned, layers)
    taps.add(values)
    return x, per_layer


def in_loops(scan: bool | None) -> bool:
    """What `apply_stack` is to do with wide maps; None: a loop but on a GPU.

    There the maps that the backward pass needs would be copied into and out of the loop's arrays,
    and `jaxcore.compiling.compiler_options` compiles many blocks quickly.
    """
    return jax.default_backend() != "gpu" if scan is None else scan


def apply_block(block: Callable[..., Array], *inputs: Any, remat: bool = False) -> Array:
    """Apply one block; with ``remat`` it is computed again in the backward pass."""
    if not remat:
        return block(*inputs)

    def body(block: Any, *inputs: Any) -> Any:
        with taps.nested() as values:
            return block(*inputs), values

    out, values = nn.remat(body)(block, *inputs)
    taps.add(values)
    return out
