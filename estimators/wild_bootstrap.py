"""Wild cluster bootstrap: tests and intervals that hold with few clusters.

The weights of a draw are one random number per cluster, and everything else is sums over clusters,
so a draw costs as many operations as there are clusters, whatever the number of units. The null
hypothesis is imposed. Pure NumPy on the host, float64.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxcore.errors import UserError
from jaxcore.estimators.influence import LinearScore
from jaxcore.estimators.precision import check_finite
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import normal_quantile

KINDS = ("rademacher", "webb")
FEW = 12
"""Below this number of clusters fair signs have too few different draws: Webb's six points."""

_SAME = 1e-10  # t-statistics that differ by less are the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class WildBootstrap:
    """A bootstrap test of one value and the interval of the values that are not rejected."""

    estimate: float
    null: float
    p_value: float  # two-sided
    interval: tuple[float, float]  # its ends can be infinite
    level: float
    kind: str
    n_draws: int
    every_draw: bool  # all sign changes were tried: no randomness is left
    n_clusters: int

    def summary(self) -> str:
        """Two lines of text."""
        drawn = "all" if self.every_draw else "random"
        low, high = self.interval
        return (
            f"wild cluster bootstrap, {self.n_clusters} clusters, {self.n_draws} {drawn} "
            f"{self.kind} draws\n"
            f"estimate {self.estimate:.6g}, p = {self.p_value:.4f} (value {self.null:g}), "
            f"{100 * self.level:g}% [{low:.6g}, {high:.6g}]"
        )


def cluster_draws(
    n_clusters: int, kind: str | None = None, n_boot: int = 9999, seed: int = 0
) -> tuple[Float[np.ndarray, "b g"], str, bool]:
    """Weights of the clusters in every draw, their kind, and whether these are all there are.

    Args:
      n_clusters: number of clusters, at least 2.
      kind: "rademacher" (fair signs), "webb" (six points, Webb 2014), or None: Webb's below 12
        clusters, where there are only some thousand different signs.
      n_boot: draws; if there are no more sign changes than that, each is taken once.
      seed: of the draws.

    >>> cluster_draws(2, "rademacher")[0].tolist()
    [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    """
    if kind is None:
        kind = "webb" if n_clusters < FEW else "rademacher"
    if kind not in KINDS:
        raise UserError(f"Expected weights of {' or '.join(KINDS)}, found {kind!r}.")
    if n_clusters < 2:
        raise UserError(f"Expected at least 2 clusters, found {n_clusters}.")
    if n_boot < 1:
        raise UserError(f"Expected at least one draw, found {n_boot}.")
    rng = np.random.default_rng(seed)
    if kind == "webb":
        points = np.sqrt([0.5, 1.0, 1.5])
        return rng.choice(np.r_[-points, points], size=(n_boot, n_clusters)), kind, False
    if n_clusters < 31 and 2**n_clusters <= n_boot:
        bits = np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters)[::-1]
        return 2.0 * (bits & 1) - 1, kind, True
    return rng.choice([-1.0, 1.0], size=(n_boot, n_clusters)), kind, False


# --- scores -------------------------------------------------------------------------------------


def score_p_value(
    a: Float[np.ndarray, " g"],
    b: Float[np.ndarray, " g"],
    value: float,
    draws: Float[np.ndarray, "b g"],
) -> float:
    """Share of draws whose score statistic is at least that of the data, at ``theta = value``.

    The statistic is ``|sum S| / sqrt(sum S^2)`` of the clusters' scores ``S = a value + b``, and
    ``w S`` in a draw. With fair signs and all draws the test is exact when the scores of the
    clusters are independent and symmetric.

    Args:
      a: sum of ``psi_a`` in each cluster, weights included.
      b: sum of ``psi_b`` in each cluster.
      value: the value that is tested.
      draws: weights of the clusters.

    References:
      Kline and Santos (2012); Canay, Santos and Shaikh (2021).
    """
    scores = a * value + b
    if not np.any(scores):
        return 1.0
    drawn = draws @ scores / np.sqrt(draws**2 @ scores**2)
    seen = np.sum(scores) / np.sqrt(np.sum(scores**2))
    return float(np.mean(np.abs(drawn) >= abs(seen) - _SAME))


