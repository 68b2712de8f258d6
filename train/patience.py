"""When a run that no longer gets better ends."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from jaxcore.train.config import TrainConfig


class Patience:
    """Counts evaluations since the best one; asks for the end after ``TrainConfig.patience``.

    >>> cfg = TrainConfig(steps=9, eval_every=1, best_metric="psnr", patience=2)
    >>> patience = Patience(cfg, [{"psnr": 20.0}, {"psnr": 21.0}, {"psnr": 20.5}])
    >>> patience.over
    False
    >>> patience.note({"psnr": 21.0})
    >>> patience.over
    True
    """

    def __init__(self, cfg: TrainConfig, evaluations: Iterable[Mapping[str, Any]] = ()) -> None:
        """Begin with the evaluations there were, in their order."""
        self._cfg = cfg
        self._best = -math.inf
        self._since = 0
        for metrics in evaluations:
            self.note(metrics)

    def note(self, metrics: Mapping[str, Any]) -> None:
        """One more evaluation; a NaN is not better than anything."""
        value = metrics.get(self._cfg.best_metric or "")
        sign = 1.0 if self._cfg.best_mode == "max" else -1.0
        if isinstance(value, int | float) and sign * value > self._best:
            self._best, self._since = sign * value, 0
        else:
            self._since += 1

    @property
    def over(self) -> bool:
        """Whether to end."""
        return self._cfg.patience is not None and self._since >= self._cfg.patience

    def sentence(self, step: int) -> str:
        """Why the run ended."""
        return (
            f"Stopped at step {step} of {self._cfg.steps}: no better {self._cfg.best_metric} in "
            f"{self._since} evaluations (patience)."
        )
