"""The one training loop: a task, a config and a run directory.

What a run starts from, in this order: its own checkpoint, when the run directory has one (and
``resume`` is not False); else ``init_params``, for fine-tuning; else ``task.init_params``.

Runs are exact: interrupted by a signal or killed, and resumed, a run on one device ends with
the same parameters to the last bit as one that was never stopped, because the checkpoint holds
the parameters, the optimiser, the key, the position in the data and the running means.
"""

import base64
import dataclasses
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcore.atomic import write_json
from jaxcore.errors import UserError
from jaxcore.parallel import compile_step, put_batch, replicated, state_shardings
from jaxcore.train.checkpoint import CHECKPOINTS, Checkpointer, complete_steps, read_config
from jaxcore.train.config import TrainConfig, check_same_run, describe_run
from jaxcore.train.integrity import check_tree, writing
from jaxcore.train.interrupt import EXIT_INTERRUPTED, StopRequest
from jaxcore.train.logging import Pace, Reporter, default_reporter
from jaxcore.train.optim import make_optimiser
from jaxcore.train.records import MetricsFile, TensorBoard, strict, write_sample
from jaxcore.train.schedules import make_schedule
from jaxcore.train.state import TrainState, create_state
from jaxcore.train.step import make_train_step
from jaxcore.train.task import Hooks, Task
from jaxcore.train.window import Window
from jaxcore.typing import Params

__all__ = ["EXIT_INTERRUPTED", "FitResult", "TrainConfig", "fit"]

Resume = Literal["auto"] | bool
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
    """Train a task.

    Args:
      task: what is trained, see `jaxcore.train.task.Task`.
      cfg: how.
      run_dir: receives ``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``samples/`` and
        ``tensorboard/``; shared by all processes.
      mesh: rows of a batch are split over its axes data and fsdp, big parameters over fsdp;
        None trains on the default device.
      resume: "auto" goes on from the newest whole checkpoint if there is one, True demands one,
        False demands that there is none.
      reporter: who is told; None is a progress bar on a terminal and lines elsewhere.
      init_params: parameters to start from (fine-tuning) when there is nothing to resume.
      extra_config: further JSON to record in ``config.json``.

    Returns:
      The final state; ``interrupted`` when SIGTERM or Ctrl-C ended the run early, in which case
      a program should exit with `EXIT_INTERRUPTED`.

    Raises:
      UserError: other settings than those of the run directory, parameters that do not fit, a
        full disk, a folder that cannot be written, a loss that is never finite.
    """
    run_dir = Path(run_dir)
    reporter = reporter or default_reporter()
    description = describe_run(task, cfg, extra_config or {})
    found = bool(complete_steps(run_dir / CHECKPOINTS))
    if resume is False and found:
        raise UserError(
            f"Expected a run directory without checkpoints, found some in {run_dir}; resume it "
            "or choose another."
        )
    if resume is True and not found:
        raise UserError(f"Expected a checkpoint to resume from, found none in {run_dir}.")
    if found:
        check_same_run(read_config(run_dir), description, run_dir)
    elif init_params is not None:
        shapes = jax.eval_shape(task.init_params, jax.random.key(cfg.seed))
        check_tree(init_params, shapes, source="The given set of parameters")
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            write_json(run_dir / "config.json", description)
    checkpointer = Checkpointer(
        run_dir / CHECKPOINTS,
        keep_last=cfg.keep_last,
        best_metric=cfg.best_metric,
        best_mode=cfg.best_mode,
        warn=reporter.message,
    )
    with checkpointer:
        run = _Run(task, cfg, run_dir, mesh, reporter, checkpointer, description)
        return run.go(found, init_params)


def _encode(state: Any) -> Any:
    """Position of an iterator as JSON."""
    return {"bytes": base64.b64encode(state).decode()} if isinstance(state, bytes) else state


def _decode(state: Any) -> Any:
    if isinstance(state, dict) and set(state) == {"bytes"}:
        return base64.b64decode(state["bytes"])
    return state


