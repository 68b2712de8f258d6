"""What the steps of a run say of its health: updates that do not happen, losses that jump."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcore.errors import UserError
from jaxcore.train.checksums import first_nonfinite
from jaxcore.typing import Params

_RECENT = 101  # losses that the median is taken over
_ENOUGH = 20  # of them, before anything is called a spike
_DEVIATIONS = 10  # above the median, in robust standard deviations
_SHARE = 0.1  # of the median: what a spike exceeds it by at least
_QUIET = 50  # steps after a spike in which no other is told
_TO_DEVIATION = 1.4826  # from the median absolute deviation to a normal law's standard deviation

Spike = dict[str, float]


class Watch:
    """Looks at loss and gradient of every step; survives a restart.

    An update is lost when its loss or gradient is NaN or infinite, whether it was left out
    (``skip_nonfinite``) or went through. With several updates per step a step is lost when all are.

    >>> watch = Watch(2)
    >>> for step in (1, 2):
    ...     _ = watch.add(step, {"loss": float("nan"), "skipped": step})
    >>> watch.check()
    Traceback (most recent call last):
    jaxcore.errors.UserError: Expected a finite loss and gradient, found NaN or infinity in the \
last 2 steps up to step 2 (loss nan): check the data and the learning rate; a run ends after \
max_skipped such steps in a row.
    """

    def __init__(
        self,
        limit: int,
        *,
        left_out: bool = True,
        inner_steps: int = 1,
        skipped: int = 0,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        """Start, or go on.

        Args:
          limit: lost steps in a row that end a run.
          left_out: whether updates that are not finite are left out (``skip_nonfinite``).
          inner_steps: updates of one step.
          skipped: updates left out so far.
          stored: of `to_dict`, when the run goes on.
        """
        stored = stored or {}
        self.skipped = skipped
        self.in_row: int = stored.get("in_row", 0)
        self._limit, self._inner, self._left_out = limit, inner_steps, left_out
        self._recent: list[float] = list(stored.get("recent", []))
        self._quiet_until: int = stored.get("quiet_until", 0)
        self.said = ""  # of the last lost step: "up to step 9 (loss nan)"
        self._ending = ""  # the same of the step at which the run is to end

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        row = {"in_row": self.in_row, "quiet_until": self._quiet_until}
        return {**row, "recent": list(self._recent)}

    def add(self, step: int, metrics: Mapping[str, Any]) -> Spike | None:
        """Take the metrics of a step that has ended.

        Args:
          step: its number.
          metrics: scalars; ``loss``, ``grad_norm`` and ``skipped`` are looked at, where they are.

        Returns:
          Loss and median, where the loss is a spike: above the median of the last losses by 10
          of their robust standard deviations and by a tenth; at most one in 50 steps.
        """
        named = {"loss": "loss", "grad_norm": "gradient norm"}
        found = {named[n]: float(np.asarray(metrics[n])) for n in named if n in metrics}
        before, self.skipped = self.skipped, int(metrics.get("skipped", self.skipped))
        if self.skipped > before:
            lost = self.skipped - before >= self._inner
        else:
            lost = not all(map(math.isfinite, found.values()))
        self.in_row = self.in_row + 1 if lost else 0
        if lost:
            values = ", ".join(f"{name} {value:g}" for name, value in found.items())
            self.said = f"up to step {step} ({values})"
        if self.in_row >= self._limit and not self._ending:
            self._ending = f"{self.in_row} steps {self.said}"
        loss = found.get("loss", math.nan)
        return self._spike(step, loss) if math.isfinite(loss) else None

    def _spike(self, step: int, loss: float) -> Spike | None:
        recent, spike = self._recent, None
        if len(recent) >= _ENOUGH and step > self._quiet_until:
            median = statistics.median(recent)
            deviation = _TO_DEVIATION * statistics.median(abs(x - median) for x in recent)
            if loss - median > max(_DEVIATIONS * deviation, _SHARE * abs(median)):
                spike, self._quiet_until = {"loss": loss, "median": median}, step + _QUIET
        recent.append(loss)
        del recent[:-_RECENT]
        return spike

    def check(self, params: Params | None = None) -> None:
        """End a run whose updates do not happen, or have made its parameters useless.

        Args:
          params: of now; looked at, by all processes, where the last update was lost and went
            through all the same.

        Raises:
          UserError: so many steps in a row were lost, or parameters are NaN or infinite.
        """
        in_danger = self.in_row and not self._left_out and params is not None
        bad = first_nonfinite(params) if in_danger else None
        if bad is not None:
            raise UserError(
                f"Expected finite parameters, found NaN or infinity in {bad} {self.said}: check "
                "the data and the learning rate, or set skip_nonfinite."
            )
        if self._ending:
            raise UserError(
                f"Expected a finite loss and gradient, found NaN or infinity in the last "
                f"{self._ending}: check the data and the learning rate; a run ends after "
                "max_skipped such steps in a row."
            )


def outcome(skipped: int, updates: int) -> str:
    """What to say of updates that were left out, at the end of a run; nothing without any.

    Args:
      skipped: updates left out.
      updates: of the whole run.

    Raises:
      UserError: all were left out, which is no success.

    >>> outcome(3, 10)
    '3 of 10 updates were left out: loss or gradient were not finite.'
    """
    if 0 < updates <= skipped:
        raise UserError(
            f"Expected updates with a finite loss and gradient, found NaN or infinity in all "
            f"{updates}, so that nothing was learned: check the data and the learning rate."
        )
    if not skipped:
        return ""
    return f"{skipped} of {updates} updates were left out: loss or gradient were not finite."
