"""Analyses of a fit of `double_ml`: omitted variables, effects by covariates, policies."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxcore.errors import UserError
from jaxcore.estimators import plots, policy_tree, projection, sensitivity
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.columns import label_text
from jaxcore.estimators.double_ml.model import IRM, IRM_TREATED, PLR, Model
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.settings import CrossFitting
from jaxcore.estimators.units import Units


class Fit(Protocol):
    """What an analysis asks of a `DoubleMLResult`."""

    @property
    def config(self) -> CrossFitting:
        """The settings."""
        ...

    @property
    def sample(self) -> Sample:
        """The data."""
        ...

    @property
    def model(self) -> Model:
        """The model."""
        ...

    @property
    def repetitions(self) -> tuple[Estimate, ...]:
        """Estimates of the partitions."""
        ...

    @property
    def units(self) -> Units:
        """Weights and clusters."""
        ...

    @property
    def theta(self) -> float:
        """The estimate."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class OmittedVariables:
    """Bounds of the effect if confounders were left out, medians over the partitions."""

    cf_y: float  # share of the outcome's residual variance that they would explain
    cf_d: float  # share of the variance of the weights that they would add
    rho: float
    null: float
    bounds: tuple[float, float]
    limits: tuple[float, float]  # one-sided confidence limits of the bounds
    robustness_value: float  # cf_y = cf_d at which a bound reaches ``null``
    robustness_value_limit: float  # at which its confidence limit does

    def summary(self) -> str:
        """In words."""
        low, high = self.bounds
        return (
            f"omitted variables with cf_y = {self.cf_y:g}, cf_d = {self.cf_d:g}, rho = "
            f"{self.rho:g}: effect within [{low:.4g}, {high:.4g}], with its error "
            f"[{self.limits[0]:.4g}, {self.limits[1]:.4g}]\n"
            f"robustness value {100 * self.robustness_value:.3g}%, with the error "
            f"{100 * self.robustness_value_limit:.3g}% (effect of {self.null:g})"
        )


def _elements(fit: Fit, e: Estimate) -> sensitivity.Elements:
    y: Any = fit.sample.Y
    d: Any = fit.sample.A
    p, units = e.diagnostics, fit.units
    if fit.model is PLR:
        return sensitivity.plr_elements(y, d, p["ml_l"], p["ml_m"], e.theta, units)
    if fit.model in (IRM, IRM_TREATED):
        arms, target = (p["ml_g0"], p["ml_g1"]), fit.model.effect
        found = sensitivity.irm_elements(y, d, p["ml_m"], *arms, units, target=target)
        if not float(found.nu2) > 0:
            raise UserError(
                "Expected overlap for omitted variables (a narrower clip, or units for which both "
                "levels are likely, may help), found a mean square of the weights estimated as "
                f"{float(found.nu2):.3g}."
            )
        return found
    raise UserError(f"Expected PLR or IRM for omitted variables, found {fit.model.title}.")


def omitted_variables(
    fit: Fit, cf_y: float, cf_d: float, rho: float, null: float, level: float
) -> OmittedVariables:
    """See `DoubleMLResult.sensitivity`."""
    for name, value, low in (("cf_y", cf_y, 0), ("cf_d", cf_d, 0), ("rho", rho, -1)):
        if not low <= value <= 1 or (name == "cf_d" and value == 1):
            raise UserError(f"Expected {name} from {low} to 1, found {value}.")
    if not np.isfinite(null):
        raise UserError(f"Expected a finite null, found {null}.")
    found = []
    with fit.config.precision():
        for e in fit.repetitions:
            elements, units = _elements(fit, e), fit.units
            given = (e.theta, e.psi, elements)
            b = sensitivity.bounds(*given, cf_y, cf_d, rho, level=level, units=units)
            r = sensitivity.robustness_value(
                *given, null=null, rho=rho or 1.0, level=level, units=units
            )
            found.append(jax.device_get((b.theta, b.limits, r.rv, r.rva)))
    ends, limits, rv, rva = (np.median(np.stack(v), axis=0) for v in zip(*found, strict=True))
    return OmittedVariables(
        cf_y=cf_y,
        cf_d=cf_d,
        rho=rho,
        null=null,
        bounds=(float(ends[0]), float(ends[1])),
        limits=(float(limits[0]), float(limits[1])),
        robustness_value=float(rv),
        robustness_value_limit=float(rva),
    )


