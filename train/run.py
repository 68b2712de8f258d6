"""From step to step: what a run does, and in which order."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxcore.errors import UserError
from jaxcore.parallel import put_batch
from jaxcore.train.checkpoint import Checkpointer
from jaxcore.train.checksums import first_nonfinite
from jaxcore.train.config import check_best
from jaxcore.train.contract import numbers
from jaxcore.train.feed import Feed
from jaxcore.train.forecast import LONG, forecast
from jaxcore.train.interrupt import StopRequest
from jaxcore.train.journal import Journal
from jaxcore.train.logging import Pace, format_seconds
from jaxcore.train.patience import Patience
from jaxcore.train.position import encode
from jaxcore.train.prepare import Prepared
from jaxcore.train.profile import Profiler
from jaxcore.train.records import strict
from jaxcore.train.state import TrainState
from jaxcore.train.step import Metrics
from jaxcore.train.task import Task
from jaxcore.train.watch import Watch, outcome
from jaxcore.train.window import Window
from jaxcore.typing import Batch


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What is left in memory after a run."""

    state: TrainState
    metrics: dict[str, float]  # the last evaluation
    interrupted: bool  # asked to stop before the end; the run directory can be resumed


@dataclasses.dataclass
class Run:
    """What changes from step to step, and where it is written."""

    ready: Prepared
    checkpointer: Checkpointer
    journal: Journal
    profiler: Profiler
    description: dict[str, Any]
    feed: Feed
    state: TrainState
    window: Window
    watch: Watch
    patience: Patience
    metrics: dict[str, float]  # the last evaluation
    evaluated: int | None = None  # the step it followed
    left: list[str] = dataclasses.field(default_factory=list)  # due after the last step, not done
    position: Any = None  # in the data, of the state: the iterator may be ahead when it fails
    pending: deque[tuple[int, Metrics]] = dataclasses.field(default_factory=deque)

    def go(self, start: int, stop: StopRequest) -> FitResult:
        """All steps after ``start``."""
        cfg, task, pace, done = self.ready.cfg, self.ready.task, Pace(), start
        if self.left:  # of a run that was stopped or failed before it was done
            if "log" in self.left:
                self._log(start, pace)
            self._catch_up(start)
            self._save()
            if self.patience.over:
                self.journal.reporter.message(self.patience.sentence(start))
                return FitResult(self.state, self.metrics, interrupted=False)
        for done in range(start + 1, cfg.steps + 1):
            with self.profiler.step(done, lambda: self._await(0)):
                batch = self._advance(done, first=done == start + 1)
            if done == start + 1:  # compilation and the first step do not count for the pace
                self._await(0)
                pace.restart()
            else:
                pace.count(_items(task, batch))
            self.watch.check(self.state.params)
            if done == start + 3:
                self._await(0)
                self._forecast(pace.per_step() * (cfg.steps - done))
            self.journal.reporter.advance(done)
            last = done == cfg.steps
            if "log" in self.left:
                self._log(done, pace)
                last = last or task.finished(self.state)
            stopping = stop.asked(done) and not last
            began = pace.now()
            if last:
                self.left = ["evaluate", "draw"]
            if self._side_work(done, last=last, stopping=stopping):
                pace.pause(began)
            if self.patience.over and not last:
                self.journal.reporter.message(self.patience.sentence(done))
                last = True
            if stopping:
                self.checkpointer.wait()
                text = f"Asked to stop: saved step {done} of {cfg.steps}."
                self.journal.reporter.message(text)
                return FitResult(self.state, self.metrics, interrupted=True)
            if last:
                break
        self.checkpointer.wait()
        if text := outcome(self.watch.skipped, done * task.inner_steps):
            self.journal.reporter.message(text)
        return FitResult(self.state, self.metrics, interrupted=False)

    def _forecast(self, seconds: float) -> None:
        """Say how long a long run will take, before somebody waits for it."""
        if seconds >= LONG:
            text = f"About {format_seconds(seconds)} of training from here (h:mm:ss)."
            self.journal.reporter.message(text)

    def _advance(self, done: int, *, first: bool) -> Batch:
        """Enqueue one step, after a word on what it takes if it is the first; returns its batch."""
        ready = self.ready
        try:
            batch, placed, position = next(self.feed)
        except StopIteration as error:
            raise UserError(
                f"Expected data for {ready.cfg.steps} steps, found none after step {done - 1}."
            ) from error
        key = jax.random.fold_in(jax.random.key(ready.cfg.seed), 2)  # 0: parameters, 1: steps
        key = jax.random.fold_in(key, done - 1)
        made = ready.task.experience(self.state, placed, key, ready.frozen)
        placed = placed if made is None else put_batch(made, ready.mesh)
        left = ready.cfg.due(done)
        if first and ready.mesh is None:
            found = forecast(
                ready.step, (self.state, placed, ready.frozen), ready.cfg.steps - done + 1
            )
            if found:
                self.journal.reporter.message(found)
        # No call stands between these, so that no Ctrl-C can part them.
        self.state, metrics = ready.step(self.state, placed, ready.frozen)
        self.position, self.left = position, left
        self.pending.append((done, metrics))
        for value in metrics.values():
            value.copy_to_host_async()  # looked at when the step has ended: no further wait
        self._await(ready.cfg.max_in_flight)
        return batch

    def _await(self, allowed: int) -> None:
        """Wait until at most ``allowed`` steps are still running."""
        while len(self.pending) > allowed:
            jax.block_until_ready(self.pending[0])
            done, metrics = self.pending.popleft()
            self.window.add(metrics)
            spike = self.watch.add(done, metrics)
            if spike is not None:
                self.journal.spike(done, spike)

    def _side_work(self, done: int, *, last: bool, stopping: bool) -> bool:
        """Evaluate, draw pictures, save: whatever is due after this step."""
        save = last or stopping or _due(self.ready.cfg.save_every, done)
        if not (self.left or save):
            return False
        self._await(0)
        self.watch.check(self.state.params)
        if not stopping:
            save |= self._catch_up(done)
        if save:
            self._save()
        return True

    def _catch_up(self, done: int) -> bool:
        """Evaluate and draw pictures, if that is left; True when this is the best, or the last."""
        best = False
        if "evaluate" in self.left:
            best = self._evaluate(done)
            self.left.remove("evaluate")
            if self.patience.over:
                best, self.left = True, ["draw"]
        if "draw" in self.left:  # by all processes: it may hold collectives
            found = self.ready.task.pictures(self.state, self.ready.frozen)
            self.journal.pictures(done, found)
            self.left.remove("draw")
        return best

    def rescue(self, start: int, left: Sequence[str]) -> None:
        """Save the last good state, whatever ends the run; to be called by every process.

        Args:
          start: step at which this run began.
          left: what was left to do there.
        """
        say = self.journal.reporter.message
        try:
            self._await(0)
            done = int(self.state.step)
            if done == start and self.left == list(left):
                return
            if not self.checkpointer.all_at(done):
                return  # a save needs every process, and others may know of no failure
            with contextlib.suppress(UserError):  # of the save before: it has made room
                self.checkpointer.wait()
            self._save()
            self.checkpointer.wait()
            say(f"Saved step {done} before the run ended.")
        except Exception as error:
            say(f"Nothing was saved after the last checkpoint: {error}")

    def _save(self) -> None:
        """Save what this step has left, or its record alone where the step is saved already."""
        bad = first_nonfinite({"params": self.state.params, "ema": self.state.ema_params})
        if bad is not None:  # it would push good checkpoints out
            raise UserError(
                f"Expected finite parameters after step {int(self.state.step)}, found NaN or "
                f"infinity in {bad}: the checkpoints before are kept; check the data and the "
                "learning rate, or set skip_nonfinite."
            )
        self.journal.copy()  # first: a run that goes on from here has its records
        self.checkpointer.save(
            self.state,
            config=self.description,
            data_iter=encode(self.position),
            window={**self.window.to_dict(), "watch": self.watch.to_dict()},
            metrics=strict(self.metrics) if self.evaluated == int(self.state.step) else None,
            left=self.left,
        )

    def _log(self, done: int, pace: Pace) -> None:
        self._await(0)
        metrics = self.window.means()
        with jax.numpy_dtype_promotion("standard"):
            # Of the last update that was applied: what is left out does not count.
            applied = max(done * self.ready.task.inner_steps - self.watch.skipped, 1)
            metrics |= {name: float(rate(applied - 1)) for name, rate in self.ready.rates.items()}
        metrics |= pace.read(self.ready.cfg.steps - done)
        self.journal.train(done, metrics)
        self.window.restart()
        self.left.remove("log")

    def _evaluate(self, done: int) -> bool:
        """Evaluate; True when this is the best so far."""
        found = self.ready.task.evaluate(self.state, self.ready.frozen)
        metrics = numbers(found)
        name = self.ready.cfg.best_metric
        check_best(name, tuple(metrics))
        self.journal.evaluation(done, metrics)
        self.metrics, self.evaluated = metrics, done
        self.patience.note(metrics)
        if name is None:
            return False
        value = metrics[name]
        return bool(np.isfinite(value)) and self.checkpointer.is_better(value)


def _items(task: Task, batch: Batch) -> int:
    """How many items (images, units) one batch holds."""
    if task.items_per_batch is not None:
        return task.items_per_batch
    leaves = jax.tree.leaves(batch)
    return int(np.shape(leaves[0])[0]) if leaves and np.ndim(leaves[0]) else 1


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
