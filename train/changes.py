"""What of a run's settings may be others when it goes on, and the record of what was changed.

Three kinds of settings: those that decide what is written (free), those that decide how it goes on
(by request: length, learning rate and its schedule, decay, clipping, micro-batches, what evaluation
alone reads) and those that decide what the state means (network, data, seed, kind of optimiser,
groups, whether there is an average), which never change.

From the newest checkpoint on, update ``n`` has the rate that the new settings give to update ``n``
of a run of the new length: the rate of a finished cosine rises again when the run goes on for
longer. A longer run under a constant rate needs no request.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcore import registry
from jaxcore.errors import UserError, readable
from jaxcore.serial import from_json
from jaxcore.train.config import FREE, TrainConfig
from jaxcore.train.optim import OptimConfig

# What may change by request: the state means the same before and after, whatever their values.
_BY_REQUEST = (
    "train.steps",
    "train.accum_steps",
    "train.skip_nonfinite",
    "train.remat",
    "train.optim.learning_rate",
    "train.optim.schedule",
    "train.optim.weight_decay",
    "train.optim.decay_all",
    "train.optim.clip_norm",
)
_OF_GROUPS = ("learning_rate", "weight_decay")  # of an optimiser group, by request too
_FLAG = "change_settings, on the command line --change-settings"


class Change(NamedTuple):
    """A setting that is another now."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        before, after = readable(repr(self.before)), readable(repr(self.after))
        return f"{self.field} was {before}, now {after}"


def differences(stored: Any, current: Any, path: str = "") -> list[Change]:
    """All fields of nested JSON that differ.

    >>> [str(one) for one in differences({"a": {"b": 1, "c": [2]}}, {"a": {"b": 3, "c": [2]}})]
    ['a.b was 1, now 3']
    """
    if isinstance(stored, dict) and isinstance(current, dict):
        keys = [*stored, *(key for key in current if key not in stored)]
        pairs = [(key, stored.get(key), current.get(key)) for key in keys]
    elif _objects(stored) and _objects(current) and len(stored) == len(current):
        pairs = [(i, *both) for i, both in enumerate(zip(stored, current, strict=True))]
    else:
        return [] if stored == current else [Change(path, stored, current)]
    out = []
    for key, before, after in pairs:
        out += differences(before, after, f"{path}.{key}" if path else str(key))
    return out


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) for x in value)


def _todays(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored description as this version writes it: fields that came later have defaults."""
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    train = stored.get("train", {})
    fields = {name: value for name, value in train.items() if name in known}
    others = {name: value for name, value in train.items() if name not in known}
    out = {
        "task": stored.get("task"),
        "task_config": stored.get("task_config"),
        "train": from_json(TrainConfig, fields, where="train").to_dict() | others,
    }
    try:
        task = registry.task_class(stored["task"]).from_dict(stored["task_config"])
        return {**out, "task_config": task.to_dict()}
    except (UserError, KeyError, TypeError):  # a task of somebody's own, or other fields: compared
        return out


def inherited(stored: Mapping[str, Any], cfg: TrainConfig) -> TrainConfig:
    """``cfg`` with the old meaning of settings for which an older run had no field.

    >>> old = TrainConfig(steps=1, optim=OptimConfig(weight_decay=0.1)).to_dict()
    >>> del old["optim"]["decay_all"]  # then everything decayed
    >>> inherited({"train": old}, TrainConfig.from_dict(old)).optim.decay_all
    True
    """
    optim = stored.get("train", {}).get("optim")
    if not isinstance(optim, dict) or "decay_all" in optim:
        return cfg
    decay_all = OptimConfig.migrate(optim).get("decay_all", cfg.optim.decay_all)
    return dataclasses.replace(cfg, optim=dataclasses.replace(cfg.optim, decay_all=decay_all))


def _by_request(field: str, changeable: Sequence[str]) -> bool:
    of_task = tuple(f"task_config.{name}" for name in changeable)
    if any(field == one or field.startswith(f"{one}.") for one in (*_BY_REQUEST, *of_task)):
        return True
    path, _, name = field.rpartition(".")
    return path.startswith("train.optim.groups.") and name in _OF_GROUPS


def check_same_run(
    stored: Mapping[str, Any],
    current: Mapping[str, Any],
    run_dir: Path,
    *,
    change: bool = False,
    changeable: Sequence[str] = (),
    done: int = 0,
) -> list[Change]:
    """Refuse to go on with a run directory whose settings are others.

    A longer run may go on under a constant learning rate, which does not depend on the length,
    without being asked for.

    Args:
      stored: the content of ``config.json``.
      current: of the run that shall go on, by `jaxcore.train.config.describe_run`.
      run_dir: for messages.
      change: whether the settings that may change by request shall.
      changeable: fields of the task among them, `jaxcore.train.task.Task.changeable`.
      done: steps of the newest checkpoint.

    Returns:
      What is changed.

    Raises:
      UserError: names all fields that must not differ, or what in ``stored`` is no setting.
    """
    old = _todays(stored)
    found = differences(old, {name: current.get(name) for name in old})
    free = {f"train.{name}" for name in FREE}
    constant = current["train"]["optim"]["schedule"]["name"] == "constant"
    asked: list[Change] = []
    refused: list[Change] = []
    for one in found:
        if one.field in free:
            continue
        if one.field == "train.steps" and one.after > one.before and constant:
            continue
        (asked if _by_request(one.field, changeable) else refused).append(one)
    reasons = []
    if refused:
        reasons.append(
            f"{_list(refused)} (the state depends on it: choose another directory or the old "
            "settings)"
        )
    if asked and not change:
        reasons.append(f"{_list(asked)} (to go on with what is new, ask for {_FLAG})")
    if reasons:
        text = "; ".join(reasons)
        raise UserError(f"The run directory {run_dir} belongs to other settings: {text}.")
    if current["train"]["steps"] < done:
        raise UserError(
            f"Expected --train.steps of at least {done}, which are done in {run_dir}, found "
            f"{current['train']['steps']}."
        )
    return found


def record_of(stored: Mapping[str, Any], step: int, changes: Sequence[Change]) -> dict[str, Any]:
    """What ``config.json`` says of changes from ``step`` on, those before among them.

    >>> record_of({"changes": [{"step": 4}]}, 8, [Change("a", 1, 2)])
    {'changes': [{'step': 4}, {'step': 8, 'field': 'a', 'before': 1, 'after': 2}]}
    """
    before = stored.get("changes")
    now = [{"step": step, **one._asdict()} for one in changes]
    both = [*(before if isinstance(before, list) else ()), *now]
    return {"changes": both} if both else {}


def _list(found: Sequence[Change]) -> str:
    return ", ".join(map(str, found))
