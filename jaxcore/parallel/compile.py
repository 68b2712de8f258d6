"""Compile a training step for a mesh in one of three ways that give the same numbers.

The contract for a step ``fn(state, batch, *frozen) -> (state, metrics)``:

* ``"jit"``: ``fn`` sees the whole batch and means what it says; the compiler inserts collectives.
* ``"shard_map"`` and ``"pmap"``: ``fn`` sees the rows of one device and averages its gradients
  and metrics itself over the axis `DATA_AXIS`, as ``make_train_step(..., axis_name=DATA_AXIS)``
  does. The state is copied to every device, so the mesh may have a data axis only.

``frozen`` is nothing, or one tree of arrays that no step changes, whole on every device.

Equal rows per device make the mean of means the mean; a loss that draws random numbers draws
other ones per mode, because every device has a key of its own in the last two.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
from jax.sharding import Mesh, PartitionSpec

from jaxcore.errors import UserError
from jaxcore.parallel.mesh import DATA_AXIS, batch_sharding, replicated

Mode: TypeAlias = Literal["jit", "shard_map", "pmap"]
_MODES = ("jit", "shard_map", "pmap")


def compile_step(
    fn: Callable[..., tuple[Any, Any]],
    mesh: Mesh | None,
    *,
    mode: Mode = "jit",
    donate: bool = True,
    state_sharding: Any = None,
    frozen: bool = False,
) -> Callable[..., tuple[Any, Any]]:
    """Compile ``fn(state, batch) -> (state, metrics)``, or ``fn(state, batch, frozen)``.

    Args:
      fn: the step; see the contract at the head of this module.
      mesh: None compiles for the default device (mode "jit" only).
      mode: "jit" unless there is a reason; the others exist for code written per device.
      donate: let the new state take the memory of the old one, which is then gone.
      state_sharding: tree of shardings for the state (mode "jit"); None copies it everywhere.
      frozen: ``fn`` takes a third argument, which is copied everywhere.

    Returns:
      A function with the same signature. In the modes "jit" and "shard_map" the batch should be
      put on the mesh by `jaxcore.parallel.put_batch`; "pmap" takes it as it is.

    Raises:
      UserError: unknown mode, or a mode that the mesh does not allow.

    >>> import jax, jax.numpy as jnp
    >>> step = compile_step(lambda s, b: (s + b.mean(), {}), None)
    >>> float(step(jnp.zeros(()), jnp.ones(4))[0])
    1.0
    """
    if mode not in _MODES:
        raise UserError(f"Unknown mode {mode!r}: expected one of {', '.join(_MODES)}.")
    donated = (0,) if donate else ()
    if mode == "jit":
        if mesh is None:
            return jax.jit(fn, donate_argnums=donated)
        state = replicated(mesh) if state_sharding is None else state_sharding
        return jax.jit(
            fn,
            donate_argnums=donated,
            in_shardings=(state, batch_sharding(mesh), *([replicated(mesh)] * frozen)),
            out_shardings=(state, replicated(mesh)),
        )
    if mesh is None or any(n > 1 for axis, n in mesh.shape.items() if axis != DATA_AXIS):
        found = "no mesh" if mesh is None else str(dict(mesh.shape))
        raise UserError(f"Mode {mode!r} needs a mesh with a data axis only, found {found}.")
    if mode == "shard_map":
        mapped = jax.shard_map(
            fn,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(DATA_AXIS), *([PartitionSpec()] * frozen)),
            out_specs=PartitionSpec(),
            # The step averages by hand; with the check on, the gradient of a copied parameter
            # would already be a sum over devices and the mean would be too large.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)
    return _pmap(fn, mesh, donated, frozen)


def _pmap(
    fn: Callable[..., tuple[Any, Any]], mesh: Mesh, donated: tuple[int, ...], frozen: bool
) -> Callable[..., tuple[Any, Any]]:
    count = mesh.shape[DATA_AXIS]
    mapped = jax.pmap(
        fn,
        axis_name=DATA_AXIS,
        in_axes=(None, 0, *([None] * frozen)),
        out_axes=None,  # type: ignore[arg-type]  # documented; the annotation says Any | 0
        devices=list(mesh.devices.flat),
        donate_argnums=donated,
    )

    def step(state: Any, batch: Any, *frozen: Any) -> tuple[Any, Any]:
        split = jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)
        return mapped(state, split, *frozen)

    return step
