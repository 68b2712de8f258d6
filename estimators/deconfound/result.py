"""What deconfounding returns: effects of confounders, and outcomes without them as rewards."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxcore.errors import UserError
from jaxcore.estimators.columns import column, covariate_columns, single
from jaxcore.estimators.deconfound.assumptions import assumptions_of
from jaxcore.estimators.deconfound.bends import Bend, Powers
from jaxcore.estimators.deconfound.diagnostics import lines_of, robust_set, stages_on_host
from jaxcore.estimators.deconfound.inputs import Kind
from jaxcore.estimators.deconfound.routes import adjusted
from jaxcore.estimators.linear_iv import ConfidenceSet
from jaxcore.estimators.report import PICTURES
from jaxcore.estimators.result import SeveralResult
from jaxcore.json_files import parse_json

SENSITIVITY = "sensitivity.png"


@dataclasses.dataclass(frozen=True)
class GroupEffects:
    """What groups of one kind do to the outcome, less the mean over the rows."""

    name: str
    labels: list[Any]
    effects: np.ndarray

    def of(self, labels: Any) -> np.ndarray:
        """The effect of every row's group; 0 of a group that was not seen."""
        place = {label: i for i, label in enumerate(self.labels)}
        wanted = single(labels, self.name).tolist()
        if self.labels and isinstance(self.labels[0], str):
            wanted = [str(label) for label in wanted]
        numbers = np.array([place.get(label, -1) for label in wanted], np.int64)
        return np.where(numbers >= 0, self.effects[numbers], 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DeconfoundResult(SeveralResult):
    """Effects of the confounders with errors, and the reward of every text."""

    adjusted_reward: np.ndarray  # outcome less confounders, with the mean of the outcome
    centre: np.ndarray  # means of the confounders
    n_features: int  # of the texts
    effects: tuple[GroupEffects, ...] = ()
    bend: Bend | None = None  # of the confounders; None: straight lines

    @property
    def route(self) -> str:
        """How the effects of the confounders are known."""
        return str(getattr(self.config, "route", ""))

    @property
    def delta(self) -> np.ndarray:
        """What a unit of each confounder does to the outcome."""
        return self.theta

    @property
    def cov(self) -> np.ndarray:
        """Covariance of `delta`, clustered if there are clusters; of several partitions scaled."""
        from jaxcore.estimators.variance import covariance

        with self.config.precision():
            found = np.asarray(covariance(self.estimate.psi, self.units))
        own = np.sqrt(np.diag(found))
        ratio = np.divide(self.se, own, out=np.ones_like(own), where=own > 0)
        return found * ratio[:, None] * ratio[None]

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Numbers of the first partition that say how far the estimate can be believed."""
        each = self.repetitions[0].diagnostics
        return {name: v for name, v in each.items() if np.size(v) <= 64 and name != "fold_ids"}

    def adjust(
        self, Y: ArrayLike, C: Any = None, groups: Any = None, *, centred: bool = True
    ) -> np.ndarray:
        """Rewards of further rows: their outcome less what confounders and groups do.

        Args:
          Y: outcomes.
          C: confounders, columns as in the fit.
          groups: labels of every kind of groups in columns; groups that were not seen count
            nothing.
          centred: keep the mean of the outcome; False subtracts the confounders themselves.

        Raises:
          UserError: other columns than in the fit.
        """
        y: Any = column(Y, "outcome")
        centre: Any = self.centre
        bend = self.bend or Powers(centre, np.ones_like(centre), 1)
        p = bend.count
        if (C is None) != (p == 0):
            found = "none" if C is None else "some"
            raise UserError(f"Expected {p} confounders to adjust for, found {found}.")
        if p:
            c: Any = covariate_columns(C, None, len(y))[0]
            if c.shape[1] != p:
                raise UserError(f"Expected {p} confounders, found {c.shape[1]}.")
            c = bend.columns(c)
            delta: Any = self.delta
            y = np.asarray(adjusted(y, c, delta, centre if centred else None))
        if self.effects:
            if groups is None:
                raise UserError("Expected labels of groups to adjust for, found none.")
            labels = np.asarray(groups)
            columns = [labels] if labels.ndim == 1 else list(labels.T)
            for kind, own in zip(self.effects, columns, strict=True):
                y = y - kind.of(own)
        return y

    def robust_set(self, level: float = 0.95) -> ConfidenceSet:
        """Set of Anderson and Rubin, valid however weak the instruments are; of route iv.

        Raises:
          UserError: another route, or several confounders.
        """
        if self.route != "iv":
            raise UserError(f"Expected route iv for this set, found {self.route}.")
        s = self.sample
        return robust_set(stages_on_host(s.Y, s.A, s.Z, s.X, self.units), self.units, level)

    def assumptions(self) -> str:
        """What must hold for this route, what was checked, and what cannot be."""
        return assumptions_of(self)

    def settings(self) -> tuple[tuple[str, str], ...]:
        """Route, features, folds and seed where there are any."""
        told = (("route", self.route),)
        if self.n_features:
            told += (("features", str(self.n_features)),)
        if "fold_ids" in self.repetitions[0].diagnostics:
            return (*told, *super().settings())
        return told

    def details(self) -> list[str]:
        """Diagnostics of the route."""
        return [*lines_of(self), *super().details()]

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        return (*PICTURES, SENSITIVITY)

    def pictures(self, level: float) -> Sequence[Any]:
        """Figures of a report, in the order of their names."""
        from jaxcore.estimators.deconfound import sensitivity

        return [*super().pictures(level), sensitivity.picture(self)]

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of rows, JSON-able."""
        return super().to_dict(level) | {
            "route": self.route,
            "covariance": self.cov.tolist(),
            "diagnostics": {k: np.asarray(v).tolist() for k, v in self.diagnostics.items()},
            "assumptions": self.assumptions(),
        }

    def more_to_save(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rewards, means and group effects."""
        arrays: dict[str, Any] = {"adjusted_reward": self.adjusted_reward, "centre": self.centre}
        for j, kind in enumerate(self.effects):
            text = np.frombuffer(json.dumps(kind.labels).encode(), np.uint8)
            arrays[f"kind{j}"] = {"effects": kind.effects, "labels": text}
        if self.bend is not None:
            arrays["bend"] = self.bend.arrays()
        kinds = [kind.name for kind in self.effects]
        return {"kinds": kinds, "n_features": self.n_features}, arrays


def saved_effects(more: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[GroupEffects, ...]:
    """Group effects as `DeconfoundResult.more_to_save` has them."""
    out = []
    for j, name in enumerate(more["kinds"]):
        kind = arrays[f"kind{j}"]
        content = np.asarray(kind["labels"], np.uint8).tobytes()
        labels = parse_json(
            content, source="labels of groups", expect=list, max_bytes=len(content) + 1
        )
        out.append(GroupEffects(name, labels, np.asarray(kind["effects"])))
    return tuple(out)


def centred_effects(kind: Kind, effects: np.ndarray) -> GroupEffects:
    """Effects less their mean over the rows."""
    return GroupEffects(kind.name, kind.labels, effects - np.mean(effects[kind.numbers]))
