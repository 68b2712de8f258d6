"""What the learners of a fit found out: settings by their losses, weights, penalties."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcore.estimators.double_ml.model import Model
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance.base import classifies
from jaxcore.estimators.nuisance.tuning import differences

_SHOWN = 12  # candidates on a line


def tuning(
    model: Model, learners: Mapping[str, Any], repetitions: Sequence[Estimate]
) -> list[dict[str, Any]]:
    """A row for every candidate of every nuisance whose learner chose; see `DoubleMLResult`."""
    out = []
    for name, losses in _of(model, repetitions, "losses"):
        learner = learners[name]
        chosen = np.bincount(np.argmin(losses, axis=1), minlength=losses.shape[1])
        for i, text in enumerate(differences(learner.learners)):
            out.append(
                {
                    "nuisance": model.nuisances[name].symbol,
                    "candidate": text,
                    "loss": float(np.mean(losses[:, i])),
                    "kind": "log-loss" if classifies(learner) else "squared error",
                    "chosen": int(chosen[i]),
                    "fits": len(losses),
                }
            )
    return out


def chosen(
    model: Model, learners: Mapping[str, Any], repetitions: Sequence[Estimate]
) -> dict[str, str]:
    """In words what was chosen, by prediction."""
    out = {}
    for name, losses in _of(model, repetitions, "losses"):
        texts = differences(learners[name].learners)
        wins = np.bincount(np.argmin(losses, axis=1), minlength=len(texts))
        order = [i for i in np.argsort(-wins, kind="stable") if wins[i]]
        times = ", ".join(f"{texts[i]} ({wins[i]} of {len(losses)} fits)" for i in order)
        out[name] = f"chosen {times}"
    for name, weights in _of(model, repetitions, "weights"):
        texts, means = differences(learners[name].learners), np.mean(weights, axis=0)
        parts = [f"{m:.2f} {text}" for m, text in zip(means, texts, strict=True)]
        out[name] = "weights " + ", ".join(parts)
    for name, alphas in _of(model, repetitions, "alpha"):
        low, high = f"{np.min(alphas):.3g}", f"{np.max(alphas):.3g}"
        out[name] = f"penalty {low}" if low == high else f"penalties {low} to {high}"
    return out


def tried(rows: Sequence[Mapping[str, Any]], symbol: str) -> list[str]:
    """A line on the candidates of a nuisance, those of least loss first; none if there are none."""
    mine = sorted((r for r in rows if r["nuisance"] == symbol), key=lambda r: r["loss"])
    if not mine:
        return []
    each = ", ".join(f"{r['candidate']}: {r['loss']:.5g}" for r in mine[:_SHOWN])
    more = f", and {len(mine) - _SHOWN} more" if len(mine) > _SHOWN else ""
    return [f"  inner {mine[0]['kind']} with {each}{more}"]


def _of(
    model: Model, repetitions: Sequence[Estimate], what: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Findings of a kind, fits of all repetitions in rows, by prediction."""
    for name in model.nuisances:
        found = [e.diagnostics.get("findings", {}).get(name, {}) for e in repetitions]
        if all(what in one for one in found):
            yield name, np.concatenate([np.asarray(one[what]) for one in found])