def wild_scores(
    score: LinearScore,
    units: Units,
    *,
    null: float = 0.0,
    level: float = 0.95,
    kind: str | None = None,
    n_boot: int = 9999,
    seed: int = 0,
) -> WildBootstrap:
    """Wild cluster bootstrap of the root of a linear score, at given nuisances.

    For every estimator whose score is one of `influence`: the nuisances are not fitted again, which
    their orthogonality allows.

    Args:
      score: the two parts of the score, one row per unit.
      units: clusters of one kind, and observation weights.
      null: value that is tested.
      level: coverage of the interval.
      kind: see `cluster_draws`.
      n_boot: see `cluster_draws`.
      seed: see `cluster_draws`.

    >>> import jax.numpy as jnp
    >>> y = jnp.arange(12.0)
    >>> mean = LinearScore(-jnp.ones(12), y)
    >>> found = wild_scores(mean, Units(clusters=np.arange(12) // 2), kind="rademacher")
    >>> found.estimate, found.p_value, found.every_draw
    (5.5, 0.03125, True)
    """
    clusters = _one_kind(units)
    psi_b = np.asarray(score.psi_b, np.float64)
    check_finite({"psi_b": psi_b, "psi_a": np.asarray(score.psi_a, np.float64)})
    w = np.asarray(units.weights_like(np.ones(len(psi_b))))
    a = np.bincount(clusters, w * np.asarray(score.psi_a, np.float64))
    b = np.bincount(clusters, w * psi_b)
    theta = float(-b.sum() / a.sum())
    residual = a * theta + b
    se = float(np.sqrt(np.sum(residual**2)) / abs(a.sum()))
    draws = cluster_draws(len(a), kind, n_boot, seed)
    return _test(lambda value: score_p_value(a, b, value, draws[0]), theta, se, null, level, draws)


# --- linear regression, with or without an instrument -------------------------------------------


class _Sums(NamedTuple):
    """What the draws need of the data: sums over the units of each cluster."""

    zu: Float[np.ndarray, " g"]
    zv: Float[np.ndarray, " g"]
    zz: Float[np.ndarray, " g"]
    zQ: Float[np.ndarray, "g q"]
    uQ: Float[np.ndarray, "g q"]
    vQ: Float[np.ndarray, "g q"]


def wild_linear_iv(
    Y: ArrayLike,
    A: ArrayLike,
    Z: ArrayLike,
    W: ArrayLike,
    units: Units,
    *,
    null: float = 0.0,
    level: float = 0.95,
    kind: str | None = None,
    n_boot: int = 9999,
    seed: int = 0,
) -> WildBootstrap:
    """Wild restricted efficient cluster bootstrap of `tsls` (and of `ols` with ``Z = A``).

    Outcome and treatment are drawn again together from the model with the tested value imposed, and
    the clustered t-statistic is computed in every draw. The interval inverts the test, so it stays
    honest with a weak instrument and can then be unbounded.

    Args:
      Y: outcome.
      A: treatment.
      Z: instrument; the treatment itself for ordinary least squares.
      W: exogenous regressors (n, q), constant included.
      units: clusters of one kind, and observation weights.
      null: value that is tested.
      level: coverage of the interval.
      kind: see `cluster_draws`.
      n_boot: see `cluster_draws`.
      seed: see `cluster_draws`.

    References:
      Davidson and MacKinnon (2010); Roodman, Nielsen, MacKinnon and Webb (2019), section 6.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=60)
    >>> six = Units(clusters=np.arange(60) // 10)
    >>> found = wild_linear_iv(2 * z + rng.normal(size=60), z, z, np.ones((60, 1)), six)
    >>> found.interval[0] < 2 < found.interval[1]
    True
    """
    clusters = _one_kind(units)
    y, a, z = (np.asarray(v, np.float64) for v in (Y, A, Z))
    check_finite({"Y": y, "A": a, "Z": z, "W": np.asarray(W, np.float64)})
    root = np.sqrt(np.asarray(units.weights_like(np.ones(len(y)))))
    Q = np.linalg.qr(np.asarray(W, np.float64) * root[:, None])[0]
    y, a, z = (_left(root * v, Q) for v in (y, a, z))
    if not abs(z @ a) > 1e-12 * np.sqrt((z @ z) * (a @ a)):
        raise UserError("Expected an instrument that is correlated with the treatment, found none.")
    theta = float(z @ y / (z @ a))
    se = float(_cluster_se(z * (y - theta * a), clusters) / abs(z @ a))

    def sums(columns: np.ndarray) -> np.ndarray:
        out = np.zeros((clusters.max() + 1, *columns.shape[1:]))
        np.add.at(out, clusters, columns)
        return out

    draws = cluster_draws(int(clusters.max()) + 1, kind, n_boot, seed)
    zz, zQ = sums(z * z), sums(z[:, None] * Q)

    def p_value(value: float) -> float:
        u = y - value * a
        gram = np.array([[z @ z, z @ u], [z @ u, u @ u]])
        slope = np.linalg.lstsq(gram, np.array([z @ a, u @ a]), rcond=None)[0][0]
        v = a - slope * z
        parts = _Sums(sums(z * u), sums(z * v), zz, zQ, sums(u[:, None] * Q), sums(v[:, None] * Q))
        seen = (theta - value) / (_cluster_se(z * (y - theta * a), clusters) / abs(z @ a))
        drawn = _drawn_t(parts, slope, draws[0])
        return float(np.mean(drawn >= abs(seen) - _SAME))

    return _test(p_value, theta, se, null, level, draws)


