"""How much rewards and their order depend on the estimate, and on confounders left out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import sensitivity as omitted

SHIFTS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True)
class Shift:
    """Rewards if the effect of one confounder were some standard errors larger."""

    confounder: str
    errors: float  # standard errors that are added
    delta: float
    rank_correlation: float  # of the rewards with those of the estimate (Spearman)
    same_top: float  # share of the best texts that stay among the best
    top_mean: float  # mean reward of the best texts
    value: float  # mean reward of the texts of a policy; of all texts without weights


@dataclasses.dataclass(frozen=True)
class Omitted:
    """Largest bias of an effect by a confounder that was left out."""

    confounder: str
    r2_outcome: float  # share of the outcome's residual variance that it would explain
    r2_confounder: float  # share of the confounder's residual variance
    bias: float
    same_top: float  # share of the best texts that surely stay among the best, whatever its sign
    rank_correlation: float  # of the rewards, at least


def shifts(
    result: Any,
    errors: Sequence[float] = SHIFTS,
    *,
    top: float = 0.2,
    weights: np.ndarray | None = None,
) -> list[Shift]:
    """Rewards, their order and a policy's value when each effect is moved by standard errors.

    Args:
      result: a `DeconfoundResult`.
      errors: how many.
      top: share of the texts that count as the best.
      weights: how much more often a policy writes each text than the logs have it
        (`train.losses.off_policy.weights`), for its value ``sum(w reward) / sum(w)``.

    Raises:
      UserError: a share that is none, or weights that are no weights of the rows.
    """
    if not 0 < top < 1:
        raise UserError(f"Expected a share of the best texts between 0 and 1, found {top}.")
    w = np.ones(len(result.adjusted_reward)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != result.adjusted_reward.shape or not np.all(w >= 0) or not 0 < w.sum() < np.inf:
        raise UserError(
            f"Expected a weight of at least 0 for each of {len(result.adjusted_reward)} texts, "
            f"found others, of shape {w.shape}."
        )
    return [
        _moved(result, j, float(step), top, w) for j in range(len(result.centre)) for step in errors
    ]


def _moved(result: Any, j: int, step: float, top: float, w: np.ndarray) -> Shift:
    """Rewards with the effect of one confounder moved by standard errors."""
    base = result.adjusted_reward
    count = max(round(top * len(base)), 1)
    moved = base - step * result.se[j] * (result.sample.A[:, j] - result.centre[j])
    now = _best(moved, count)
    return Shift(
        result.names[j],
        step,
        float(result.delta[j] + step * result.se[j]),
        float(np.corrcoef(_ranks(base), _ranks(moved))[0, 1]),
        float(np.mean(np.isin(now, _best(base, count)))),
        float(np.mean(moved[now])),
        float(w @ moved / w.sum()),
    )


def _best(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest values; the first ones of equal ones."""
    return np.argsort(-values, kind="stable")[:count]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def bounds(
    result: Any, r2_outcome: float, r2_confounder: float, *, top: float = 0.2
) -> list[Omitted]:
    """Largest bias that a confounder left out would make, for each that is there.

    ``SE sqrt(degrees of freedom) sqrt(r2_outcome r2_confounder / (1 - r2_confounder))``, and what a
    bias of that size, of either sign, does to the order of the rewards.

    Args:
      result: a `DeconfoundResult`.
      r2_outcome: share of the outcome's residual variance that it would explain.
      r2_confounder: share of the confounder's.
      top: share of the texts that count as the best.

    References:
      Cinelli and Hazlett (2020), Making sense of sensitivity, equation 9.
    """
    for name, value in (("r2_outcome", r2_outcome), ("r2_confounder", r2_confounder)):
        if not 0 <= value < 1:
            raise UserError(f"Expected {name} of at least 0 and below 1, found {value}.")
    errors = _errors(result, r2_outcome, r2_confounder)
    w = np.ones(result.sample.n)
    out = []
    for j in range(len(result.centre)):
        ends = [_moved(result, j, sign * errors, top, w) for sign in (-1, 1)]
        out.append(
            Omitted(
                result.names[j],
                r2_outcome,
                r2_confounder,
                errors * float(result.se[j]),
                min(one.same_top for one in ends),
                min(one.rank_correlation for one in ends),
            )
        )
    return out


def _errors(result: Any, r2_outcome: float, r2_confounder: float) -> float:
    """The largest bias in standard errors of the effect."""
    df = result.sample.n - len(result.centre) - result.sample.X.shape[1] - 1
    return float(np.sqrt(df) * omitted.strength(r2_outcome, r2_confounder))


def picture(result: Any) -> Any:
    """How the best texts change with the effect, and the bias by what was left out."""
    from jaxcore.estimators.plots import MODEL_COLOURS, named
    from jaxcore.figures import new_figure

    figure = new_figure(9, 3.8)
    left, right = figure.subplots(1, 2)
    steps = np.linspace(-3, 3, 13)
    found = shifts(result, steps.tolist())
    names = list(dict.fromkeys(one.confounder for one in found))
    grid = np.linspace(0, 0.3, 31)
    for name, colour in zip(names, MODEL_COLOURS, strict=False):
        rows = [one for one in found if one.confounder == name]
        left.plot(steps, [100 * r.same_top for r in rows], color=colour, label=named(name))
        se = float(result.se[result.names.index(name)])
        bias = [se * _errors(result, share, share) for share in grid]
        right.plot(100 * grid, bias, color=colour, label=named(name))
    left.set(xlabel="effect moved by standard errors", ylabel="% of the best fifth that stays")
    left.set_ylim(0, 103)
    right.set(
        xlabel="% of what is left of outcome and confounder\nthat one left out would explain",
        ylabel="largest bias of the effect",
    )
    right.set_ylim(bottom=0)
    if not names:
        left.text(0.5, 0.5, "no confounders but groups", ha="center", transform=left.transAxes)
    for ax in (left, right):
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        if len(names) > 1:
            ax.legend(frameon=False)
    return figure
