"""A run tried out for two steps and one evaluation: what it is made of, takes and costs."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcore.errors import UserError
from jaxcore.parallel import put_batch
from jaxcore.train.config import TrainConfig, check_best
from jaxcore.train.logging import format_metrics, format_seconds
from jaxcore.train.optim import parameter_path
from jaxcore.train.prepare import Prepared, prepare
from jaxcore.train.schedules import check_length
from jaxcore.train.state import TrainState
from jaxcore.train.task import Task
from jaxcore.typing import Batch, Params

__all__ = ["DryRun", "dry_run"]


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What was found; sizes in bytes (of the whole job), times in seconds."""

    steps: int  # of the run it is an estimate of
    batch: dict[str, str]  # path of an array -> type and shape, rows of this process
    parameters: int
    parameter_bytes: int
    optimiser_bytes: int
    state_bytes: int  # all that a checkpoint holds
    step_memory: int | None  # of one device, in a step: arguments, results and what is in between
    step_metrics: dict[str, float]  # of the second step
    evaluation_metrics: dict[str, float]
    compile_seconds: float
    step_seconds: float
    evaluations: int
    evaluation_seconds: float  # of a whole one, from the time of a short one

    @property
    def total_seconds(self) -> float:
        """Estimate for the run, without pictures and checkpoints."""
        training = self.compile_seconds + self.steps * self.step_seconds
        return training + self.evaluations * self.evaluation_seconds

    def __str__(self) -> str:
        memory = "unknown" if self.step_memory is None else f"{_size(self.step_memory)} per device"
        batch = ", ".join(f"{name} {what}" for name, what in self.batch.items())
        rows = {
            "batch": batch,
            "parameters": f"{self.parameters:,} ({_size(self.parameter_bytes)})",
            "state": f"{_size(self.state_bytes)} ({_size(self.optimiser_bytes)} of the optimiser)",
            "step": format_metrics(self.step_metrics),
            "evaluation": format_metrics(self.evaluation_metrics) or "no metrics",
            "memory of a step": memory,
            "compilation": f"{self.compile_seconds:.1f} s",
            "one step": f"{self.step_seconds:.3g} s",
            "whole run": f"about {format_seconds(self.total_seconds)} (h:mm:ss or m:ss): "
            f"{self.steps:,} steps, {self.evaluations} evaluations of about "
            f"{format_seconds(self.evaluation_seconds)}; nothing was written",
        }
        return "\n".join(f"{name:18}{text}" for name, text in rows.items())


def dry_run(
    task: Task,
    cfg: TrainConfig,
    *,
    mesh: Mesh | None = None,
    init_params: Params | None = None,
) -> DryRun:
    """Try a run out: its first two steps and a short evaluation; nothing is written.

    Args:
      task: what would be trained; `Task.brief` is what is evaluated.
      cfg: how.
      mesh: where, as for `jaxcore.train.fit`.
      init_params: parameters to start from.

    Raises:
      UserError: what `fit` would refuse, also a ``best_metric`` that the evaluation does not have
        and data for less than two steps.
    """
    ready = prepare(task, cfg, mesh)
    check_length(cfg.optim.schedule, cfg.steps * task.inner_steps)
    check_best(cfg.best_metric, task.metric_names())
    iterator = task.batches(cfg.seed, 0)
    state = ready.initial_state(init_params)
    try:
        batches = [next(iterator), next(iterator)]
    except StopIteration:
        raise UserError("Expected data for two steps, found less.") from None
    placed = _placed(ready, state, batches[0], 0)
    # The step of `Prepared` is what `jax.jit` gives; compiled by itself it tells what it takes.
    jitted: Any = ready.step
    began = time.perf_counter()
    compiled = jitted.lower(state, placed, ready.frozen).compile()
    compile_seconds = time.perf_counter() - began
    state, _ = jax.block_until_ready(compiled(state, placed, ready.frozen))
    again, experience_seconds = _timed(
        lambda: jax.block_until_ready(_placed(ready, state, batches[1], 1))
    )
    # A later batch may have another shape, such as crops that grow: the first is timed then.
    again = again if _shapes(again) == _shapes(placed) else placed
    (state, metrics), step_seconds = _timed(
        lambda: jax.block_until_ready(compiled(state, again, ready.frozen))
    )
    brief = task.brief()
    brief.evaluate(state, ready.frozen)  # compiles
    found, evaluation_seconds = _timed(lambda: brief.evaluate(state, ready.frozen))
    check_best(cfg.best_metric, tuple(found))
    share = max(task.evaluation_size(), 1) / max(brief.evaluation_size(), 1)
    return DryRun(
        steps=cfg.steps,
        batch=_shapes(batches[0]),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        parameter_bytes=_bytes(state.params),
        optimiser_bytes=_bytes(state.opt_state),
        state_bytes=_bytes(state),
        step_memory=_memory(compiled),
        step_metrics={name: float(value) for name, value in metrics.items()},
        evaluation_metrics={name: float(value) for name, value in found.items()},
        compile_seconds=compile_seconds,
        step_seconds=experience_seconds + step_seconds,
        evaluations=_evaluations(cfg),
        evaluation_seconds=share * evaluation_seconds,
    )


def _placed(ready: Prepared, state: TrainState, batch: Batch, step: int) -> Batch:
    """What a step is given, as in `fit`."""
    placed = put_batch(batch, ready.mesh)
    key = jax.random.fold_in(jax.random.key(ready.cfg.seed), 2)
    made = ready.task.experience(state, placed, jax.random.fold_in(key, step), ready.frozen)
    return placed if made is None else put_batch(made, ready.mesh)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    out = work()
    return out, time.perf_counter() - began


def _evaluations(cfg: TrainConfig) -> int:
    """At multiples of ``eval_every``, and at the end."""
    if not cfg.eval_every:
        return 1
    return cfg.steps // cfg.eval_every + bool(cfg.steps % cfg.eval_every)


def _shapes(batch: Batch) -> dict[str, str]:
    return {
        parameter_path(path): f"{np.dtype(leaf.dtype).name} {tuple(np.shape(leaf))}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(batch)
    }


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _memory(compiled: Any) -> int | None:
    """Peak of one device in a step, where its compiler tells."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    fresh = found.output_size_in_bytes - found.alias_size_in_bytes  # not where arguments were
    return found.argument_size_in_bytes + fresh + found.temp_size_in_bytes


def _size(count: int) -> str:
    """``"1.5 GB"``."""
    for unit, one in (("GB", 10**9), ("MB", 10**6)):
        if count >= one:
            return f"{count / one:.3g} {unit}"
    return f"{count / 1000:.3g} kB"
