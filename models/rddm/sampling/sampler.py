"""Sampling: restoration and generation as one compiled loop over a table.

The table gives the weights of each step, the objective how the networks are called and their
outputs read. Both amount to a pure function of arrays, which is compiled once per network,
objective, shape and number of rows.
"""

import functools
from typing import Any, NamedTuple, Protocol, overload
from typing import Literal as L

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.forward import Level
from jaxcore.models.rddm.process.losses import ApplyFn
from jaxcore.models.rddm.process.objectives import Mode, Prediction
from jaxcore.models.rddm.sampling.table import Rows, SamplingTable, draws
from jaxcore.typing import Key


class Reader(Protocol):
    """How networks are called and read: an `RDDMObjective`, or a `DDIMNetwork`. Hashable."""

    @property
    def num_outputs(self) -> int:
        """How many images the networks give."""
        ...

    @property
    def time_conditioning(self) -> str:
        """Whether they take "index" or "cumulative" times."""
        ...

    @property
    def concat_input(self) -> bool:
        """Whether they see the degraded image."""
        ...

    @property
    def self_condition(self) -> bool:
        """Whether they see the last clean image predicted."""
        ...

    def check_mode(self, mode: Mode | None) -> Any:
        """Refuse a mode that this reader does not have."""
        ...

    def predict(
        self,
        outputs: tuple[Array, ...],
        x: Array,
        degraded: Array,
        level: Level,
        *,
        mode: Mode | None,
        clip: bool,
    ) -> Prediction:
        """Residual, noise and clean image, from what the networks gave."""
        ...


class Trajectory(NamedTuple):
    """What happened: one entry per row of the table."""

    start: Float[Array, "b h w c"]
    states: Float[Array, "s b h w c"]  # after each step; the last is the result
    residual: Float[Array, "s b h w c"]  # predicted at each step; and so on
    noise: Float[Array, "s b h w c"]
    clean: Float[Array, "s b h w c"]


@overload
def sample(
    apply_fn: ApplyFn,
    params: Any,
    degraded: Array | None = ...,
    *,
    table: SamplingTable,
    objective: Reader,
    key: Key | None = ...,
    noise: Array | None = ...,
    shape: tuple[int, ...] | None = ...,
    condition: Array | None = ...,
    mode: Mode | None = ...,
    return_trajectory: L[False] = ...,
) -> Array: ...
@overload
def sample(
    apply_fn: ApplyFn,
    params: Any,
    degraded: Array | None = ...,
    *,
    table: SamplingTable,
    objective: Reader,
    key: Key | None = ...,
    noise: Array | None = ...,
    shape: tuple[int, ...] | None = ...,
    condition: Array | None = ...,
    mode: Mode | None = ...,
    return_trajectory: L[True],
) -> tuple[Array, Trajectory]: ...
def sample(
    apply_fn: ApplyFn,
    params: Any,
    degraded: Float[Array, "b h w c"] | None = None,
    *,
    table: SamplingTable,
    objective: Reader,
    key: Key | None = None,
    noise: Float[Array, "n b h w c"] | None = None,
    shape: tuple[int, ...] | None = None,
    condition: Float[Array, "b h w m"] | None = None,
    mode: Mode | None = None,
    return_trajectory: bool = False,
) -> Any:
    """Restore degraded images, or generate images from nothing.

    Restoration starts from the degraded image with noise of the schedule's final variance on it,
    so that its result depends on the noise even without fresh noise in the steps.

    Args:
      apply_fn: networks, ``(params, input, times) -> outputs``. Pass the same function object at
        every call: the compiled program is found by it.
      params: of the networks.
      degraded: images to restore, NHWC in [-1, 1]; None generates.
      table: the steps, see `sampling_table` and the other samplers.
      objective: how the networks are called and their outputs read.
      key: for all noise.
      noise: standard normal noise instead: that of the start, alone or followed by one per step
        but the last (of each pass).
      shape: of images to generate.
      condition: further channels for the networks, such as a mask; passed on as they are.
      mode: which outputs are used; None for all.
      return_trajectory: also give all steps.

    Returns:
      Images in [-1, 1] where predictions are cut; use `forward.to_unit` for [0, 1].

    Raises:
      UserError: neither or both of key and noise, or of degraded and shape; noise of another
        shape or number; a mode the objective does not have.

    >>> from jaxcore.models.rddm.process.objectives import RDDMObjective
    >>> from jaxcore.models.rddm.process.schedule import RDDMSchedule
    >>> from jaxcore.models.rddm.sampling.released import sampling_table
    >>> def darker(params, x, time):  # a "network" that finds the residual -0.5 everywhere
    ...     return (jnp.full_like(x[..., :3], -0.5),)
    >>> table = sampling_table(RDDMSchedule.polynomial(10), 2)
    >>> restored = sample(darker, {}, jnp.zeros((1, 4, 4, 3)), table=table,
    ...                   objective=RDDMObjective(name="pred_res"), key=jax.random.key(0))
    >>> float(restored.min()), float(restored.max())
    (0.5, 0.5)
    """
    if (key is None) == (noise is None):
        raise UserError("Expected either a key or noise, found both or neither.")
    if (degraded is None) == (shape is None):
        raise UserError("Expected either degraded images or a shape, found both or neither.")
    if degraded is not None:
        kind = jnp.result_type(degraded)
        if not jnp.issubdtype(kind, jnp.floating):
            raise UserError(f"Expected floating-point images in [-1, 1], found {kind}.")
        shape = jnp.shape(degraded)
    assert shape is not None
    if len(shape) != 4:
        raise UserError(f"Expected images (batch, height, width, channels), found shape {shape}.")
    if noise is not None:
        _check_noise(noise, shape, table)
    objective.check_mode(mode)
    images, trajectory = _run(
        apply_fn,
        params,
        degraded,
        table,
        key,
        noise,
        condition,
        objective=objective,
        shape=tuple(shape),
        mode=mode,
        keep=return_trajectory,
    )
    return (images, trajectory) if return_trajectory else images


