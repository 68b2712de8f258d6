"""Settings of a run, and the ``config.json`` that says whom a run directory belongs to."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jaxcore
from jaxcore.bounds import Count, Index
from jaxcore.errors import UserError
from jaxcore.serial import Serial
from jaxcore.train.ema import EMAConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.profile import profiled_steps

# These change what a run writes, not what it computes, and may differ when it is resumed.
FREE = (
    "log_every",
    "eval_every",
    "save_every",
    "sample_every",
    "keep_last",
    "keep_every",
    "best_metric",
    "best_mode",
    "max_in_flight",
    "prefetch",
    "tensorboard",
    "max_skipped",
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
    max_skipped: Count = 20  # steps in a row without a finite update that end the run
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
    prefetch: Index = 2  # batches drawn and put on the devices while a step runs; 0 draws none
    # end the run after so many evaluations without a better best_metric; None never
    patience: Count | None = None
    tensorboard: bool = True  # write event files when the extra `log` is installed
    profile: str | None = None  # FIRST:LAST, steps of which xprof gets a trace, in profile/
    deterministic: bool = False  # the same bits again on a GPU too, slower

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


def check_best(name: str | None, names: Sequence[str] | None) -> None:
    """Refuse a ``best_metric`` that no evaluation will have.

    Args:
      name: the metric; None asks for none.
      names: of the metrics; None where they are not known.

    Raises:
      UserError: the name is not among them.

    >>> check_best("psnr", ("psnr", "ssim"))
    """
    if name is not None and names is not None and name not in names:
        raise UserError(
            f"--train.best-metric {name!r} is not among the metrics of the evaluation: "
            f"{', '.join(names) or 'there are none'}."
        )
