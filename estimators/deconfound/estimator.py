"""`Deconfound`: from logs to rewards of texts, with everything chosen and checked."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import fixed_effects
from jaxcore.estimators.checks import independent_columns
from jaxcore.estimators.deconfound import bends, routes
from jaxcore.estimators.deconfound.diagnostics import (
    notices_of,
    overidentification,
    stages_on_host,
)
from jaxcore.estimators.deconfound.inputs import Inputs, checked
from jaxcore.estimators.deconfound.result import (
    SENSITIVITY,
    DeconfoundResult,
    GroupEffects,
    centred_effects,
    saved_effects,
)
from jaxcore.estimators.estimate import Estimate, aggregate_estimates
from jaxcore.estimators.partitions import partitions
from jaxcore.estimators.report import PICTURES
from jaxcore.estimators.saved import Restored
from jaxcore.estimators.settings import CrossFitting

ROUTES = {
    "iv": "instruments that move the confounders",
    "plm": "the text itself: partially linear, cross-fitted",
    "fe": "repeated groups (authors, weeks)",
    "ols_c": "the outcome on the confounders alone: a baseline, biased where texts go with them",
}
"""How the effect of confounders can be known."""


_LEFT = 1e-6  # of a standard deviation: less than this within groups is what iterations have left


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deconfound(CrossFitting):
    """Effects of recorded confounders on an outcome, and rewards of texts without them.

    The outcome of a text (clicks, votes) is what the text does plus what recorded confounders do.
    ``fit`` estimates the latter by one of four routes, which the user must choose, and takes it out
    of the outcome. Always in float64.

    >>> rng = np.random.default_rng(0)
    >>> u, z = rng.normal(size=(2, 2000))
    >>> c, text = 0.8 * u + 0.6 * z, u + rng.normal(size=2000)
    >>> y = text + 2 * c + rng.normal(size=2000)
    >>> found, naive = Deconfound(route="iv").fit(y, c, instruments=z), Deconfound(route="ols_c")
    >>> bool(abs(found.delta[0] - 2) < 0.2), bool(naive.fit(y, c).delta[0] > 2.3)
    (True, True)

    References:
      Loghmani (2025), Aligning language models with observational data; the estimators are those
      of `routes` and `fixed_effects`.
    """

    roles: ClassVar[tuple[str, ...]] = ("outcome", "confounders", "instruments")
    report_pictures: ClassVar[tuple[str, ...]] = (*PICTURES, SENSITIVITY)

    route: str  # a name of `ROUTES`
    degree: int = 1  # powers of the confounders (and instruments): above 1 their effect may bend
    nonlinear_C: bool = False  # splines of them instead of powers
    ridge: float = 1.0  # penalty on features of texts, route plm
    kind: routes.Kind = "dml2"  # route plm
    kclass: routes.KClass = "2sls"  # route iv; or "liml"
    shrink: bool = False  # route fe: draw effects of small groups to the mean
    drop_singletons: bool = False  # route fe: leave out groups of one row
    method: fixed_effects.Method = "cg"  # route fe, several kinds of groups
    tol: float = 1e-8  # route fe

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {
            "route": tuple(ROUTES),
            "kind": ("dml2", "dml1"),
            "kclass": ("2sls", "liml"),
            "method": fixed_effects.METHODS,
        }
        for name, words in known.items():
            if getattr(self, name) not in words:
                told = ", ".join(map(repr, words))
                raise UserError(f"Expected {name} of {told}, found {getattr(self, name)!r}.")
        for name in ("ridge", "tol"):
            if not getattr(self, name) >= 0:
                raise UserError(f"Expected {name} of at least 0, found {getattr(self, name)}.")
        if not 1 <= self.degree <= 9:
            raise UserError(f"Expected degree of 1 to 9, found {self.degree}.")
        if self.nonlinear_C and self.degree > 1:
            raise UserError(f"Expected degree=1 with nonlinear_C, found {self.degree}.")
        if not self.double:
            raise UserError("Expected double=True, found False: float32 cannot hold the moments.")

    @property
    def bends(self) -> bool:
        """Whether effects of confounders are more than straight lines."""
        return self.nonlinear_C or self.degree > 1

    def fit(
        self,
        Y: Any,
        C: Any = None,
        *,
        instruments: Any = None,
        features: Any = None,
        groups: Any = None,
        controls: Any = None,
        weights: Any = None,
        clusters: Any = None,
        fold_ids: Any = None,
        names: Any = None,
    ) -> DeconfoundResult:
        """Estimate from arrays, lists, series or frames whose rows belong together.

        Args:
          Y: outcome of each text.
          C: recorded confounders, one column or several; routes other than fe need them.
          instruments: routes iv and, if wanted, plm.
          features: of the texts, (n, d); route plm, and fe if wanted.
          groups: labels, of several kinds in columns or a frame; route fe.
          controls: further regressors that are not instrumented; routes iv and ols_c.
          weights: observation weights.
          clusters: cluster labels; folds never split a cluster.
          fold_ids: fold of each row instead of random ones; route plm.
          names: role -> names of its columns ("outcome", "confounders", "instruments", ...).

        Raises:
          UserError: what is wrong with the data, or missing for the route.
        """
        self.check_given(fold_ids)
        given = {"instruments": instruments, "features": features, "groups": groups}
        self._check_route(given | {"confounders": C, "controls": controls})
        data = checked(
            Y,
            C,
            **given,
            controls=controls,
            weights=weights,
            clusters=clusters,
            missing=self.missing,
            names=names,
        )
        bend = bends.bend(data.C, self.degree, self.nonlinear_C)
        if self.bends:
            data = data.bent(bend, bends.bend(data.Z, self.degree, self.nonlinear_C))
        if self.route == "fe":
            found = self._groups(data)
        else:
            every = self._partitions(data, fold_ids) if self.route == "plm" else [self._once(data)]
            found = self._built(data, every)
        return dataclasses.replace(found, bend=bend)

    def _check_route(self, given: dict[str, Any]) -> None:
        needed = {"iv": ("confounders", "instruments"), "plm": ("confounders", "features")}
        needed |= {"fe": ("groups",), "ols_c": ("confounders",)}
        absent = [name for name in needed[self.route] if given[name] is None]
        if absent:
            raise UserError(
                f"Expected {' and '.join(absent)} for route {self.route} "
                f"({ROUTES[self.route]}), found none."
            )
        allowed = {"iv": {"controls"}, "ols_c": {"controls"}, "plm": {"instruments"}}
        allowed |= {"fe": {"confounders", "features"}}
        extra = {name for name, value in given.items() if value is not None}
        extra -= {*needed[self.route], *allowed[self.route]}
        if extra:
            raise UserError(f"Expected no {sorted(extra)[0]} for route {self.route}, found some.")

    # --- confounders ----------------------------------------------------------------------------

    def _once(self, data: Inputs) -> Estimate:
        controls = data.W if data.W.shape[1] else None
        if self.route == "ols_c":
            return routes.ols_c(data.Y, data.C, controls, data.units)
        found = routes.iv(data.Y, data.C, data.Z, controls, data.units, kclass=self.kclass)
        parts = stages_on_host(data.Y, data.C, data.Z, data.W, data.units)
        told = overidentification(parts, found.theta, data.units)
        return dataclasses.replace(found, diagnostics=found.diagnostics | told)

    def _partitions(self, data: Inputs, fold_ids: Any) -> list[Estimate]:
        if data.X.shape[1] == 0:
            raise UserError("Expected features of the texts, found no column.")
        every = []
        ids: Any
        for ids, k in partitions(self, data.sample(), fold_ids, binary=(), check=_enough):
            every.append(
                routes.plm(
                    data.Y,
                    data.C,
                    data.X,
                    ids,
                    k,
                    penalty=self.ridge,
                    kind=self.kind,
                    Z=data.Z if data.Z.shape[1] else None,
                    units=data.units,
                )
            )
        return every

    def _built(self, data: Inputs, every: Sequence[Estimate]) -> DeconfoundResult:
        names = data.confounders
        every = [dataclasses.replace(e, names=names).on_host() for e in every]
        notices = [*data.notices, *notices_of(self.route, names, every[0].diagnostics)]
        w = data.units.weights_like(data.Y)
        centre: Any = np.asarray(w @ data.C) / len(data.Y)
        with self.precision():
            estimate = aggregate_estimates(every, how=self.aggregate).on_host()
        reward = routes.adjusted(data.Y, data.C, estimate.theta, centre)
        estimate = _told(estimate, notices)
        return self._result(data, estimate, every, np.asarray(reward), centre, ())

    # --- groups ---------------------------------------------------------------------------------

    def _groups(self, data: Inputs) -> DeconfoundResult:
        if self.drop_singletons:
            kept = fixed_effects.without_singletons(
                np.column_stack([kind.numbers for kind in data.kinds])
            )
            if not kept.any():
                raise UserError("Expected repeated groups, found that each has one row.")
            if not kept.all():
                gone = int(np.sum(~kept))
                data = data.rows(kept, f"left out {gone} rows that are alone in a group")
        notices = list(data.notices)
        for kind in data.kinds:
            alone = int(np.sum(kind.counts == 1))
            if alone == len(kind.labels):
                raise UserError(
                    f"Expected groups of {kind.name!r} with several rows, found one row in each: "
                    "their effects would be their outcomes."
                )
            if alone:
                notices.append(
                    f"{alone} of {len(kind.labels)} groups of {kind.name} have one row: their "
                    "reward is the mean (drop_singletons=True leaves them out)"
                )
        columns: Any = np.concatenate([data.Y[:, None], data.C, data.X], axis=1)
        numbers: Any = np.column_stack([kind.numbers for kind in data.kinds])
        free: Any = fixed_effects.demean(
            columns,
            numbers,
            weights=data.units.weights,
            method=self.method,
            tol=self.tol,
        )
        y, x = free.values[:, 0], free.values[:, 1:]
        beta, estimate = self._within(data, y, x)
        residual = y - x @ beta
        effects = [e[:, 0] - e[:, 1:] @ beta for e in free.effects]
        if self.shrink:
            counts: list[Any] = [kind.counts.astype(np.float64) for kind in data.kinds]
            effects = [
                fixed_effects.shrunken(residual, e, n, len(beta)).effects
                for e, n in zip(effects, counts, strict=True)
            ]
        tables = tuple(
            centred_effects(k, np.asarray(e)) for k, e in zip(data.kinds, effects, strict=True)
        )
        p = data.C.shape[1]
        centre = np.asarray(data.units.weights_like(data.Y) @ data.C) / len(data.Y)
        reward = data.Y - (data.C - centre[None]) @ beta[:p]
        for kind, table in zip(data.kinds, tables, strict=True):
            reward = reward - table.effects[kind.numbers]
        if np.ptp(reward) <= 1e-9 * np.ptp(data.Y):
            notices.append("rewards are all equal: outcomes do not vary within groups")
        told = {"n_iter": np.asarray(free.n_iter), "beta": beta}
        estimate = dataclasses.replace(estimate, diagnostics=told).on_host()
        return self._result(data, _told(estimate, notices), [estimate], reward, centre, tables)

    def _within(self, data: Inputs, y: Any, x: Any) -> tuple[np.ndarray, Estimate]:
        """Coefficients within groups (zero where groups explain a column), and their estimate."""
        size = np.std(np.concatenate([data.C, data.X], axis=1), axis=0)
        weights: Any = data.units.weights
        free = independent_columns(x, weights) & (np.sqrt(np.mean(x**2, axis=0)) > _LEFT * size)
        p = data.C.shape[1]
        if not free[:p].all():
            name = data.confounders[int(np.argmin(free[:p]))]
            raise UserError(
                f"Expected confounders that vary within groups, found that {name!r} does not: the "
                "effects of the groups hold its effect already."
            )
        beta = np.zeros(x.shape[1])
        title = "deconfound, effects of groups"
        fit = None
        if free.any():
            fit = fixed_effects.within(y, x[:, free], data.units, estimator=title)
            beta[free] = fit.theta
        if fit is None or not p:  # nothing but groups is adjusted for
            w = np.asarray(data.units.weights_like(data.Y))
            mean = np.mean(w * data.Y)
            with self.precision():
                psi = jnp.asarray((w * (data.Y - mean))[:, None])
                told: dict[str, Any] = {"names": ("mean outcome",), "estimator": title}
                return beta, Estimate.from_psi(jnp.asarray([mean]), psi, data.units, **told)
        return beta, dataclasses.replace(
            fit,
            theta=fit.theta[:p],
            se=fit.se[:p],
            psi=fit.psi[:, :p],
            names=data.confounders,
        )

    # --- results --------------------------------------------------------------------------------

    def _result(
        self,
        data: Inputs,
        estimate: Estimate,
        every: Sequence[Estimate],
        reward: np.ndarray,
        centre: np.ndarray,
        effects: tuple[GroupEffects, ...],
    ) -> DeconfoundResult:
        return DeconfoundResult(
            config=self,
            sample=data.sample(),
            estimate=estimate,
            repetitions=tuple(every),
            learners={},
            adjusted_reward=np.asarray(reward),
            centre=centre,
            n_features=data.X.shape[1],
            effects=effects,
        )

    def restored(self, parts: Restored) -> DeconfoundResult:
        """The result of a fit that was saved."""
        with self.precision():
            estimate = aggregate_estimates(parts.repetitions, how=self.aggregate).on_host()
        return DeconfoundResult(
            config=self,
            sample=parts.sample,
            estimate=_told(estimate, parts.notices),
            repetitions=tuple(e.on_host() for e in parts.repetitions),
            learners={},
            adjusted_reward=np.asarray(parts.arrays["adjusted_reward"]),
            centre=np.asarray(parts.arrays.get("centre", np.zeros(0))),
            n_features=int(parts.more["n_features"]),
            effects=saved_effects(parts.more, parts.arrays),
            bend=bends.saved(parts.arrays.get("bend", {}), self.degree, self.nonlinear_C),
        )


def _told(estimate: Estimate, notices: Sequence[str]) -> Estimate:
    return dataclasses.replace(estimate, notices=tuple(notices))


def _enough(training: np.ndarray, fold: int) -> None:
    """Refuse folds that leave next to nothing for training."""
    if training.sum() < 2:
        raise UserError(f"Expected several rows outside every fold, found few outside fold {fold}.")
