"""Checkpoints of a run directory; the only file that imports Orbax.

``checkpoints/<step>/`` holds the items ``params`` (when there are any), ``ema`` (when an average is
kept), ``state`` (all the rest of the train state), ``config`` (JSON) and ``loop`` (JSON: data
iterator, metrics, checksums).
Orbax writes a step under a temporary name and renames it when it is complete, so a directory
with a plain number is a whole checkpoint. In a bucket, where nothing is renamed, the
file ``commit_success.txt`` comes last.
"""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxcore.errors import UserError, readable
from jaxcore.json_files import read_json
from jaxcore.places import absolute, is_remote, remove_folder, run_place
from jaxcore.train.checksums import checksums, verify
from jaxcore.train.integrity import attempt, check_tree, quiet_orbax, writing
from jaxcore.train.state import TrainState
from jaxcore.typing import Params

CHECKPOINTS = "checkpoints"
_COMMITTED = "commit_success.txt"  # Orbax ends a checkpoint in a bucket with it
_MEETING = 10  # seconds in which all processes of a run that fails must come to its last save
_MAX_RECORD = 2**28  # bytes; one checksum for every part of 10,000 arrays on 500 devices


def complete_steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints in a ``checkpoints`` folder, ascending."""
    if not directory.is_dir():
        return []
    found = (p for p in directory.iterdir() if p.name.isdecimal() and p.is_dir())
    return sorted(int(p.name) for p in found if not is_remote(p) or (p / _COMMITTED).exists())


class _Keep(preservation_policy.PreservationPolicy):
    """The newest ``last`` checkpoints, and the best one."""

    def __init__(self, last: int, best: Callable[[], int | None]) -> None:
        self.last, self.best = last, best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        newest = sorted(c.step for c in checkpoints)[-self.last :]
        return [c.step in newest or c.step == self.best() for c in checkpoints]


class Checkpointer:
    """Saves and restores the checkpoints of one run; use it as a context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        keep_last: int = 3,
        best_metric: str | None = None,
        best_mode: str = "max",
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        """Open (and create) a folder of checkpoints; left-overs of broken saves are removed.

        Args:
          directory: the ``checkpoints`` folder.
          keep_last: how many of the newest to keep, besides the best.
          best_metric: name of the metric that decides which one is best.
          best_mode: "max" or "min".
          warn: receives a sentence when a damaged checkpoint is passed over.

        Raises:
          UserError: the folder cannot be written.
        """
        self.directory = absolute(directory)
        self._sign = 1.0 if best_mode == "max" else -1.0
        self._metric = best_metric
        self._warn = warn
        self._pending: int | None = None
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(quiet_orbax())
        standard, text = ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler
        with writing(self.directory):
            # By us, because Orbax does it in a thread that may be late, and takes a new save along.
            clear_left_overs(self.directory)
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=_Keep(keep_last, lambda: self.best_step),
                    cleanup_tmp_directories=False,
                ),
                item_handlers={
                    "params": standard(),
                    "ema": standard(),
                    "state": standard(),
                    "config": text(),
                    "loop": text(),
                },
            )
        self._scores: dict[int, float] = {}
        for step in self.steps:
            self._note_score(step, read_metrics(self.directory / str(step)))

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints there are, ascending."""
        return sorted(self._manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """Step of the best checkpoint so far, None without scores."""
        alive = {s: v for s, v in self._scores.items() if s in (*self.steps, self._pending)}
        return max(alive, key=lambda s: (self._sign * alive[s], -s)) if alive else None

    def is_better(self, value: float) -> bool:
        """Whether a score would be the best so far."""
        best = self.best_step
        return best is None or self._sign * value > self._sign * self._scores[best]

    def _note_score(self, step: int, metrics: dict[str, Any]) -> None:
        value = metrics.get(self._metric) if self._metric else None
        if isinstance(value, int | float) and np.isfinite(value):
            self._scores[step] = float(value)

    def save(
        self,
        state: TrainState,
        *,
        config: dict[str, Any],
        data_iter: Any = None,
        window: Any = None,
        metrics: dict[str, float] | None = None,
    ) -> int:
        """Start to save; the disk is written in the background.

        Args:
          state: the train state; it may be donated to the next step at once.
          config: JSON-able description of the run.
          data_iter: JSON-able state of the data iterator.
          window: JSON-able running means of the loop.
          metrics: evaluation at exactly this step, if there was one.

        Returns:
          The step.

        Raises:
          UserError: the disk is full or the folder read-only (also for the save before).
        """
        self.wait()
        step = int(state.step)
        trees = _trees(state)
        loop = {
            "data_iter": data_iter,
            "window": window,
            "metrics": metrics or {},
            "crc32": {name: checksums(tree) for name, tree in trees.items()},
        }
        items: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items |= {"config": ocp.args.JsonSave(config), "loop": ocp.args.JsonSave(loop)}
        self._note_score(step, metrics or {})
        self._pending = step
        with writing(self.directory / str(step)):
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        return step

    def all_at(self, step: int) -> bool:
        """Whether all processes want to save this step now; waits for them, but not for long."""
        meet = ocp.multihost.get_barrier_sync_fn()
        try:
            meet(key=f"{self.directory} {step}", timeout_ms=1000 * _MEETING)
        except Exception:  # of the coordination service: too late, or it is gone
            return False
        return True

    def wait(self) -> None:
        """Wait for the save in the background.

        Raises:
          UserError: it failed for want of space or rights.
        """
        where = self.directory / str(self._pending)
        try:
            with writing(where):
                self._manager.wait_until_finished()
        except UserError:
            clear_left_overs(self.directory)  # on a full disk their space is welcome
            raise
        finally:
            self._pending = None

    def restore(
        self, abstract: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a checkpoint onto the devices that ``abstract`` names.

        Args:
          abstract: tree of ``jax.ShapeDtypeStruct`` with the target shardings (any mesh).
          step: which one; None takes the newest that is whole and passes over damaged ones.

        Returns:
          The state and the loop's record (``data_iter``, ``window``, ``metrics``).

        Raises:
          UserError: there is none, all are damaged, or it belongs to another network.
        """
        candidates = [step] if step is not None else self.steps[::-1]
        damaged: list[str] = []
        for candidate in candidates:
            restored, reason = attempt(lambda step=candidate: self._restore(step, abstract))
            if restored is not None:
                return restored
            damaged.append(f"{candidate} ({reason})")
            if len(damaged) < len(candidates):
                self._warn(
                    f"Checkpoint {self.directory / str(candidate)} is damaged "
                    f"({reason}): taking the one before."
                )
        found = f"only damaged ones: {', '.join(damaged)}" if damaged else "none"
        raise UserError(f"Expected a whole checkpoint in {self.directory}, found {found}.")

    def _restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        metadata = self._manager.item_metadata(step)
        trees = _trees(abstract)
        if "params" in trees:
            where = str(self.directory / str(step))
            check_tree(metadata["params"].tree, abstract.params, source=where)
        if not jax.tree.leaves(abstract.opt_state):  # of a task that once had an optimiser
            stored = metadata["state"].tree.get("opt_state")
            trees["state"] = {**trees["state"], "opt_state": _template(stored, None)}
        items: dict[str, Any] = {n: ocp.args.StandardRestore(tree) for n, tree in trees.items()}
        items["loop"] = ocp.args.JsonRestore()
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        _check_record(restored["loop"])
        sums = restored["loop"].get("crc32", {})
        for name in trees:
            verify(restored[name], sums.get(name, {}))
        rest = dict(restored["state"])
        if not jax.tree.leaves(abstract.opt_state):
            rest["opt_state"] = abstract.opt_state
        params = restored.get("params", abstract.params)
        state = TrainState(params=params, ema_params=restored.get("ema"), **rest)
        return state, restored["loop"]

    def delete_after(self, step: int) -> None:
        """Delete the (damaged) checkpoints newer than ``step``, which a resumed run replaces."""
        with writing(self.directory):
            for newer in [s for s in self.steps if s > step]:
                self._manager.delete(newer)
                self._scores.pop(newer, None)

    def close(self) -> None:
        """Wait for the last save and let go of the threads."""
        try:
            self.wait()
        finally:
            self._manager.close()
            self._quiet.close()


