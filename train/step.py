"""One training step as a pure function ``(state, batch, *frozen) -> (state, metrics)``."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxcore.errors import UserError
from jaxcore.train.ema import EMAConfig, ema_update
from jaxcore.train.state import TrainState
from jaxcore.typing import Batch, Key, Params

Metrics: TypeAlias = dict[str, jax.Array]
LossFn: TypeAlias = Callable[..., tuple[jax.Array, Mapping[str, Any]]]
TrainStep: TypeAlias = Callable[..., tuple[TrainState, Metrics]]

_KEPT = ("dot_general", "conv_general_dilated")


def _keep_products(primitive: Any, *_: Any, **__: Any) -> bool:
    """Rematerialisation policy: keep matrix products and convolutions, recompute the rest."""
    return primitive.name in _KEPT


def split_micro_batches(batch: Batch, accum_steps: int) -> Batch:
    """Reshape every array from ``(b, ...)`` to ``(accum_steps, b / accum_steps, ...)``.

    Micro-batch ``i`` holds the rows ``i, i + accum_steps, ...``: on a batch sharded by rows every
    device then works on its own rows in every micro-batch, and nothing is moved.

    Raises:
      UserError: the batch does not divide.

    >>> import jax.numpy as jnp
    >>> split_micro_batches({"x": jnp.arange(4)}, 2)["x"].tolist()
    [[0, 2], [1, 3]]
    """

    def split(x: jax.Array) -> jax.Array:
        if x.shape[0] % accum_steps:
            raise UserError(
                f"A batch of {x.shape[0]} rows does not divide into {accum_steps} micro-batches."
            )
        rows = x.reshape(x.shape[0] // accum_steps, accum_steps, *x.shape[1:])
        return jnp.moveaxis(rows, 1, 0)

    return jax.tree.map(split, batch)


def _loss_and_gradient(loss_fn: LossFn, trainable: Any, remat: bool) -> Callable[..., Any]:
    def loss(params: Params, batch: Batch, key: Key, *frozen: Any) -> tuple[jax.Array, Metrics]:
        if trainable is not None:  # XLA then drops the whole backward pass of frozen leaves
            params = jax.tree.map(
                lambda keep, p: p if keep else jax.lax.stop_gradient(p), trainable, params
            )
        value, metrics = loss_fn(params, batch, key, *frozen)
        value = value.astype(jnp.float32)
        scalars = {name: jnp.asarray(m).astype(jnp.float32) for name, m in metrics.items()}
        return value, {**scalars, "loss": value}

    if remat:
        loss = jax.checkpoint(loss, policy=_keep_products)
    return jax.grad(loss, has_aux=True)


def _accumulate(
    gradient: Callable[..., Any],
    params: Params,
    batch: Batch,
    key: Key,
    accum_steps: int,
    frozen: tuple[Any, ...],
) -> tuple[Params, Metrics]:
    """Gradients and metrics averaged over the micro-batches."""
    if accum_steps == 1:
        return gradient(params, batch, key, *frozen)
    micro = split_micro_batches(batch, accum_steps)
    first = jax.tree.map(lambda x: x[0], micro)
    shapes = jax.eval_shape(gradient, params, first, key, *frozen)

    def body(total: Any, inputs: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        index, rows = inputs
        new = gradient(params, rows, jax.random.fold_in(key, index), *frozen)
        return jax.tree.map(jnp.add, total, new), None

    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(body, zero, (jnp.arange(accum_steps), micro))
    return jax.tree.map(lambda x: x / accum_steps, total)


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    accum_steps: int = 1,
    ema: EMAConfig | None = None,
    skip_nonfinite: bool = True,
    remat: bool = False,
    trainable: Any = None,
    axis_name: str | None = None,
) -> TrainStep:
    """Build the step; compile it with `jaxcore.parallel.compile_step`.

    Args:
      loss_fn: ``(params, batch, key, *frozen) -> (loss, metrics)``: a mean over the rows of the
        batch, and a dict of scalars.
      tx: optimiser; clipping by norm is part of it.
      accum_steps: micro-batches per step; gradients and metrics are their mean.
      ema: how to average the parameters; the state must hold ``ema_params``.
      skip_nonfinite: when loss or gradient is not finite, keep parameters, optimiser state and
        average as they were and count the step in ``state.skipped``.
      remat: recompute everything but matrix products and convolutions in the backward pass.
      trainable: tree of bools shaped like the parameters; no gradient is computed for False.
      axis_name: set it for ``shard_map`` and ``pmap``, where the function sees the rows of one
        device only: gradients and metrics are averaged over this axis, and every device draws
        from a key of its own. Leave it None for ``jit``.

    Returns:
      ``(state, batch, *frozen) -> (state, metrics)``, with ``loss``, ``grad_norm`` (joint, before
      clipping) and ``skipped`` (count so far) among the metrics. What the loss needs besides, such
      as the weights of a network that does not learn, is passed on to it: arrays that a function
      closes over become constants of the compiled program.

    >>> import jax, jax.numpy as jnp, optax
    >>> from jaxcore.train.state import create_state
    >>> tx = optax.sgd(0.5)
    >>> state = create_state({"w": jnp.ones(())}, tx, key=jax.random.key(0))
    >>> step = make_train_step(lambda p, b, key: (p["w"] * b["x"].mean(), {}), tx)
    >>> state, metrics = jax.jit(step)(state, {"x": jnp.ones(4)})
    >>> float(state.params["w"]), float(metrics["loss"])
    (0.5, 1.0)
    """
    gradient = _loss_and_gradient(loss_fn, trainable, remat)

    def step(state: TrainState, batch: Batch, *frozen: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.rng, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        grads, metrics = _accumulate(gradient, state.params, batch, key, accum_steps, frozen)
        if axis_name is not None:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
        grad_norm = optax.tree.norm(grads)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer counts
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        average = state.ema_params
        if ema is not None and average is not None:
            average = ema_update(ema, average, params, state.step - state.skipped)
        skipped = state.skipped
        if skip_nonfinite:
            ok = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
            params, opt_state, average = jax.tree.map(
                lambda new, old: jnp.where(ok, new, old),
                (params, opt_state, average),
                (state.params, state.opt_state, state.ema_params),
            )
            skipped = skipped + jnp.where(ok, 0, 1).astype(jnp.int32)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            ema_params=average,
            skipped=skipped,
        )
        return new_state, {**metrics, "grad_norm": grad_norm, "skipped": skipped}

    return step
