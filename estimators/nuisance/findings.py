"""What learners found out in the fits of all folds, in words and rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcore.estimators.nuisance.base import classifies, label
from jaxcore.estimators.nuisance.tuning import differences

_SHOWN = 12  # candidates on a line


def rows(learner: Any, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for every candidate of a learner that chose; none of others.

    Args:
      learner: the learner.
      found: its findings, first axis the fits; see `base.fit_predict_find`.
    """
    if "losses" not in found:
        return []
    losses = np.asarray(found["losses"])
    wins = np.bincount(np.argmin(losses, axis=1), minlength=losses.shape[1])
    return [
        {
            "candidate": text,
            "loss": float(np.mean(losses[:, i])),
            "kind": "log-loss" if classifies(learner) else "squared error",
            "chosen": int(wins[i]),
            "fits": len(losses),
        }
        for i, text in enumerate(differences(learner.learners))
    ]


def chosen(learner: Any, found: Mapping[str, Any]) -> str:
    """In words what was chosen; nothing if nothing was.

    >>> from jaxcore.estimators.nuisance import Lasso
    >>> chosen(Lasso(), {"alpha": np.array([0.01, 0.02])})
    'penalties 0.01 to 0.02'
    """
    every = sorted(rows(learner, found), key=lambda row: -row["chosen"])
    if every:
        times = [f"{r['candidate']} ({r['chosen']} of {r['fits']} fits)" for r in every]
        return "chosen " + ", ".join(t for t, r in zip(times, every, strict=True) if r["chosen"])
    if "weights" in found:
        means = np.mean(found["weights"], axis=0)
        texts = [label(one) for one in learner.learners]
        return "weights " + ", ".join(f"{m:.2f} {t}" for m, t in zip(means, texts, strict=True))
    if "alpha" in found:
        low, high = f"{np.min(found['alpha']):.3g}", f"{np.max(found['alpha']):.3g}"
        return f"penalty {low}" if low == high else f"penalties {low} to {high}"
    return ""


def tried(every: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line on candidates, those of least loss first; none if there are none."""
    if not every:
        return []
    order = sorted(every, key=lambda r: r["loss"])
    each = ", ".join(f"{r['candidate']}: {r['loss']:.5g}" for r in order[:_SHOWN])
    more = f", and {len(order) - _SHOWN} more" if len(order) > _SHOWN else ""
    return [f"  inner {order[0]['kind']} with {each}{more}"]


def together(every: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Findings of several rounds of fits as those of one; nothing if they differ in kind."""
    names = set.intersection(*(set(one) for one in every)) if every else set()
    return {name: np.concatenate([np.asarray(one[name]) for one in every]) for name in names}