class _Run:
    """One call of `fit`: the objects it shares between its phases."""

    def __init__(
        self,
        task: Task,
        cfg: TrainConfig,
        run_dir: Path,
        mesh: Mesh | None,
        reporter: Reporter,
        checkpointer: Checkpointer,
        description: dict[str, Any],
    ) -> None:
        self.task, self.cfg, self.run_dir, self.mesh = task, cfg, run_dir, mesh
        self.reporter, self.checkpointer, self.description = reporter, checkpointer, description
        self.hooks = Hooks(task)
        root = jax.random.key(cfg.seed)
        self._init_key, self._step_key = jax.random.fold_in(root, 0), jax.random.fold_in(root, 1)
        shapes = jax.eval_shape(task.init_params, self._init_key)
        trainable = self.hooks.trainable(shapes)
        self.tx = make_optimiser(cfg.optim, cfg.steps, trainable)
        self.rate = make_schedule(cfg.optim.schedule, cfg.optim.learning_rate, cfg.steps)
        self.abstract = self._place(jax.eval_shape(self._create, shapes))
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
        frozen = self.hooks.frozen()
        everywhere = None if mesh is None else replicated(mesh)
        self.frozen = () if frozen is None else (jax.device_put(frozen, everywhere),)
        self.step_fn = compile_step(
            self._step(trainable),
            mesh,
            state_sharding=shardings if mesh is not None else None,
            frozen=bool(self.frozen),
        )
        self.metrics: dict[str, float] = {}
        self.window = Window()
        self.pending: deque[dict[str, jax.Array]] = deque()
        self.hopeless = 0

    def _step(self, trainable: Any) -> Any:
        cfg = self.cfg
        if self.hooks.make_step is not None:
            return self.hooks.make_step(self.mesh)
        return make_train_step(
            self.task.loss, self.tx, accum_steps=cfg.accum_steps, ema=cfg.ema,
            skip_nonfinite=cfg.skip_nonfinite, remat=cfg.remat, trainable=trainable,
        )  # fmt: skip

    def _create(self, params: Params) -> TrainState:
        ema, extra = self.cfg.ema is not None, self.hooks.collections()
        return create_state(params, self.tx, key=self._step_key, ema=ema, collections=extra)

    def _place(self, abstract: TrainState) -> TrainState:
        """Add the target sharding to every abstract leaf."""
        if self.mesh is None:
            here = jnp.zeros(()).sharding
            shardings = jax.tree.map(lambda _: here, abstract)
        else:
            shardings = state_shardings(abstract, self.mesh, self.hooks.sharding_rules)
        return jax.tree.map(
            lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
            abstract,
            shardings,
        )

    def _initial_state(self, init_params: Params | None) -> TrainState:
        if init_params is not None:
            # Copies, since the first step takes their memory.
            params = jax.tree.map(
                lambda want, p: jnp.array(p, dtype=want.dtype), self.abstract.params, init_params
            )
        elif self.mesh is None:
            params = self.task.init_params(self._init_key)
        else:  # born sharded: no device ever holds all of a big network
            shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
            create = jax.jit(
                lambda key: self._create(self.task.init_params(key)), out_shardings=shardings
            )
            return create(self._init_key)
        # Placed as a restored state is: one compiled step, also in a cache on disk, for both.
        placed = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
        return jax.device_put(self._create(params), placed)

    def go(self, found: bool, init_params: Params | None) -> FitResult:
        """Restore or create the state, then train."""
        record: dict[str, Any] = {}
        if found:
            self.state, record = self.checkpointer.restore(self.abstract)
        else:
            self.state = self._initial_state(init_params)
        self.start = int(self.state.step)
        if found:
            self.checkpointer.delete_after(self.start)
            self.reporter.message(f"Resuming {self.run_dir} at step {self.start}.")
        self.metrics = record.get("metrics") or {}
        self.window = Window(record.get("window"))
        if self.start >= self.cfg.steps:
            return FitResult(self.state, self.metrics, interrupted=False)
        self.iterator = self.task.batches(self.cfg.seed, self.start)
        if record.get("data_iter") is not None:
            self.iterator.set_state(_decode(record["data_iter"]))
        first = jax.process_index() == 0
        with writing(self.run_dir):
            self.file = (
                MetricsFile(self.run_dir / "metrics.jsonl", keep_to=self.start) if first else None
            )
            self.board = TensorBoard(
                self.run_dir / "tensorboard",
                start=self.start,
                enabled=first and self.cfg.tensorboard,
            )
        try:
            with StopRequest() as stop:
                self.reporter.begin(self.start, self.cfg.steps)
                return FitResult(*self._train(stop))
        finally:
            self.reporter.end()
            self.board.close()
            if self.file is not None:
                self.file.close()

    def _train(self, stop: StopRequest) -> tuple[TrainState, dict[str, float], bool]:
        cfg, pace = self.cfg, Pace()
        for done in range(self.start + 1, cfg.steps + 1):
            try:
                batch = next(self.iterator)
            except StopIteration as error:
                raise UserError(
                    f"Expected data for {cfg.steps} steps, found none after step {done - 1}."
                ) from error
            placed = put_batch(batch, self.mesh)
            self.state, metrics = self.step_fn(self.state, placed, *self.frozen)
            self.pending.append(metrics)
            self._await(cfg.max_in_flight)
            if done == self.start + 1:  # compilation and the first step do not count for the pace
                self._await(0)
                pace.restart()
            else:
                pace.count(self.hooks.items(batch))
            self.reporter.advance(done)
            last = done == cfg.steps
            if last or _due(cfg.log_every, done):
                self._await(0)
                self._log(done, pace)
                last = last or self.hooks.finished(self.state.params)
            stopping = stop.asked(done) and not last
            began = pace.now()
            if self._side_work(done, last=last, stopping=stopping):
                pace.pause(began)
            if stopping:
                self.checkpointer.wait()
                self.reporter.message(f"Asked to stop: saved step {done} of {cfg.steps}.")
                return self.state, self.metrics, True
            if last:
                break
        self.checkpointer.wait()
        return self.state, self.metrics, False

    def _await(self, allowed: int) -> None:
        """Wait until at most ``allowed`` steps are still running."""
        while len(self.pending) > allowed:
            self.window.add(jax.block_until_ready(self.pending.popleft()))

    def _side_work(self, done: int, *, last: bool, stopping: bool) -> bool:
        """Evaluate, draw samples, save: whatever is due after this step."""
        cfg = self.cfg
        evaluate = last or (_due(cfg.eval_every, done) and not stopping)
        sample = last or (_due(cfg.sample_every, done) and not stopping)
        save = last or stopping or _due(cfg.save_every, done)
        if not (evaluate or save or (sample and self.hooks.samples)):
            return False
        self._await(0)
        try:
            if evaluate:
                save |= self._evaluate(done)
            if sample:
                self._sample(done)
        except UserError:
            if jax.process_count() == 1:  # others may not have failed, and a save needs all
                self._save()
                self.checkpointer.wait()
                self.reporter.message(f"Saved step {done}, whose evaluation failed.")
            raise
        if save:
            self._save(strict(self.metrics) if evaluate else None)
        return True

    def _save(self, metrics: dict[str, float] | None = None) -> None:
        self.checkpointer.save(
            self.state,
            config=self.description,
            data_iter=_encode(self.iterator.get_state()),
            window=self.window.to_dict(),
            metrics=metrics,
        )

    def _log(self, done: int, pace: Pace) -> None:
        metrics = self.window.means()
        with jax.numpy_dtype_promotion("standard"):
            metrics["learning_rate"] = float(self.rate(done - 1))
        metrics |= pace.read(self.cfg.steps - done)
        self._write("train", done, metrics)
        self.reporter.train(done, metrics)
        self.hopeless = 0 if np.isfinite(metrics.get("loss", 0.0)) else self.hopeless + 1
        if self.hopeless >= _HOPELESS_WINDOWS:
            raise UserError(
                f"Expected a finite loss, found only NaN or infinity in the last {self.hopeless} "
                f"records up to step {done}: check the data and the learning rate."
            )

    def _evaluate(self, done: int) -> bool:
        """Evaluate; True when this is the best so far."""
        state, name = self.state, self.cfg.best_metric
        params = state.params if state.ema_params is None else state.ema_params
        self.metrics = {k: float(v) for k, v in self.task.evaluate(params).items()}
        self._write("eval", done, self.metrics)
        self.reporter.evaluation(done, self.metrics)
        if name is None:
            return False
        if name not in self.metrics:
            raise UserError(
                f"best_metric {name!r} is not among the metrics of the evaluation: "
                f"{', '.join(self.metrics)}."
            )
        return bool(np.isfinite(self.metrics[name])) and self.checkpointer.is_better(
            self.metrics[name]
        )

    def _sample(self, done: int) -> None:
        if self.hooks.samples is None:
            return
        state = self.state
        params = state.params if state.ema_params is None else state.ema_params
        pictures = self.hooks.samples(params)  # by all processes: it may hold collectives
        if jax.process_index() != 0:
            return
        for name, picture in pictures.items():
            path = self.run_dir / "samples" / f"step_{done:07d}_{name}.png"
            with writing(path):
                write_sample(path, picture)
                self.board.picture(name, done, np.asarray(picture))

    def _write(self, kind: str, step: int, metrics: Mapping[str, Any]) -> None:
        if self.file is not None:
            with writing(self.run_dir / "metrics.jsonl"):
                self.file.write(kind, step, metrics)
                self.board.scalars(kind, step, metrics)


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
