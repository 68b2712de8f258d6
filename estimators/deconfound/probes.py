"""Ridge probes: what features of texts say about an outcome, and which penalty to believe.

Logs of randomised tests (headlines tried against each other) hold two kinds of evidence. Outcomes
across tests are observational: traffic and time move them, too. Outcomes within a test are
randomised. Whoever has both can see what a penalty that was chosen on the former is worth on the
latter; a penalty chosen on the latter itself is an oracle's.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators import crossfit, fixed_effects
from jaxcore.estimators.columns import column, covariate_columns, label_numbers, single
from jaxcore.estimators.deconfound.ridge import ridge_residuals
from jaxcore.estimators.precision import in_double
from jaxcore.estimators.units import Units

PENALTIES = tuple(10.0**k for k in range(-2, 7))


class Probe(NamedTuple):
    """Predictions out of fold, by penalty."""

    penalties: Float[np.ndarray, " k"]
    observed: Float[np.ndarray, " k"]  # R2 of the outcome as it is
    randomised: Float[
        np.ndarray, " k"
    ]  # correlation with the outcome within tests; 0 of a constant
    predicted: Float[np.ndarray, "k n"]

    @property
    def by_logs(self) -> float:
        """The penalty that predicts outcomes best: all that observational logs allow."""
        return float(self.penalties[np.argmax(self.observed)])

    @property
    def by_tests(self) -> float:
        """The penalty that is best within tests: known only to who has randomised outcomes."""
        return float(self.penalties[np.argmax(self.randomised)])

    @property
    def lost(self) -> float:
        """Correlation within tests that the choice by logs gives away."""
        return float(np.max(self.randomised) - self.randomised[np.argmax(self.observed)])


def ridge_probe(
    features: Any,
    Y: Any,
    tests: Any,
    *,
    penalties: Sequence[float] = PENALTIES,
    n_folds: int = 5,
    seed: int = 0,
) -> Probe:
    """Ridge regressions of an outcome, or a reward, on features, judged within and across tests.

    Args:
      features: of the texts, (n, d).
      Y: outcome, or an adjusted reward.
      tests: label of the randomised test of each text; folds never split one.
      penalties: to choose from; see `ridge.ridge_residuals` for what they mean.
      n_folds: of cross-fitting.
      seed: of the folds.

    Raises:
      UserError: data that do not fit, a penalty below 0, or no test with two texts.

    >>> rng = np.random.default_rng(0)
    >>> x, tests = rng.normal(size=(60, 2)), np.repeat(np.arange(20), 3)
    >>> traffic = rng.normal(size=20)[tests]
    >>> probe = ridge_probe(x, x[:, 0] + traffic, tests)
    >>> bool(probe.randomised.max() > 0.9), probe.by_logs in probe.penalties
    (True, True)
    """
    y = column(Y, "outcome")
    x = covariate_columns(features, None, len(y))[0]
    grid = np.asarray(penalties, np.float64)
    if grid.ndim != 1 or not len(grid) or not np.all(grid >= 0):
        raise UserError(f"Expected penalties of at least 0, found {list(penalties)[:9]}.")
    numbers = label_numbers(single(tests, "tests", n=len(y)), "test")[1]
    if np.max(np.bincount(numbers)) < 2:
        raise UserError("Expected tests with several texts, found one text in each.")
    clusters: Any = numbers
    ids = crossfit.fold_ids(jax.random.key(seed), len(y), n_folds, units=Units(clusters=clusters))
    left: Any = _left
    predicted = y[None] - np.asarray(left(x, y, np.asarray(ids), grid, n_folds))
    rows: Any = np.concatenate([y[None], predicted]).T
    within = np.asarray(fixed_effects.demean(rows, clusters).values)
    return Probe(
        grid,
        1 - np.sum((y[None] - predicted) ** 2, axis=1) / np.sum((y - y.mean()) ** 2),
        _correlations(within[:, 0], within[:, 1:]),
        predicted,
    )


@in_double
def _left(
    features: Float[Array, "n d"],
    y: Float[Array, " n"],
    fold_ids: Int[Array, " n"],
    penalties: Float[Array, " k"],
    n_folds: int,
) -> Float[Array, "k n"]:
    """Residuals for every penalty; products of the features are formed once for each fold."""

    def one(penalty: ArrayLike) -> Array:
        return ridge_residuals(features, y[:, None], fold_ids, n_folds, jnp.asarray(penalty))[:, 0]

    return jax.vmap(one)(penalties)


def _correlations(y: np.ndarray, x: np.ndarray) -> Float[np.ndarray, " k"]:
    size = np.sqrt(np.sum(y**2) * np.sum(x**2, axis=0))
    return np.divide(y @ x, size, out=np.zeros_like(size), where=size > 0)
