"""The mode "pmap" of `compile_step`: a program per device, written with collectives by hand.

JAX keeps ``pmap`` for code that is written this way; `jit` over a mesh does all it does and splits
parameters too.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from jaxcore.errors import UserError
from jaxcore.parallel.mesh import DATA_AXIS


def compile_pmap(
    fn: Callable[..., tuple[Any, Any]], mesh: Mesh | None, *, donate: bool = True
) -> Callable[..., tuple[Any, Any]]:
    """Compile ``fn(state, batch, frozen) -> (state, metrics)`` by ``pmap``.

    Args:
      fn: sees the rows of one device, and sums over the axis `DATA_AXIS` itself.
      mesh: with a data axis only; state and frozen trees are copied to all its devices.
      donate: let the new state take the memory of the old one.

    Raises:
      UserError: no mesh, or one with other axes.
    """
    if mesh is None or any(n > 1 for axis, n in mesh.shape.items() if axis != DATA_AXIS):
        found = "no mesh" if mesh is None else str(dict(mesh.shape))
        raise UserError(f"Mode 'pmap' needs a mesh with a data axis only, found {found}.")
    count = mesh.shape[DATA_AXIS]
    mapped = jax.pmap(
        fn,
        axis_name=DATA_AXIS,
        in_axes=(None, 0, None),
        out_axes=None,  # type: ignore[arg-type]  # documented; the annotation says Any | 0
        devices=list(mesh.devices.flat),
        donate_argnums=(0,) if donate else (),
    )

    def step(state: Any, batch: Any, frozen: Any = None) -> tuple[Any, Any]:
        split = jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)
        return mapped(state, split, frozen)

    return step
