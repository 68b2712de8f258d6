"""The one training loop: a task, a config and a run directory.

What a run starts from, in this order: its own checkpoint, when the run directory has one (and
``resume`` is not False); else ``init_params``, for fine-tuning; else ``task.init_state``.

Runs are exact: interrupted by a signal or killed, and resumed, a run on one device ends with
the same parameters to the last bit as one that was never stopped, because the checkpoint holds
the parameters, the optimiser, the key, the position in the data and the running means.
"""

import contextlib
import copy
import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcore.atomic import write_json
from jaxcore.errors import UserError
from jaxcore.parallel import explained, put_batch
from jaxcore.places import run_place
from jaxcore.train.checkpoint import Checkpointer
from jaxcore.train.checksums import first_nonfinite
from jaxcore.train.config import TrainConfig, check_same_run, describe_run
from jaxcore.train.contract import check_batches, numbers
from jaxcore.train.integrity import check_tree, writing
from jaxcore.train.interrupt import EXIT_INTERRUPTED, StopRequest
from jaxcore.train.journal import Journal
from jaxcore.train.lock import locked
from jaxcore.train.logging import Pace, Reporter, default_reporter, format_seconds
from jaxcore.train.patience import Patience
from jaxcore.train.position import encode, go_to
from jaxcore.train.prepare import Prepared, prepare
from jaxcore.train.profile import Profiler
from jaxcore.train.records import evaluations, strict
from jaxcore.train.run_directory import read_config
from jaxcore.train.state import TrainState
from jaxcore.train.step import Metrics
from jaxcore.train.steps import CHECKPOINTS, complete_steps
from jaxcore.train.task import BatchIterator, Task
from jaxcore.train.window import Window
from jaxcore.typing import Batch, Params

__all__ = ["EXIT_INTERRUPTED", "FitResult", "TrainConfig", "fit"]

