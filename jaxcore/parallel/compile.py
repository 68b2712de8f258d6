"""Compile a training step for a mesh in one of two ways that give the same numbers.

The contract for a step ``fn(state, batch, frozen) -> (state, metrics)``:

* ``"jit"``: ``fn`` sees the whole batch and means what it says; the compiler inserts collectives.
* ``"pmap"``: ``fn`` sees the rows of one device and sums up over the axis `DATA_AXIS` itself, as
  ``make_train_step(..., axis_name=DATA_AXIS)`` does. See `jaxcore.parallel.pmap`.

``frozen`` is a tree of arrays that no step changes, or None. A loss that draws random numbers draws
other ones under "pmap", because every device has a key of its own there.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
from jax.sharding import Mesh

from jaxcore.compiling import compiler_options
from jaxcore.errors import UserError
from jaxcore.parallel.mesh import batch_sharding, replicated
from jaxcore.parallel.pmap import compile_pmap

Mode: TypeAlias = Literal["jit", "pmap"]
_MODES = ("jit", "pmap")


def compile_step(
    fn: Callable[..., tuple[Any, Any]],
    mesh: Mesh | None,
    *,
    mode: Mode = "jit",
    donate: bool = True,
    state_sharding: Any = None,
    frozen_sharding: Any = None,
) -> Callable[..., tuple[Any, Any]]:
    """Compile ``fn(state, batch, frozen) -> (state, metrics)``.

    Args:
      fn: the step; see the contract at the head of this module.
      mesh: None compiles for the default device (mode "jit" only).
      mode: "jit" unless there is a reason; "pmap" exists for code written per device.
      donate: let the new state take the memory of the old one, which is then gone.
      state_sharding: tree of shardings for the state (mode "jit"); None copies it everywhere.
      frozen_sharding: the same for the third argument.

    Returns:
      A function of the same three arguments. In the mode "jit" the batch should be put on the mesh
      by `jaxcore.parallel.put_batch`; "pmap" takes it as it is.

    Raises:
      UserError: unknown mode, or a mode that the mesh does not allow.

    >>> import jax, jax.numpy as jnp
    >>> step = compile_step(lambda state, batch, frozen: (state + batch.mean(), {}), None)
    >>> float(step(jnp.zeros(()), jnp.ones(4), None)[0])
    1.0
    """
    if mode not in _MODES:
        raise UserError(f"Unknown mode {mode!r}: expected one of {', '.join(_MODES)}.")
    if mode == "pmap":
        return compile_pmap(fn, mesh, donate=donate)
    donated, options = (0,) if donate else (), compiler_options()
    if mesh is None:
        return jax.jit(fn, donate_argnums=donated, compiler_options=options)
    everywhere = replicated(mesh)
    state = everywhere if state_sharding is None else state_sharding
    frozen = everywhere if frozen_sharding is None else frozen_sharding
    return jax.jit(
        fn,
        donate_argnums=donated,
        in_shardings=(state, batch_sharding(mesh), frozen),
        out_shardings=(state, everywhere),
        compiler_options=options,
    )
