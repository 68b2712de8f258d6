"""How far an estimate can be believed: strength of instruments, contrasts between routes."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators import linear_iv, two_stage
from jaxcore.estimators.influence import LinearScore
from jaxcore.estimators.linear_iv import ConfidenceSet, RobustSet
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.two_stage import ChiSquared, Stages
from jaxcore.estimators.units import INDEPENDENT, Units
from jaxcore.estimators.variance import covariance

WEAK = 10.0
"""First-stage F below which instruments count as weak (Staiger and Stock 1997)."""
NOTHING = 1e-5
"""Share below which the text leaves nothing but what the penalty of ridge regressions does."""
LITTLE = 0.05
"""Share of a confounder's variance below which the text leaves little of it."""


def _tail(statistic: Any, df: int) -> float:
    """p-value of a statistic on the host."""
    return ChiSquared(statistic, df).pvalue()


class Contrast(NamedTuple):
    """Whether two routes agree on the same effects."""

    difference: Float[np.ndarray, " p"]
    se: Float[np.ndarray, " p"]
    statistic: float
    df: int
    pvalue: float


Form = Literal["influence", "variances"]


def hausman(one: Any, other: Any, *, form: Form = "influence") -> Contrast:
    """Hausman's contrast of two results on the same rows; small p-values say that they disagree.

    Args:
      one: a result, or an `Estimate`, as of ``iv``.
      other: the same as of ``plm``.
      form: "influence" takes the variance of the difference from influence values, which always
        holds. "variances" is the difference of the two variances: right if the other route is
        efficient, and it need not be positive.

    Raises:
      UserError: other rows or other confounders.

    References:
      Hausman (1978); Newey (1985) for influence values.
    """
    a, b = (getattr(fit, "estimate", fit) for fit in (one, other))
    if a.psi.shape != b.psi.shape:
        raise UserError(
            "Expected two fits of the same confounders on the same rows, found "
            f"{a.psi.shape} and {b.psi.shape} rows and confounders."
        )
    kept: list[Any] = [getattr(getattr(f, "sample", None), "kept", None) for f in (one, other)]
    if all(k is not None for k in kept) and not np.array_equal(kept[0], kept[1]):
        raise UserError("Expected two fits on the same rows, found different ones.")
    units = Units(clusters=a.clusters)
    with jax.enable_x64(True):
        psi = [np.asarray(e.psi, np.float64) for e in (a, b)]
        if form == "influence":
            spread = np.asarray(covariance(jnp.asarray(psi[0] - psi[1]), units))
        elif form == "variances":
            first, second = (np.asarray(covariance(jnp.asarray(x), units)) for x in psi)
            spread = first - second
        else:
            raise UserError(f"Expected form='influence' or 'variances', found {form!r}.")
    d = np.asarray(a.theta, np.float64) - np.asarray(b.theta, np.float64)
    rank = int(np.linalg.matrix_rank(spread, hermitian=True))
    statistic = float(d @ np.linalg.pinv(spread, hermitian=True) @ d)
    p = _tail(statistic, rank) if statistic >= 0 else float("nan")
    with np.errstate(invalid="ignore"):
        return Contrast(d, np.sqrt(np.diag(spread)), statistic, rank, p)


@in_double
def overidentification(
    parts: Stages, theta: Float[Array, " p"], units: Units = INDEPENDENT
) -> dict[str, Array]:
    """Statistics of Sargan, Hansen, and of Anderson and Rubin for no effect at all."""
    out = {"anderson_rubin": two_stage.anderson_rubin_test(parts, 0 * theta, units).statistic}
    if parts.q.shape[1] > parts.c.shape[1]:
        out["sargan"] = two_stage.sargan(parts, theta).statistic
        out["hansen"] = two_stage.hansen(parts, theta, units).statistic
    return out


def stages_on_host(Y: Any, C: Any, Z: Any, W: Any, units: Units) -> Stages:
    """`two_stage.stages` with a constant among the exogenous regressors, in float64."""
    with jax.enable_x64(True):
        exogenous = np.concatenate([np.ones((len(Y), 1)), W], axis=1)
        y, c, z, w = map(jnp.asarray, (Y, C, Z, exogenous))
        return jax.device_get(two_stage.stages(y, c, z, w, units))