def _drawn_t(parts: _Sums, slope: float, draws: Float[np.ndarray, "b g"]) -> np.ndarray:
    """|t| of every draw, about the value that is imposed."""
    su = draws * parts.zu - draws @ parts.uQ @ parts.zQ.T  # z' (errors less their projection)
    sa = slope * parts.zz + draws * parts.zv - draws @ parts.vQ @ parts.zQ.T
    moved = su.sum(axis=1) / sa.sum(axis=1)
    g = draws.shape[1]
    left = np.sqrt(g / (g - 1) * np.sum((su - moved[:, None] * sa) ** 2, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(su.sum(axis=1)) / left
    return np.where(np.isnan(t), 0.0, t)


def _cluster_se(scores: np.ndarray, clusters: np.ndarray) -> float:
    sums = np.bincount(clusters, scores)
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)))


def _left(v: np.ndarray, Q: np.ndarray) -> np.ndarray:
    return v - Q @ (Q.T @ v)


# --- what both share ----------------------------------------------------------------------------


def _one_kind(units: Units) -> Int[np.ndarray, " n"]:
    if units.clusters is None or units.multiway:
        found = "none" if units.clusters is None else "several kinds"
        raise UserError(f"Expected clusters of one kind for a wild bootstrap, found {found}.")
    return np.unique(np.asarray(units.clusters), return_inverse=True)[1]


def _test(
    p_value: Callable[[float], float],
    theta: float,
    se: float,
    null: float,
    level: float,
    draws: tuple[np.ndarray, str, bool],
) -> WildBootstrap:
    normal_quantile(level)  # refuses levels outside (0, 1)
    weights, kind, every = draws
    low, high = (_end(p_value, theta, side * max(se, 1e-300), 1 - level) for side in (-1, 1))
    return WildBootstrap(
        estimate=theta,
        null=null,
        p_value=p_value(null),
        interval=(low, high),
        level=level,
        kind=kind,
        n_draws=len(weights),
        every_draw=every,
        n_clusters=weights.shape[1],
    )


def _end(p_value: Callable[[float], float], theta: float, step: float, alpha: float) -> float:
    """Where the p-value falls below ``alpha``, from the estimate in the direction of ``step``."""
    inside, outside = theta, theta + 2 * step
    for _ in range(40):
        if p_value(outside) < alpha:
            break
        inside, outside = outside, theta + 2 * (outside - theta)
    else:
        return float(np.copysign(np.inf, step))
    for _ in range(50):
        middle = (inside + outside) / 2
        if p_value(middle) < alpha:
            outside = middle
        else:
            inside = middle
    return inside
