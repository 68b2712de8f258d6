"""What others read out of a run directory: its settings and its parameters."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from jaxcore.errors import UserError, readable
from jaxcore.json_files import read_json
from jaxcore.places import absolute, run_place
from jaxcore.train.checksums import verify
from jaxcore.train.integrity import Damaged, check_tree, quiet_orbax, read_surely
from jaxcore.train.steps import CHECKPOINTS, complete_steps, read_metrics, read_record
from jaxcore.typing import Params


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
        record = read_record(place) if (path / "loop").exists() else {}
        verify(params, record.get("crc32", {}).get(item, {}))
        return params

    with quiet_orbax():
        try:
            return read_surely(read, what=f"The checkpoint {path}")
        except Damaged as error:
            reason = str(error)
    steps = ", ".join(map(str, complete_steps(place.parent)))
    raise UserError(
        f"Expected a whole checkpoint in {path}, found a damaged one ({reason}); the run has "
        f"the steps {steps}."
    )


def _read_item(path: epath.Path, expected: Any, sharding: Any) -> Params:
    """Restore one tree without a template."""
    # The bare handler: a checkpointer would look for the metadata of a whole step in one item.
    reader = ocp.StandardCheckpointHandler()
    try:
        tree = reader.metadata(path).tree
        if expected is not None:
            check_tree(tree, expected, source=str(path.parent))
        target = template(tree, sharding)
        return reader.restore(path, args=ocp.args.StandardRestore(target))
    finally:
        reader.close()


def template(tree: Any, sharding: Any) -> Any:
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
