"""The one training loop: a task, a config and a run directory.

What a run starts from, in this order: its own checkpoint, when the run directory has one (and
``resume`` is not False); else ``init_params``, for fine-tuning; else ``task.init_state``.

Runs are exact: interrupted by a signal or killed, and resumed, a run on one device ends with
the same parameters to the last bit as one that was never stopped, because the checkpoint holds
the parameters, the optimiser, the key, the position in the data and the running means.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from jaxcore.atomic import write_json
from jaxcore.errors import UserError
from jaxcore.parallel import explained, put_batch
from jaxcore.places import run_place
from jaxcore.train.changes import check_same_run, inherited, record_of
from jaxcore.train.checkpoint import Checkpointer
from jaxcore.train.config import TrainConfig, check_best, describe_run
from jaxcore.train.contract import check_batches
from jaxcore.train.feed import Feed
from jaxcore.train.integrity import check_tree, writing
from jaxcore.train.interrupt import EXIT_INTERRUPTED, StopRequest
from jaxcore.train.journal import Journal
from jaxcore.train.lock import locked
from jaxcore.train.logging import Reporter, default_reporter
from jaxcore.train.patience import Patience
from jaxcore.train.position import go_to
from jaxcore.train.prepare import Prepared, as_stored, as_wanted, prepare
from jaxcore.train.profile import Profiler
from jaxcore.train.records import evaluations
from jaxcore.train.run import FitResult, Run
from jaxcore.train.run_directory import read_config
from jaxcore.train.schedules import check_length
from jaxcore.train.state import TrainState
from jaxcore.train.steps import CHECKPOINTS, complete_steps
from jaxcore.train.task import Task
from jaxcore.train.watch import Watch, outcome
from jaxcore.train.window import Window
from jaxcore.typing import Params

__all__ = ["EXIT_INTERRUPTED", "FitResult", "TrainConfig", "fit"]

Resume = Literal["auto"] | bool


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
    change_settings: bool = False,
) -> FitResult:
    """Run a task, step by step.

    Args:
      task: what is trained, see `jaxcore.train.task.GradientTask`.
      cfg: how.
      run_dir: receives ``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``samples/`` and
        ``tensorboard/``; shared by all processes. A folder, or ``gs://bucket/folder``.
      mesh: rows of a batch are split over its axes dcn, data and fsdp, big parameters over fsdp;
        None trains on the default device.
      resume: "auto" goes on from the newest whole checkpoint if there is one, True demands one,
        False demands that there is none.
      reporter: receives the progress; None is a bar on a terminal and lines elsewhere.
      init_params: parameters to start from (fine-tuning) when there is nothing to resume.
      extra_config: further JSON to record in ``config.json``.
      change_settings: go on with other settings than the run directory has, as far as
        `jaxcore.train.changes` allows; ``config.json`` lists what was changed at which step.

    Returns:
      The final state; ``interrupted`` when SIGTERM or Ctrl-C ended the run early, in which case
      a program should exit with `EXIT_INTERRUPTED`.

    Raises:
      UserError: other settings than those of the run directory, parameters that do not fit, a
        full disk, a folder that cannot be written, `TrainConfig.max_skipped` steps in a row without
        a finite loss and gradient, or no other in the whole run.
    """
    run_dir, reporter = run_place(run_dir), reporter or default_reporter(task.items_name)
    steps = complete_steps(run_dir / CHECKPOINTS)
    found = bool(steps)
    _check_start(found, resume, run_dir)
    stored = read_config(run_dir) if found else {}
    ready = prepare(task, inherited(stored, cfg), mesh)
    cfg = ready.cfg
    description = describe_run(task, cfg, {**task.about(), **(extra_config or {})})
    abstract, changes = ready.abstract, []
    if found:
        options = {"change": change_settings, "changeable": task.changeable, "done": steps[-1]}
        changes = check_same_run(stored, description, run_dir, **options)
        if any(one.field.startswith("train.optim") for one in changes):
            abstract = as_stored(ready, TrainConfig.from_dict(stored["train"]))
    if not found or change_settings:
        check_length(cfg.optim.schedule, cfg.steps * task.inner_steps)
    check_best(cfg.best_metric, task.metric_names())
    if not found and init_params is not None:
        source = "The given set of parameters"
        check_tree(init_params, ready.abstract.params, source=source)
    if found and steps[-1] >= cfg.steps:
        ended = _ended(run_dir / CHECKPOINTS, ready, abstract)
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
        record: dict[str, Any] = {}
        if found:
            state, record = checkpointer.restore(abstract)
            state = as_wanted(state, ready)
            reporter.message(f"Resuming {run_dir} at step {int(state.step)}.")
        else:
            state = ready.initial_state(init_params)
        metrics = record.get("metrics") or {}
        start = int(state.step)
        description |= record_of(stored, start, changes)
        with writing(run_dir):
            if jax.process_index() == 0:
                write_json(run_dir / "config.json", description)
        skipped = int(state.skipped)
        left = [name for name in record.get("left", ()) if name in cfg.due(start)]
        judged = start - 1 if "evaluate" in left else start
        patience = Patience(cfg, evaluations(run_dir, judged) if cfg.patience else ())
        if (start >= cfg.steps and not left) or patience.over:
            if start < cfg.steps:
                reporter.message(patience.sentence(start))
            outcome(skipped, start * task.inner_steps)
            return FitResult(state, metrics, interrupted=False)
        if ready.groups:
            reporter.message(ready.groups)
        if cfg.best_metric and task.metric_names() is None:
            names = metrics or task.evaluate(state, ready.frozen)
            check_best(cfg.best_metric, tuple(names))
        iterator = batches if batches is not None else check_batches(task.batches(cfg.seed, start))
        position = go_to(iterator, record.get("data_iter"), run_dir)
        window = Window(record.get("window"))
        watch = Watch(
            cfg.max_skipped,
            left_out=cfg.skip_nonfinite,
            inner_steps=task.inner_steps,
            skipped=skipped,
            stored=(record.get("window") or {}).get("watch"),
        )
        with Journal(run_dir, start, reporter, tensorboard=cfg.tensorboard, again=left) as journal:
            place = functools.partial(put_batch, mesh=mesh)
            feed = Feed(iterator, place, ahead=cfg.prefetch, count=cfg.steps - start)
            profiler = Profiler(cfg.profile, journal.folder / "profile")
            run = Run(
                ready,
                checkpointer,
                journal,
                profiler,
                description,
                feed,
                state,
                window,
                watch,
                patience,
                metrics,
                evaluated=start if metrics else None,
                left=list(left),
                position=position,
            )
            with StopRequest() as stop, feed, profiler:
                reporter.begin(start, cfg.steps)
                try:
                    with explained():
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


def _ended(directory: Path, ready: Prepared, abstract: TrainState) -> FitResult | None:
    """What a run that has ended left, without a change to its folder, which may be read-only.

    None when something is still to be done.
    """
    with Checkpointer(directory, read_only=True) as checkpointer:
        state, record = checkpointer.restore(abstract)
    if int(state.step) < ready.cfg.steps or record.get("left"):
        return None
    outcome(int(state.skipped), int(state.step) * ready.task.inner_steps)
    return FitResult(as_wanted(state, ready), record.get("metrics") or {}, interrupted=False)
