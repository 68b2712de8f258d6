"""What inverse-probability weights do: how unequal they are, how alike they make the arms."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError
from jaxcore.estimators import weight_plots
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import frame_from_rows
from jaxcore.estimators.overlap import effective_size


@dataclasses.dataclass(frozen=True)
class Arm:
    """Units with one value of the treatment (or the instrument)."""

    name: str
    before: Float[np.ndarray, " n"]  # observation weights, zero outside the arm
    after: Float[np.ndarray, " n"]  # with the inverse probabilities

    @property
    def weights(self) -> np.ndarray:
        """Of the units of the arm, with mean one."""
        w = self.after[self.before > 0]
        return w / np.mean(w)

    @property
    def effective(self) -> float:
        """Units of equal weight that would be as precise."""
        return effective_size(self.after)

    @property
    def units(self) -> int:
        """Units of the arm."""
        return int(np.sum(self.before > 0))


def arms_of(
    sample: Sample,
    values: np.ndarray,
    named: Sequence[str],
    chances: Float[np.ndarray, " n"],
    target: Float[np.ndarray, " n"] | None = None,
) -> tuple[Arm, ...]:
    """The arms 0, 1, ... with the weights that make each look like everybody.

    Args:
      sample: the data.
      values: number of the arm of each unit.
      named: names of the arms.
      chances: probability of the own arm.
      target: of the units, if they are to look like others than everybody.
    """
    w = np.ones(sample.n) if sample.weights is None else sample.weights
    after = w / chances if target is None else w * target / chances
    return tuple(
        Arm(name, w * (values == place), after * (values == place))
        for place, name in enumerate(named)
    )


def differences(
    X: Float[np.ndarray, "n p"], covariates: Sequence[str], arms: Sequence[Arm]
) -> list[dict[str, Any]]:
    """Standardised differences of the covariates' means, of the two arms that differ most.

    Divided by the root of the mean variance within the arms, before weighting and after alike.
    Missing values are left out.

    >>> one, other = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0, 1.0])
    >>> arms = [Arm("0", one, one), Arm("1", other, other * [1, 1, 2, 1])]
    >>> rows = differences(np.array([[0.0], [2.0], [1.0], [3.0]]), ["x"], arms)
    >>> rows[0]["covariate"], rows[0]["before"], round(rows[0]["after"], 3)
    ('x', 1.0, 0.667)
    """
    rows = []
    for j, name in enumerate(covariates):
        x, seen = np.nan_to_num(X[:, j]), np.isfinite(X[:, j])

        def mean(values: np.ndarray, w: np.ndarray, seen: np.ndarray = seen) -> float:
            mass = np.sum(w * seen)
            return float(np.sum(w * seen * values) / mass) if mass > 0 else np.nan

        spread = [mean((x - mean(x, a.before)) ** 2, a.before) for a in arms]
        scale = np.sqrt(np.mean(spread))
        row: dict[str, Any] = {"covariate": name}
        for when in ("before", "after"):
            means = [mean(x, getattr(a, when)) for a in arms]
            gap = max(means) - min(means)
            row[when] = float(gap / scale) if scale > 0 else float(np.where(gap > 0, np.inf, 0.0))
        rows.append(row)
    return rows


class Weighted:
    """For results whose estimate divides by probabilities: their weights, and the balance."""

    sample: Sample

    def arms(self) -> tuple[Arm, ...]:
        """Units by treatment (or instrument) with their weights (first repetition)."""
        raise UserError(f"Expected a fit with weights, found a {type(self).__name__}.")

    def balance(self, *, library: str | None = None, frame: bool = False) -> Any:
        """`differences` of all covariates, one row each; with ``frame`` as a dataframe."""
        rows = differences(self.sample.X, self.sample.covariates, self.arms())
        return frame_from_rows(rows, library) if frame else rows

    def plot_weights(self, figure: Any = None) -> Any:
        """Weights of the units by arm, with effective sample sizes; returns the figure."""
        return weight_plots.weights(self.arms(), figure=figure)

    def plot_balance(self, ax: Any = None) -> Any:
        """Differences of the covariates before and after weighting; returns the axes."""
        return weight_plots.love(self.balance(), ax=ax)