def _trees(state: TrainState) -> dict[str, Any]:
    """The items of a checkpoint that hold arrays; Orbax writes no empty trees."""
    rest = {
        "step": state.step,
        "opt_state": state.opt_state,
        "collections": state.collections,
        "rng": state.rng,
        "skipped": state.skipped,
    }
    trees = {"params": state.params, "ema": state.ema_params, "state": rest}
    return {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}


def clear_left_overs(directory: Path) -> None:
    """Remove what saves that were cut off have left; by one process, since all share the folder."""
    if jax.process_index() == 0:
        for half in directory.glob("*.orbax-checkpoint-tmp*"):
            remove_folder(half)


def _read_loop(step_directory: Path) -> dict[str, Any]:
    """The JSON item ``loop`` of one checkpoint; empty when it is unreadable."""
    try:
        path = step_directory / "loop" / "metadata"
        return read_json(path, max_bytes=_MAX_RECORD, finite=False)
    except UserError:
        return {}


def _check_record(loop: Any) -> None:
    """Refuse a record in which something is not what a loop would have written.

    Raises:
      ValueError: names what it is.
    """
    if not isinstance(loop, dict):
        raise ValueError("the record of the loop is not an object with names")
    wrong = [n for n in ("metrics", "window", "crc32") if not isinstance(loop.get(n) or {}, dict)]
    if wrong:
        raise ValueError(f"{wrong[0]} in the record of the loop is not an object with names")