def robust_set(parts: Stages, units: Units, level: float = 0.95) -> ConfidenceSet:
    """Set of Anderson and Rubin for one confounder, valid however weak the instruments are.

    With one instrument it is robust to unequal variances and clusters; with several it takes equal
    variances, and can be empty where the instruments contradict each other.

    Raises:
      UserError: several confounders.
    """
    if parts.c.shape[1] != 1:
        raise UserError(f"Expected one confounder for this set, found {parts.c.shape[1]}.")
    c, y, q = parts.c[:, 0], parts.y, parts.q
    if q.shape[1] == 1:
        score = LinearScore(-q[:, 0] * c, q[:, 0] * y)
        clusters = Units(clusters=units.clusters)
        return linear_iv.anderson_rubin(score, clusters, level=level).pieces()
    from scipy.special import fdtri

    inside = np.column_stack([parts.cc[:, 0], parts.cy])
    outside = np.column_stack([c, y]) - np.asarray(q) @ inside
    limit = q.shape[1] / parts.free * fdtri(q.shape[1], parts.free, level)
    m = inside.T @ inside - limit * outside.T @ outside
    quadratic: Any = np.array([m[0, 0], -2 * m[0, 1], m[1, 1]])
    root = quadratic[1] ** 2 - 4 * quadratic[0] * quadratic[2]
    if root < 0 and quadratic[0] > 0:
        return ConfidenceSet(())
    with np.errstate(invalid="ignore"):
        middle, half = -quadratic[1], np.sqrt(root)
        ends: Any = np.sort((middle + np.array([-1, 1]) * half) / (2 * quadratic[0]))
    return RobustSet(quadratic, ends, quadratic[0] > 0).pieces()


# --- in words -----------------------------------------------------------------------------------


def notices_of(route: str, names: tuple[str, ...], diagnostics: dict[str, Any]) -> list[str]:
    """What is doubtful about an estimate.

    Raises:
      UserError: a confounder that is a function of the text.
    """
    out = []
    f = diagnostics.get("first_stage_F")
    if f is not None and np.min([*np.ravel(f), diagnostics["cragg_donald"]]) < WEAK:
        worst = float(np.min([*np.ravel(f), diagnostics["cragg_donald"]]))
        out.append(
            f"weak instruments: the smallest first-stage F is {worst:.3g}, below {WEAK:g}; "
            "estimate and error mislead, believe the set of Anderson and Rubin"
        )
    left = diagnostics.get("left")
    if left is not None:
        for name, share in zip(names, np.ravel(left), strict=True):
            if share < NOTHING:
                raise UserError(
                    f"Expected confounders that are no function of the text, found that the "
                    f"features explain {name!r} wholly: no route can tell the two apart."
                )
            if share < LITTLE:
                out.append(
                    f"the text explains {100 * (1 - share):.3g} % of {name}: its effect rests on "
                    "the little that is left"
                )
    return out


def lines_of(result: Any) -> list[str]:
    """Diagnostics of a result as lines of its summary."""
    d = result.repetitions[0].diagnostics
    lines = []
    if "first_stage_F" in d:
        each = ", ".join(
            f"{name} {float(f):.4g}"
            for name, f in zip(result.names, np.ravel(d["first_stage_F"]), strict=True)
        )
        more = "" if len(result.names) == 1 else f"; jointly {float(d['cragg_donald']):.4g}"
        lines.append(f"first-stage F: {each}{more}")
    m, p = result.sample.Z.shape[1], len(result.names)
    tests = {"sargan": ("Sargan", m - p), "hansen": ("Hansen J", m - p)}
    for name, (said, df) in (tests | {"anderson_rubin": ("Anderson-Rubin", m)}).items():
        if name in d:
            p_value = _tail(d[name], df)
            null = "no effect" if name == "anderson_rubin" else "valid instruments"
            lines.append(f"{said}: {float(d[name]):.4g}, chi2({df}), p {p_value:.4f} of {null}")
    if result.route == "iv" and p == 1:
        lines.append(f"robust to weak instruments: {result.robust_set().describe()}")
    if "left" in d:
        each = ", ".join(
            f"{name} {100 * float(share):.3g} %"
            for name, share in zip(result.names, np.ravel(d["left"]), strict=True)
        )
        lines.append(f"left by the text: {each}")
    if "n_iter" in d:
        lines.append(f"effects of groups taken out in {int(d['n_iter'])} passes")
    for kind in result.effects:
        lines.append(f"{kind.name}: {len(kind.labels)} groups")
    return lines
