"""Checkpoints of a run, written and restored by Orbax.

``checkpoints/<step>/`` holds the items ``params`` (when there are any), ``ema`` (when an average is
kept), ``state`` (all the rest of the train state), ``config`` (JSON) and ``loop`` (JSON, see
`jaxcore.train.steps`).
Orbax writes a step under a temporary name and renames it when it is complete, so a directory
with a plain number is a whole checkpoint. In a bucket, where nothing is renamed, the
file ``commit_success.txt`` comes last.
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxcore.errors import UserError
from jaxcore.places import absolute
from jaxcore.train.checksums import checksums, verify
from jaxcore.train.integrity import Damaged, check_tree, quiet_orbax, read_surely, writing
from jaxcore.train.optim import parameter_path
from jaxcore.train.run_directory import template
from jaxcore.train.state import TrainState
from jaxcore.train.steps import (
    amend_record,
    check_config,
    clear_left_overs,
    complete_steps,
    make_record,
    read_metrics,
    read_record,
    set_aside,
    strangers,
)

_MEETING = 10  # seconds in which all processes of a run that fails must come to its last save


class _Keep(preservation_policy.PreservationPolicy):
    """The newest ``last`` checkpoints, multiples of ``every``, and the best one."""

    def __init__(self, last: int, every: int, best: Callable[[], int | None]) -> None:
        self.last, self.every, self.best = last, every, best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        newest = sorted(c.step for c in checkpoints)[-self.last :]
        kept = (*newest, self.best())
        return [
            c.step in kept or (self.every > 0 and c.step % self.every == 0) for c in checkpoints
        ]


class Checkpointer:
    """Saves and restores the checkpoints of one run; use it as a context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        keep_last: int = 3,
        keep_every: int = 0,
        best_metric: str | None = None,
        best_mode: str = "max",
        warn: Callable[[str], None] = warnings.warn,
        read_only: bool = False,
    ) -> None:
        """Open (and create) a folder of checkpoints; left-overs of broken saves are removed.

        Args:
          directory: the ``checkpoints`` folder.
          keep_last: how many of the newest to keep, besides the best.
          keep_every: keep those of every so many steps, too; 0 for none.
          best_metric: name of the metric that decides which one is best.
          best_mode: "max" or "min".
          warn: receives a sentence when a damaged checkpoint is set aside.
          read_only: only restore; nothing in the folder is made, removed or renamed.

        Raises:
          UserError: the folder cannot be written.
        """
        self.directory = absolute(directory)
        self._sign = 1.0 if best_mode == "max" else -1.0
        self._metric = best_metric
        self._warn, self._read_only = warn, read_only
        self._pending: int | None = None
        self._scores: dict[int, float] = {}
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(quiet_orbax())
        standard, text = ocp.StandardCheckpointHandler, ocp.JsonCheckpointHandler
        with writing(self.directory):
            if not read_only:
                # By us: Orbax does it in a thread that may be late, and takes a new save along.
                clear_left_overs(self.directory)
                self._rename({p: "something else than a folder" for p in strangers(self.directory)})
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=_Keep(keep_last, keep_every, lambda: self.best_step),
                    cleanup_tmp_directories=False,
                    create=not read_only,
                    read_only=read_only,
                ),
                item_handlers={
                    "params": standard(),
                    "ema": standard(),
                    "state": standard(),
                    "config": text(),
                    "loop": text(),
                },
            )
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
        left: Sequence[str] = (),
    ) -> int:
        """Start to save; the disk is written in the background.

        Of a step that is there already only the record is written anew.

        Args:
          state: the train state; it may be donated to the next step at once.
          config: JSON-able description of the run.
          data_iter: JSON-able state of the data iterator.
          window: JSON-able running means of the loop.
          metrics: evaluation at exactly this step, if there was one.
          left: what was due after this step and is still to be done.

        Returns:
          The step.

        Raises:
          UserError: the disk is full or the folder read-only (also for the save before).
        """
        self.wait()
        step = int(state.step)
        fields = {"data_iter": data_iter, "window": window, "metrics": metrics or {}}
        fields["left"] = list(left)
        where = self.directory / str(step)
        if step in self.steps:
            if jax.process_index() == 0:
                with writing(where):
                    amend_record(where, fields)
            self._note_score(step, metrics or {})
            return step
        trees = _trees(state)
        sums = {name: checksums(tree) for name, tree in trees.items()}
        items: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items["config"] = ocp.args.JsonSave(config)
        items["loop"] = ocp.args.JsonSave(make_record(config, sums, fields))
        self._note_score(step, metrics or {})
        self._pending = step
        with writing(where):
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
            self._manager.reload()  # it had counted the step in
            raise
        finally:
            self._pending = None

    def restore(
        self, abstract: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a checkpoint onto the devices that ``abstract`` names.

        Args:
          abstract: tree of ``jax.ShapeDtypeStruct`` with the target shardings (any mesh).
          step: which one; None takes the newest that is whole. Newer ones, which are damaged, are
            set aside by renaming them to ``<step>.damaged``; where all are, nothing is changed.

        Returns:
          The state and the loop's record (``data_iter``, ``window``, ``metrics``, ``left``).

        Raises:
          UserError: there is none, all are damaged, it belongs to another network, or it cannot be
            read now.
        """
        damaged: dict[int, str] = {}
        for candidate in [step] if step is not None else complete_steps(self.directory)[::-1]:
            found, reason = self._agreed(candidate, abstract)
            if found is None:
                damaged[candidate] = reason
                continue
            if damaged and not self._read_only:
                with writing(self.directory):
                    self._rename({self.directory / str(n): why for n, why in damaged.items()})
                    if jax.process_count() > 1:
                        multihost_utils.sync_global_devices("damaged steps are set aside")
                    self._manager.reload()
            return found
        reasons = ", ".join(f"{number} ({reason})" for number, reason in damaged.items())
        found = f"only damaged ones: {reasons}" if damaged else "none"
        raise UserError(f"Expected a whole checkpoint in {self.directory}, found {found}.")

    def _agreed(
        self, step: int, abstract: TrainState
    ) -> tuple[tuple[TrainState, dict[str, Any]] | None, str]:
        """What is in a step, or None and why it is damaged; for all processes alike.

        Raises:
          UserError: a process could not read it now, or it belongs to another network.
        """
        where = self.directory / str(step)
        found, reason, refused = None, "as another process found", None
        try:
            found = read_surely(lambda: _restore(where, abstract), what=f"The checkpoint {where}")
        except Damaged as error:
            reason = str(error)
        except UserError as error:
            refused = error
        worst = 2 if refused else int(found is None)
        if jax.process_count() > 1:
            worst = int(np.max(multihost_utils.process_allgather(np.int32(worst))))
        if worst == 2:
            raise refused or UserError(f"Another process could not read the checkpoint {where}.")
        return None if worst else found, reason

    def _rename(self, damaged: Mapping[Path, str]) -> None:
        """Set damaged steps aside, by one process, and say so."""
        for path, reason in damaged.items():
            if jax.process_index() == 0:
                name = set_aside(path).name
                self._warn(f"The checkpoint {path} is damaged ({reason}): set aside as {name}.")
            if path.name.isdecimal():
                self._scores.pop(int(path.name), None)

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


def _restore(where: Path, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Read one step, without a word to other processes."""
    record = read_record(where)
    check_config(where, record)
    trees, restored = _trees(abstract), {}
    # The bare handler: the manager waits for the other processes, which may have failed.
    reader = ocp.StandardCheckpointHandler()
    try:
        if "params" in trees:
            stored = reader.metadata(epath.Path(where / "params")).tree
            check_tree(stored, abstract.params, source=str(where))
        if not jax.tree.leaves(abstract.opt_state):  # of a task that once had an optimiser
            stored = reader.metadata(epath.Path(where / "state")).tree.get("opt_state")
            trees["state"] = {**trees["state"], "opt_state": template(stored, None)}
        for name, tree in trees.items():
            item = epath.Path(where / name)
            args = ocp.args.StandardRestore(_as_stored(tree, reader.metadata(item).tree))
            found = reader.restore(item, args=args)
            verify(found, record.get("crc32", {}).get(name, {}))
            restored[name] = jax.tree.map(_as_asked, found, tree)
    finally:
        reader.close()
    rest = dict(restored["state"])
    if not jax.tree.leaves(abstract.opt_state):
        rest["opt_state"] = abstract.opt_state
    params = restored.get("params", abstract.params)
    return TrainState(params=params, ema_params=restored.get("ema"), **rest), record


def _as_stored(tree: Any, metadata: Any) -> Any:
    """What to read of a state: numbers as they were written, which is what checksums know.

    Averages and moments of runs of older versions have the type of their parameters.
    """
    leaves = jax.tree_util.tree_leaves_with_path(metadata, is_leaf=lambda x: hasattr(x, "dtype"))
    types = {parameter_path(path): leaf.dtype for path, leaf in leaves}

    def choose(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        stored = types.get(parameter_path(path), leaf.dtype)
        if not (_is_float(stored) and _is_float(leaf.dtype)):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, stored, sharding=leaf.sharding)

    return jax.tree_util.tree_map_with_path(choose, tree)


def _as_asked(leaf: Any, wanted: jax.ShapeDtypeStruct) -> Any:
    return leaf.astype(wanted.dtype) if leaf.dtype != wanted.dtype else leaf


def _is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)
