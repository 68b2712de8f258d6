"""One training step as a pure function ``(state, batch, frozen) -> (state, metrics)``.

A loss says what its sum is and what that sum is divided by; sums are added up over micro-batches,
devices and processes, and divided once. So a mean over tokens, pixels or pairs is that of the whole
batch however it is split.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxcore.errors import UserError
from jaxcore.train.ema import EMAConfig, ema_update
from jaxcore.train.state import TrainState, wide
from jaxcore.typing import Batch, Key, Params

Metrics: TypeAlias = dict[str, jax.Array]
# What no step changes, such as the weights of a network that does not learn; None without any.
Frozen: TypeAlias = Any


class Mean(NamedTuple):
    """A mean in two parts, which can be added up over parts of a batch.

    >>> import jax.numpy as jnp
    >>> mean = Mean.of(jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 1.0, 0.0]))
    >>> float(mean.total), float(mean.weight), float(mean.value())
    (3.0, 2.0, 1.5)
    """

    total: ArrayLike
    weight: ArrayLike

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | None = None) -> Self:
        """Mean of all elements of an array.

        Args:
          values: of any shape.
          weights: of the same; 0 leaves an element out, NaN or not. None counts all once.

        Raises:
          ValueError: the shapes differ.
        """
        values = at_least_float32(values)
        if weights is None:
            return cls(jnp.sum(values), jnp.full((), values.size, values.dtype))
        if weights.shape != values.shape:
            raise ValueError(f"Expected weights {values.shape}, found {weights.shape}.")
        weights = jnp.asarray(weights, values.dtype)
        kept = jnp.where(weights == 0, 0, values)
        return cls(jnp.sum(kept * weights), jnp.sum(weights))

    def value(self) -> jax.Array:
        """The mean; NaN of nothing."""
        return jnp.asarray(self.total) / jnp.asarray(self.weight)


class Loss(NamedTuple):
    """What a loss function returns: gradient = gradient of the totals / sum of the weights.

    ``Loss(*Mean.of(error, mask), metrics={"accuracy": Mean.of(hits, mask)})`` is the usual form.
    """

    total: ArrayLike  # sum over the elements, to be differentiated
    weight: ArrayLike  # what it is divided by (elements, tokens, pairs); not differentiated
    metrics: Mapping[str, Mean] = {}  # to log; one of weight 0 leaves a gap in its curve
    collections: Mapping[str, Any] = {}  # new values of `TrainState.collections`


class LossFn(Protocol):
    """``loss(variables, batch, key, frozen)``, see `jaxcore.train.task.GradientTask.loss`."""

    def __call__(
        self, variables: Mapping[str, Any], batch: Batch, key: Key, frozen: Frozen, /
    ) -> Loss:
        """Sum of the loss over rows, and its weight."""
        ...


class Step(Protocol):
    """One step of a task; ``frozen`` is None where a task has nothing frozen."""

    def __call__(
        self, state: TrainState, batch: Batch, frozen: Frozen = None, /
    ) -> tuple[TrainState, Metrics]:
        """The state after the step, and scalars to log."""
        ...


class _Sums(NamedTuple):
    """Of one micro-batch, or of several."""

    gradient: Params  # of the total, at least float32
    means: dict[str, Mean]  # "loss" among them
    collections: dict[str, Any]


_Differentiate: TypeAlias = Callable[[Params, dict[str, Any], Batch, Key, Frozen], _Sums]

_KEPT = ("dot_general", "conv_general_dilated")


def _keep_products(primitive: Any, *_: Any, **__: Any) -> bool:
    """Rematerialisation policy: keep matrix products and convolutions, recompute the rest."""
    return primitive.name in _KEPT


def at_least_float32(x: ArrayLike) -> jax.Array:
    """A number as at least float32, in which sums are taken."""
    x = jnp.asarray(x)
    return wide(x) if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def split_micro_batches(batch: Batch, accum_steps: int, rows_per_item: int = 1) -> Batch:
    """Reshape every array from ``(b, ...)`` to ``(accum_steps, b / accum_steps, ...)``.

    ``rows_per_item`` rows that follow each other stay together. Micro-batch ``i`` holds the items
    ``i, i + accum_steps, ...``: on a batch sharded by rows every device then works on its own rows
    in every micro-batch, and nothing is moved.

    Raises:
      UserError: the batch does not divide.

    >>> import jax.numpy as jnp
    >>> split_micro_batches({"x": jnp.arange(4)}, 2)["x"].tolist()
    [[0, 2], [1, 3]]
    >>> split_micro_batches({"x": jnp.arange(8)}, 2, rows_per_item=2)["x"].tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """

    def split(x: jax.Array) -> jax.Array:
        rows, rest = x.shape[0], x.shape[1:]
        if rows % (accum_steps * rows_per_item):
            groups = "" if rows_per_item == 1 else f" of whole groups of {rows_per_item}"
            raise UserError(
                f"A batch of {rows} rows does not divide into {accum_steps} micro-batches{groups}."
            )
        items = x.reshape(-1, accum_steps, rows_per_item, *rest)
        return jnp.moveaxis(items, 1, 0).reshape(accum_steps, rows // accum_steps, *rest)

    return jax.tree.map(split, batch)


def _differentiate(
    loss_fn: LossFn, trainable: Callable[[Params], Any] | None, remat: bool
) -> _Differentiate:
    def total(
        params: Params, collections: dict[str, Any], batch: Batch, key: Key, frozen: Frozen
    ) -> tuple[jax.Array, tuple[dict[str, Mean], dict[str, Any]]]:
        mask = None if trainable is None else trainable(params)
        if mask is not None:  # XLA then drops the whole backward pass of leaves that stay
            params = jax.tree.map(
                lambda keep, p: p if keep else jax.lax.stop_gradient(p), mask, params
            )
        found = loss_fn({"params": params, **collections}, batch, key, frozen)
        if not isinstance(found, Loss):
            raise UserError(
                f"Expected a Loss(total, weight, metrics, collections) of the loss function, found "
                f"{type(found).__name__}."
            )
        _check_sums(found)
        unknown = [name for name in found.collections if name not in collections]
        if unknown:
            raise UserError(
                f"The loss returns the collections {', '.join(unknown)}, found "
                f"{', '.join(collections) or 'none'} in the state (init_collections)."
            )
        means = {**found.metrics, "loss": Mean(found.total, found.weight)}
        means = {name: Mean(*map(at_least_float32, mean)) for name, mean in means.items()}
        new = {**collections, **found.collections}
        return jnp.asarray(means["loss"].total), jax.lax.stop_gradient((means, new))

    if remat:
        total = jax.checkpoint(total, policy=_keep_products)

    def sums(*inputs: Any) -> _Sums:
        gradient, (means, collections) = jax.grad(total, has_aux=True)(*inputs)
        return _Sums(jax.tree.map(wide, gradient), means, collections)

    return sums


def _check_sums(found: Loss) -> None:
    """See that what is to be divided are sums."""
    for name, mean in {**found.metrics, "loss": Mean(found.total, found.weight)}.items():
        if not isinstance(mean, Mean):
            raise UserError(
                f"Expected a Mean(total, weight) as the metric {name!r} of the loss function, "
                f"found {type(mean).__name__}."
            )
        shapes = [jnp.shape(part) for part in mean]
        if any(shapes):
            raise UserError(
                f"Expected sums, numbers without a shape, as total and weight of {name!r}, found "
                f"the shapes {shapes[0]} and {shapes[1]}: take Mean.of."
            )


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _accumulate(
    sums: _Differentiate,
    params: Params,
    collections: dict[str, Any],
    micro: Batch,
    key: Key,
    frozen: Frozen,
) -> _Sums:
    """Add up over the micro-batches; each sees the collections that the one before has left."""
    first = jax.tree.map(lambda x: x[0], micro)
    shapes = jax.eval_shape(sums, params, collections, first, key, frozen)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(carry: _Sums, inputs: tuple[jax.Array, Batch]) -> tuple[_Sums, None]:
        index, rows = inputs
        new = sums(params, carry.collections, rows, jax.random.fold_in(key, index), frozen)
        gradient, means = _add((carry.gradient, carry.means), (new.gradient, new.means))
        return _Sums(gradient, means, new.collections), None

    count = jax.tree.leaves(micro)[0].shape[0]
    return jax.lax.scan(body, zero._replace(collections=collections), (jnp.arange(count), micro))[0]


def _over_devices(found: _Sums, axis_name: str) -> _Sums:
    """Sums over an axis of devices; collections, of which each has its own, are averaged."""

    def average(x: jax.Array) -> jax.Array:
        return jax.lax.pmean(x, axis_name) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    gradient, means = jax.lax.psum((found.gradient, found.means), axis_name)
    return _Sums(gradient, means, jax.tree.map(average, found.collections))


def _divide(x: jax.Array, weight: jax.Array) -> jax.Array:
    wide = jnp.promote_types(x.dtype, weight.dtype)
    return (x.astype(wide) / weight.astype(wide)).astype(x.dtype)


def _apply(param: jax.Array, update: jax.Array) -> jax.Array:
    """The sum of both in at least float32, rounded to the type of the parameter."""
    return (wide(param) + wide(update)).astype(param.dtype)


def _choose(ok: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, old)


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    accum_steps: int = 1,
    inner_steps: int = 1,
    rows_per_item: int = 1,
    ema: EMAConfig | None = None,
    skip_nonfinite: bool = True,
    remat: bool = False,
    trainable: Callable[[Params], Any] | None = None,
    axis_name: str | None = None,
) -> Step:
    """Build the step; compile it with `jaxcore.parallel.compile_step`.

    Args:
      loss_fn: ``(variables, batch, key, frozen) -> Loss``; ``variables`` holds ``"params"`` and
        the collections of the state.
      tx: optimiser; clipping by norm is part of it.
      accum_steps: micro-batches per update; their totals, gradients and weights are added up.
      inner_steps: updates on one batch; metrics are means over them.
      rows_per_item: so many rows that follow each other stay together in a micro-batch.
      ema: how to average the parameters; the state must hold ``ema_params``.
      skip_nonfinite: when loss or gradient is not finite, keep parameters, optimiser state,
        collections and average as they were and count the update in ``state.skipped``.
      remat: recompute everything but matrix products and convolutions in the backward pass.
      trainable: from the parameters (or their shapes) to a tree of bools of their shape, or None;
        no gradient is computed for False.
      axis_name: set it for ``pmap``, where the function sees the rows of one device only: sums
        are taken over this axis too, and every device draws from a key of its own. Leave it None
        for ``jit``.

    Gradients are added up, and updates computed, in at least float32 whatever the parameters are;
    the new parameters are rounded to their own type.

    Returns:
      ``(state, batch, frozen=None) -> (state, metrics)``, with ``loss``, ``grad_norm`` (joint,
      before clipping) and ``skipped`` (count so far) among the metrics. ``frozen`` is passed on to
      the loss: arrays that a function closes over become constants of the compiled program.

    >>> import jax, jax.numpy as jnp, optax
    >>> from jaxcore.train.state import create_state
    >>> tx = optax.sgd(0.5)
    >>> state = create_state({"w": jnp.ones(())}, tx, key=jax.random.key(0))
    >>> def loss(variables, batch, key, frozen):
    ...     return Loss(*Mean.of(variables["params"]["w"] * batch["x"]))
    >>> state, metrics = jax.jit(make_train_step(loss, tx))(state, {"x": jnp.ones(4)})
    >>> float(state.params["w"]), float(metrics["loss"])
    (0.5, 1.0)
    """
    differentiate = _differentiate(loss_fn, trainable, remat)

    def sums(state: TrainState, batch: Batch, key: Key, frozen: Frozen) -> _Sums:
        held = state.params, state.collections
        if accum_steps == 1:
            found = differentiate(*held, batch, key, frozen)
        else:
            micro = split_micro_batches(batch, accum_steps, rows_per_item)
            found = _accumulate(differentiate, *held, micro, key, frozen)
        return found if axis_name is None else _over_devices(found, axis_name)

    def update(
        state: TrainState, batch: Batch, key: Key, call: jax.Array, frozen: Frozen
    ) -> tuple[TrainState, dict[str, Mean]]:
        found = sums(state, batch, key, frozen)
        weight = jnp.asarray(found.means["loss"].weight)
        grads = jax.tree.map(lambda g: _divide(g, weight), found.gradient)
        grad_norm = optax.tree.norm(grads)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer counts
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(_apply, state.params, updates)
        average = state.ema_params
        if ema is not None and average is not None:
            average = ema_update(ema, average, params, call - state.skipped)
        new = dataclasses.replace(
            state,
            params=params,
            opt_state=opt_state,
            ema_params=average,
            collections=found.collections,
        )
        if skip_nonfinite:
            ok = jnp.isfinite(found.means["loss"].value()) & jnp.isfinite(grad_norm)
            skipped = state.skipped + jnp.where(ok, 0, 1).astype(jnp.int32)
            new = dataclasses.replace(_choose(ok, new, state), skipped=skipped)
        return new, {**found.means, "grad_norm": Mean(grad_norm, jnp.ones_like(grad_norm))}

    def step(
        state: TrainState, batch: Batch, frozen: Frozen = None, /
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.rng, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        if inner_steps == 1:
            new, means = update(state, batch, key, state.step, frozen)
        else:

            def inner(held: TrainState, i: jax.Array) -> tuple[TrainState, dict[str, Mean]]:
                call = state.step * inner_steps + i
                return update(held, batch, jax.random.fold_in(key, i), call, frozen)

            new, each = jax.lax.scan(inner, state, jnp.arange(inner_steps, dtype=jnp.int32))
            means = jax.tree.map(lambda x: jnp.sum(x, axis=0), each)
        metrics = {name: mean.value().astype(jnp.float32) for name, mean in means.items()}
        new = dataclasses.replace(new, step=state.step + 1)
        return new, {**metrics, "skipped": new.skipped}

    return step