def read_metrics(step_directory: Path) -> dict[str, Any]:
    """Evaluation stored with one checkpoint; empty when there is none or it is unreadable."""
    metrics = _read_loop(step_directory).get("metrics")
    return metrics if isinstance(metrics, dict) else {}


def read_config(run_dir: str | Path) -> dict[str, Any]:
    """The ``config.json`` of a run.

    Raises:
      UserError: the folder is not a run directory, or its file holds something else.
    """
    path = run_place(run_dir) / "config.json"
    if not path.exists():
        raise UserError(f"Expected a run directory with config.json, found none in {run_dir}.")
    config = read_json(path, what="the settings of a run", finite=False)
    for name in ("task_config", "train", "extra"):
        if not isinstance(config.get(name, {}), dict):
            raise UserError(
                f"Expected fields in {name} of {path}, found {readable(repr(config[name]))}."
            )
    return config


def _choose_step(run_dir: Path, which: str | int) -> int:
    directory = run_dir / CHECKPOINTS
    steps = complete_steps(directory)
    if not steps:
        raise UserError(f"Expected a run directory with checkpoints, found none in {run_dir}.")
    if isinstance(which, int):
        if which not in steps:
            raise UserError(
                f"Expected checkpoint {which} in {directory}, found {', '.join(map(str, steps))}."
            )
        return which
    if which not in ("best", "last", "ema"):
        raise UserError(f"Expected which = best, last, ema or a step, found {which!r}.")
    train = read_config(run_dir).get("train", {})
    metric = train.get("best_metric")
    if which != "best" or not isinstance(metric, str):
        return steps[-1]
    sign = 1.0 if train.get("best_mode", "max") == "max" else -1.0
    scores = {s: read_metrics(directory / str(s)).get(metric) for s in steps}
    known = {s: sign * v for s, v in scores.items() if isinstance(v, int | float)}
    return max(known, key=lambda s: (known[s], -s)) if known else steps[-1]


def load_params(
    run_dir: str | Path,
    which: str | int = "best",
    *,
    ema: bool | None = None,
    expected: Any = None,
    sharding: Any = None,
) -> Params:
    """Read parameters out of a run, without knowing its optimiser or its machine.

    Args:
      run_dir: the run directory.
      which: "best" (by the run's metric; the last one when it had none), "last", "ema" (the
        moving average of the last one), or a step.
      ema: whether to take the moving average; None takes it when the run kept one, because
        the evaluations of the run used it.
      expected: tree with ``shape``s to compare with first, e.g. from ``jax.eval_shape``.
      sharding: where to put the leaves: one sharding for all, or a tree of them shaped like the
        parameters. None is the default device.

    Raises:
      UserError: no such checkpoint, a damaged one, or not the expected shapes.
    """
    run_dir = run_place(run_dir)
    step = _choose_step(run_dir, which)
    place = absolute(run_dir / CHECKPOINTS / str(step))
    path = epath.Path(place)
    has_average = (path / "ema").is_dir()
    if (ema or which == "ema") and not has_average:
        raise UserError(f"Expected a moving average in {path}, found a run without one.")
    item = "ema" if has_average and ema is not False else "params"
    if not (path / item).is_dir():
        raise UserError(f"Expected parameters in {path}, found a run without any.")

    def read() -> Params:
        params = _read_item(path / item, expected, sharding)
        verify(params, _read_loop(place).get("crc32", {}).get(item, {}))
        return params

    with quiet_orbax():
        params, reason = attempt(read)
    if params is None:
        steps = ", ".join(map(str, complete_steps(place.parent)))
        raise UserError(
            f"Expected a whole checkpoint in {path}, found a damaged one ({reason}); the run has "
            f"the steps {steps}."
        )
    return params


def _read_item(path: epath.Path, expected: Any, sharding: Any) -> Params:
    """Restore one tree without a template."""
    # The bare handler: a checkpointer would look for the metadata of a whole step in one item.
    reader = ocp.StandardCheckpointHandler()
    try:
        tree = reader.metadata(path).tree
        if expected is not None:
            check_tree(tree, expected, source=str(path.parent))
        target = _template(tree, sharding)
        return reader.restore(path, args=ocp.args.StandardRestore(target))
    finally:
        reader.close()


def _template(tree: Any, sharding: Any) -> Any:
    """What to restore, and where to, from the metadata of a stored tree."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        places = jax.tree.leaves(jax.tree.broadcast(sharding, structure.unflatten(leaves)))
    except ValueError as error:
        raise UserError(f"Expected a sharding for every parameter, found: {error}") from error
    return structure.unflatten(
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
        for leaf, place in zip(leaves, places, strict=True)
    )