def _check_noise(noise: Array, shape: tuple[int, ...], table: SamplingTable) -> None:
    found = jnp.shape(noise)
    traced = isinstance(table.rows.draw, jax.core.Tracer)  # inside jit its values are not known
    count = found[:1] if traced else (1 + draws(table),)
    if len(found) != 5 or found[1:] != shape or found[0] not in (1, *count):
        wanted = " or ".join(map(str, (1, *count)))
        raise UserError(
            f"Expected noise of shape ({wanted}, {', '.join(map(str, shape))}), found {found}."
        )
    if not traced and found[0] == 1 < count[0] and np.asarray(table.rows.sigma).any():
        raise UserError(f"Expected {count[0]} noises for steps with fresh noise, found 1.")


@functools.partial(jax.jit, static_argnames=("apply_fn", "objective", "shape", "mode", "keep"))
def _run(
    apply_fn: ApplyFn,
    params: Any,
    degraded: Array | None,
    table: SamplingTable,
    key: Key | None,
    noise: Array | None,
    condition: Array | None,
    *,
    objective: Reader,
    shape: tuple[int, ...],
    mode: Mode | None,
    keep: bool,
) -> tuple[Array, Trajectory | None]:
    if noise is None:
        assert key is not None
        first = jax.random.normal(key, shape)
    else:
        first = noise[0]
    base = jnp.zeros_like(first) if degraded is None else degraded
    start = first if degraded is None else degraded + table.start_scale * first
    shown = degraded if objective.concat_input else None

    def fresh(row: Rows, place: Array) -> Array:
        if noise is None:
            assert key is not None
            draw = functools.partial(jax.random.normal, jax.random.fold_in(key, place), shape)
        elif noise.shape[0] > 1:
            draw = functools.partial(jnp.take, noise, row.draw + 1, axis=0)
        else:
            return jnp.zeros_like(first)
        # Branches at run time: deterministic steps draw nothing, and nothing is compiled anew.
        return jax.lax.cond(row.sigma > 0, draw, lambda: jnp.zeros_like(first))

    def step(carry: tuple[Array, Array], row_and_place: tuple[Rows, Array]) -> Any:
        x, previous = carry
        row, place = row_and_place
        seen = forward.network_input(
            x,
            degraded=shown,
            condition=condition,
            self_condition=previous if objective.self_condition else None,
        )
        outputs = apply_fn(params, seen, _times(objective, row, table.total, shape[0]))
        outputs = tuple(o.astype(x.dtype) for o in outputs)
        level = Level(row.alpha, row.beta, row.rest)
        found = objective.predict(outputs, x, base, level, mode=mode, clip=table.clip)
        after = (
            row.x * x
            + row.degraded * base
            + row.residual * found.residual
            + row.noise * found.noise
            + row.clean * found.clean
            + row.previous * previous
            + row.sigma * fresh(row, place)
        )
        return (after, found.clean), (after, found) if keep else None

    places = jnp.arange(1, len(table) + 1)
    (images, _), steps = jax.lax.scan(
        step, (start, jnp.zeros_like(start)), (jax.tree.map(jnp.asarray, table.rows), places)
    )
    if not keep:
        return images, None
    states, found = steps
    return images, Trajectory(start, states, found.residual, found.noise, found.clean)


def _times(
    objective: Reader, row: Rows, total: Array, batch: int
) -> tuple[Float[Array, " b"], ...]:
    """The time that each network takes; see `forward.network_times`."""
    if objective.time_conditioning == "index":
        values = (row.index,) * objective.num_outputs
    else:
        values = (row.alpha * total, row.beta * total)[: objective.num_outputs]
    return tuple(jnp.full((batch,), value) for value in values)