Resume = Literal["auto"] | bool
_LONG = 3600  # seconds of a run that is announced
# After this many logged windows without one finite loss a run is given up.
_HOPELESS_WINDOWS = 3


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What is left in memory after a run."""

    state: TrainState
    metrics: dict[str, float]  # the last evaluation
    interrupted: bool  # asked to stop before the end; the run directory can be resumed


def fit(
    task: Task,
    cfg: TrainConfig,
    run_dir: str | Path,
    *,
    mesh: Mesh | None = None,
    resume: Resume = "auto",
    reporter: Reporter | None = None,
    init_params: Params | None = None,
    extra_config: Mapping[str, Any] | None = None,
) -> FitResult:
    """Run a task, step by step.

    Args:
      task: what is trained, see `jaxcore.train.task.GradientTask`.
      cfg: how.
      run_dir: receives ``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``samples/`` and
        ``tensorboard/``; shared by all processes. A folder, or ``gs://bucket/folder``.
      mesh: rows of a batch are split over its axes data and fsdp, big parameters over fsdp;
        None trains on the default device.
      resume: "auto" goes on from the newest whole checkpoint if there is one, True demands one,
        False demands that there is none.
      reporter: receives the progress; None is a bar on a terminal and lines elsewhere.
      init_params: parameters to start from (fine-tuning) when there is nothing to resume.
      extra_config: further JSON to record in ``config.json``.

    Returns:
      The final state; ``interrupted`` when SIGTERM or Ctrl-C ended the run early, in which case
      a program should exit with `EXIT_INTERRUPTED`.

    Raises:
      UserError: other settings than those of the run directory, parameters that do not fit, a
        full disk, a folder that cannot be written, a loss that is never finite.
    """
    run_dir, reporter = run_place(run_dir), reporter or default_reporter()
    ready = prepare(task, cfg, mesh)
    description = describe_run(task, cfg, extra_config or {})
    steps = complete_steps(run_dir / CHECKPOINTS)
    found = bool(steps)
    _check_start(found, resume, run_dir)
    if found:
        check_same_run(read_config(run_dir), description, run_dir)
    elif init_params is not None:
        source = "The given set of parameters"
        check_tree(init_params, ready.abstract.params, source=source)
    if found and steps[-1] >= cfg.steps:
        ended = _ended(run_dir / CHECKPOINTS, ready)
        if ended is not None:
            return ended
    batches = None if found else check_batches(task.batches(cfg.seed, 0))
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    with (
        locked(run_dir),
        Checkpointer(
            run_dir / CHECKPOINTS,
            keep_last=cfg.keep_last,
            keep_every=cfg.keep_every,
            best_metric=cfg.best_metric,
            best_mode=cfg.best_mode,
            warn=reporter.message,
        ) as checkpointer,
    ):
        if complete_steps(run_dir / CHECKPOINTS) != steps:
            raise UserError(f"Another run has just worked in {run_dir}: start again.")
        with writing(run_dir):
            if jax.process_index() == 0:
                write_json(run_dir / "config.json", description)
        record: dict[str, Any] = {}
        if found:
            state, record = checkpointer.restore(ready.abstract)
            reporter.message(f"Resuming {run_dir} at step {int(state.step)}.")
        else:
            state = ready.initial_state(init_params)
        metrics = record.get("metrics") or {}
        start = int(state.step)
        left = [name for name in record.get("left", ()) if name in cfg.due(start)]
        judged = start - 1 if "evaluate" in left else start
        patience = Patience(cfg, evaluations(run_dir, judged) if cfg.patience else ())
        if (start >= cfg.steps and not left) or patience.over:
            if start < cfg.steps:
                reporter.message(patience.sentence(start))
            return FitResult(state, metrics, interrupted=False)
        iterator = batches if batches is not None else check_batches(task.batches(cfg.seed, start))
        position = go_to(iterator, record.get("data_iter"), run_dir)
        window = Window(record.get("window"))
        with Journal(run_dir, start, reporter, tensorboard=cfg.tensorboard, again=left) as journal:
            profiler = Profiler(cfg.profile, journal.folder / "profile")
            run = _Run(
                ready,
                checkpointer,
                journal,
                profiler,
                description,
                iterator,
                state,
                window,
                patience,
                metrics,
                evaluated=start if metrics else None,
                left=list(left),
                position=position,
            )
            with StopRequest() as stop, explained(), profiler:
                reporter.begin(start, cfg.steps)
                try:
                    return run.go(start, stop)
                except BaseException:
                    run.rescue(start, left)
                    raise


def _check_start(found: bool, resume: Resume, run_dir: Path) -> None:
    if resume is False and found:
        raise UserError(
            f"Expected a run directory without checkpoints, found some in {run_dir}; resume it "
            "or choose another."
        )
    if resume is True and not found:
        raise UserError(f"Expected a checkpoint to resume from, found none in {run_dir}.")


def _ended(directory: Path, ready: Prepared) -> FitResult | None:
    """What a run that has ended left, without a change to its folder, which may be read-only.

    None when something is still to be done.
    """
    with Checkpointer(directory, read_only=True) as checkpointer:
        state, record = checkpointer.restore(ready.abstract)
    if int(state.step) < ready.cfg.steps or record.get("left"):
        return None
    return FitResult(state, record.get("metrics") or {}, interrupted=False)


@dataclasses.dataclass
class _Run:
    """What changes from step to step, and where it is written."""

    ready: Prepared
    checkpointer: Checkpointer
    journal: Journal
    profiler: Profiler
    description: dict[str, Any]
    iterator: BatchIterator
    state: TrainState
    window: Window
    patience: Patience
    metrics: dict[str, float]  # the last evaluation
    evaluated: int | None = None  # the step it followed
    left: list[str] = dataclasses.field(default_factory=list)  # due after the last step, not done
    position: Any = None  # in the data, of the state: the iterator may be ahead when it fails
    pending: deque[Metrics] = dataclasses.field(default_factory=deque)
    hopeless: int = 0  # windows without a finite loss

    def go(self, start: int, stop: StopRequest) -> FitResult:
        """All steps after ``start``."""
        cfg, task, pace = self.ready.cfg, self.ready.task, Pace()
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
                batch = self._advance(done)
            if done == start + 1:  # compilation and the first step do not count for the pace
                self._await(0)
                pace.restart()
            else:
                pace.count(_items(task, batch))
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
        return FitResult(self.state, self.metrics, interrupted=False)

    def _forecast(self, seconds: float) -> None:
        """Say how long a long run will take, before somebody waits for it."""
        if seconds >= _LONG:
            text = f"About {format_seconds(seconds)} of training from here (h:mm:ss)."
            self.journal.reporter.message(text)

    def _advance(self, done: int) -> Batch:
        """Enqueue one step; returns its batch."""
        ready = self.ready
        try:
            batch = next(self.iterator)
        except StopIteration as error:
            raise UserError(
                f"Expected data for {ready.cfg.steps} steps, found none after step {done - 1}."
            ) from error
        position = copy.deepcopy(self.iterator.get_state())
        placed = put_batch(batch, ready.mesh)
        key = jax.random.fold_in(jax.random.key(ready.cfg.seed), 2)  # 0: parameters, 1: steps
        key = jax.random.fold_in(key, done - 1)
        made = ready.task.experience(self.state, placed, key, ready.frozen)
        placed = placed if made is None else put_batch(made, ready.mesh)
        left = ready.cfg.due(done)
        # No call stands between these, so that no Ctrl-C can part them.
        self.state, metrics = ready.step(self.state, placed, ready.frozen)
        self.position, self.left = position, left
        self.pending.append(metrics)
        self._await(ready.cfg.max_in_flight)
        return batch

    def _await(self, allowed: int) -> None:
        """Wait until at most ``allowed`` steps are still running."""
        while len(self.pending) > allowed:
            jax.block_until_ready(self.pending[0])
            self.window.add(self.pending.popleft())

    def _side_work(self, done: int, *, last: bool, stopping: bool) -> bool:
        """Evaluate, draw pictures, save: whatever is due after this step."""
        save = last or stopping or _due(self.ready.cfg.save_every, done)
        if not (self.left or save):
            return False
        self._await(0)
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
            window=self.window.to_dict(),
            metrics=strict(self.metrics) if self.evaluated == int(self.state.step) else None,
            left=self.left,
        )

    def _log(self, done: int, pace: Pace) -> None:
        self._await(0)
        metrics = self.window.means()
        with jax.numpy_dtype_promotion("standard"):
            updates = (done - 1) * self.ready.task.inner_steps
            metrics["learning_rate"] = float(self.ready.rate(updates))
        metrics |= pace.read(self.ready.cfg.steps - done)
        self.journal.train(done, metrics)
        self.window.restart()
        self.left.remove("log")
        self.hopeless = 0 if np.isfinite(metrics.get("loss", 0.0)) else self.hopeless + 1
        if self.hopeless >= _HOPELESS_WINDOWS:
            raise UserError(
                f"Expected a finite loss, found only NaN or infinity in the last {self.hopeless} "
                f"records up to step {done}: check the data and the learning rate."
            )

    def _evaluate(self, done: int) -> bool:
        """Evaluate; True when this is the best so far."""
        found = self.ready.task.evaluate(self.state, self.ready.frozen)
        metrics = numbers(found)
        name = self.ready.cfg.best_metric
        if name is not None and name not in metrics:
            raise UserError(
                f"best_metric {name!r} is not among the metrics of the evaluation: "
                f"{', '.join(metrics)}."
            )
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
