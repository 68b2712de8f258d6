"""Settings of a run, and the ``config.json`` that says whom a run directory belongs to."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jaxcore
from jaxcore import registry
from jaxcore.errors import UserError
from jaxcore.serial import Count, Index, Serial, from_json
from jaxcore.train.ema import EMAConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.profile import profiled_steps

# These change what a run writes, not what it computes, and may differ when it is resumed.
_FREE = (
    "log_every",
    "eval_every",
    "save_every",
    "sample_every",
    "keep_last",
    "keep_every",
    "best_metric",
    "best_mode",
    "max_in_flight",
    "tensorboard",
    "patience",
    "profile",
    "deterministic",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Serial):
    """Everything about a run that is not the task; ``*_every`` 0 means only at the end.

    >>> cfg = TrainConfig(steps=100, ema=EMAConfig())
    >>> TrainConfig.from_dict(cfg.to_dict()) == cfg
    True
    """

    steps: Count  # updates of the whole run
    seed: Index = 0  # parameters, data order and random numbers of the steps
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    accum_steps: Count = 1  # micro-batches per update
    ema: EMAConfig | None = None  # moving average of the parameters, used for evaluation
    skip_nonfinite: bool = True  # leave out updates that are NaN or infinite, and count them
    remat: bool = False  # recompute cheap activations in the backward pass
    log_every: Index = 50  # steps
    eval_every: Index = 0  # steps
    save_every: Index = 500  # steps
    sample_every: Index = 0  # steps
    keep_last: Count = 3  # newest checkpoints kept, besides the best
    keep_every: Index = 0  # and those whose step is a multiple of it
    best_metric: str | None = None  # a metric of `Task.evaluate` that decides which is best
    best_mode: Literal["max", "min"] = "max"
    max_in_flight: Count = 2  # steps enqueued before the oldest is awaited
    # end the run after so many evaluations without a better best_metric; None never
    patience: Count | None = None
    tensorboard: bool = True  # write event files when the extra `log` is installed
    profile: str | None = None  # FIRST:LAST, steps of which xprof gets a trace, in profile/
    deterministic: bool = False  # the same bits again on a GPU too, slower

    def __post_init__(self) -> None:
        super().__post_init__()
        if problems := self.problems():
            raise UserError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """What does not fit together."""
        found = []
        if self.patience is not None and not (self.best_metric and self.eval_every):
            found.append(
                f"patience must be None without best_metric and eval_every, found {self.patience}"
            )
        if self.profile is not None:
            try:
                profiled_steps(self.profile)
            except UserError as error:
                found.append(str(error).removesuffix("."))
        return found

    def due(self, step: int) -> list[str]:
        """What follows a step, besides a save: "log", "evaluate", "draw" (pictures).

        >>> TrainConfig(steps=100, eval_every=20).due(40)
        ['evaluate']
        """
        every = {"log": self.log_every, "evaluate": self.eval_every, "draw": self.sample_every}
        last = step == self.steps
        return [name for name, n in every.items() if last or (n > 0 and step % n == 0)]


def describe_run(task: Any, cfg: TrainConfig, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``config.json``, as JSON reads it back."""
    description = {
        "jaxcore": jaxcore.__version__,
        "task": task.name,
        "task_config": task.to_dict(),
        "train": cfg.to_dict(),
        "extra": dict(extra),
    }
    try:
        return json.loads(json.dumps(description, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"The settings of a run must be JSON, found: {error}.") from error


def first_difference(stored: Any, current: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Path and the two values of the first field that differs, None when all are equal.

    >>> first_difference({"a": {"b": 1}}, {"a": {"b": 2}})
    ('a.b', 1, 2)
    """
    if isinstance(stored, dict) and isinstance(current, dict):
        for key in [*stored, *(k for k in current if k not in stored)]:
            deeper = f"{path}.{key}" if path else str(key)
            found = first_difference(stored.get(key), current.get(key), deeper)
            if found is not None:
                return found
        return None
    return None if stored == current else (path, stored, current)


def _todays(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored description as this version writes it: fields that came later have defaults."""
    try:
        task = registry.task_class(stored["task"]).from_dict(stored["task_config"])
        return describe_run(task, TrainConfig.from_dict(stored["train"]), stored.get("extra", {}))
    except (UserError, KeyError, TypeError):  # a task of somebody's own, or other fields: compared
        return stored


def check_same_run(stored: Mapping[str, Any], current: Mapping[str, Any], run_dir: Path) -> None:
    """Refuse to go on with a run directory whose settings are others.

    A longer run may go on under a constant learning rate, which does not depend on the length.

    Raises:
      UserError: names the first field that differs, or what in ``stored`` is no setting.
    """
    known = {field.name for field in dataclasses.fields(TrainConfig)}  # later ones are compared
    fields = {name: v for name, v in stored.get("train", {}).items() if name in known}
    from_json(TrainConfig, fields, where="train")
    pair = []
    for config in (_todays(stored), current):
        train = {k: v for k, v in config.get("train", {}).items() if k not in _FREE}
        kept = {key: config.get(key) for key in ("task", "task_config")}
        pair.append({**kept, "train": train})
    old, new = pair[0]["train"], pair[1]["train"]
    constant = new["optim"]["schedule"]["name"] == "constant"
    if constant and old.get("steps", 0) < new["steps"]:
        old["steps"] = new["steps"]
    found = first_difference(*pair)
    if found is not None:
        field, before, now = found
        raise UserError(
            f"The run directory {run_dir} belongs to other settings: {field} was {before!r}, "
            f"now {now!r}; choose another directory or the old settings."
        )