def benchmarks(
    fit: Fit,
    groups: Mapping[str, Sequence[str]],
    refit: Callable[[Sequence[int]], Fit],
) -> dict[str, dict[str, float]]:
    """See `DoubleMLResult.benchmark`; ``refit`` fits with the covariates of these places alone."""
    names, out = fit.sample.covariates, {}
    with fit.config.precision():
        whole = fit.repetitions[0].theta, _elements(fit, fit.repetitions[0])
        for group, left_out in groups.items():
            unknown = [name for name in left_out if name not in names]
            kept = [j for j, name in enumerate(names) if name not in left_out]
            if unknown or not left_out or not kept:
                raise UserError(
                    f"Expected some but not all of the covariates {', '.join(names)} in group "
                    f"{group!r}, found {', '.join(left_out) or 'none'}."
                )
            short = refit(kept)
            e = short.repetitions[0]
            y: Any = fit.sample.Y
            found = sensitivity.benchmark(y, whole, (e.theta, _elements(short, e)), fit.units)
            out[group] = {name: float(value) for name, value in found._asdict().items()}
    return out


def contour_picture(fit: Fit, null: float, ax: Any, **options: Any) -> Any:
    """See `DoubleMLResult.plot_sensitivity`."""
    marks, scenario = options.pop("benchmarks", None) or {}, options.pop("scenario", None)
    places = {name: (b["cf_y"], b["cf_d"]) for name, b in marks.items()}
    strongest = [max(cf) for cf in (*places.values(), scenario or (0, 0))]
    options.setdefault("largest", float(np.clip(1.2 * max(strongest), 0.15, 0.95)))
    e, side = fit.repetitions[0], "lower" if fit.theta > null else "upper"
    with fit.config.precision():
        grid, values = jax.device_get(
            sensitivity.contour(
                e.theta, e.psi, _elements(fit, e), side=side, units=fit.units, **options
            )
        )
    shown = {"scenario": scenario, "benchmarks": places, "label": f"{side} bound of the effect"}
    return plots.sensitivity_contour(grid, values, null=null, ax=ax, **shown)


def projected(fit: Fit, W: np.ndarray, names: Sequence[str] | None, e: Estimate) -> Estimate:
    """The effect as a linear function of ``W`` in one partition."""
    if fit.model is PLR:
        p, s = e.diagnostics, fit.sample
        return projection.partialled_out(s.Y, s.A, p["ml_l"], p["ml_m"], W, names, fit.units)
    return projection.best_linear(_signal(fit, e), W, names, fit.units)


def by_group(fit: Fit, groups: np.ndarray, e: Estimate) -> Estimate:
    """Effects of groups in one partition."""
    if fit.model is PLR:
        found, member = projection.members(groups)
        return projected(fit, member, [label_text(g) for g in found], e)
    return projection.group_effects(_signal(fit, e), groups, fit.units)


def _signal(fit: Fit, e: Estimate) -> np.ndarray:
    if "u" not in e.diagnostics:
        raise UserError(
            f"Expected IRM with target='ATE', or PLR, for effects by covariates, found "
            f"{fit.model.title}."
        )
    return e.diagnostics["u"]


def best_policy(
    fit: Fit, X: ArrayLike, cost: float, depth: int, min_leaf: int
) -> policy_tree.PolicyTree:
    """See `DoubleMLResult.policy_tree`."""
    y: Any = fit.sample.Y
    d: Any = fit.sample.A
    signals = []
    for e in fit.repetitions:
        if fit.model is PLR:
            p = e.diagnostics
            with fit.config.precision():
                one = policy_tree.partialled_out_signal(y, d, p["ml_l"], p["ml_m"])
            signals.append(np.asarray(one))
        else:
            signals.append(_signal(fit, e))
    reward = policy_tree.rewards(np.median(signals, axis=0), cost)
    return policy_tree.policy_tree(
        reward, X, depth=depth, min_leaf=min_leaf, weights=fit.sample.weights
    )
