"""Perfect separation: covariates that say for certain who is treated, so that no fit is best."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError

_FIRST = 2000  # units that are looked at before all are


def separated(a: Float[np.ndarray, " n"], X: Float[np.ndarray, "n p"]) -> bool:
    """Whether a linear combination of the columns separates the arms, perfectly or but for ties.

    A linear programme finds it; a logistic regression without penalty then has no finite solution.

    References:
      Albert and Anderson (1984); Konis (2007), Linear programming algorithms for detecting
      separated data in binary logistic regression models.

    >>> separated(np.array([0.0, 1.0, 0.0]), np.array([[1.0], [3.0], [2.0]]))
    True
    """
    n = len(a)
    if n > _FIRST:  # a part that is not separated shows that all are not
        part = np.random.default_rng(0).permutation(n)[:_FIRST]
        if 0 < a[part].sum() < len(part) and not separated(a[part], X[part]):
            return False
    from scipy.optimize import linprog

    spread = X.std(axis=0)
    columns = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)
    signed = np.where(a > 0.5, 1.0, -1.0)[:, None] * np.c_[np.ones(n), columns]
    found = linprog(-signed.sum(axis=0), -signed, np.zeros(n), bounds=(-1, 1), method="highs")
    return found.status == 0 and -found.fun > 1e-7 * n**0.5


def separating_columns(a: Float[np.ndarray, " n"], X: Float[np.ndarray, "n p"]) -> list[int]:
    """Columns each of which alone separates the arms.

    >>> separating_columns(np.array([0.0, 1.0, 0.0]), np.array([[0, 1], [1, 0], [0, 2.0]]))
    [0, 1]
    """
    treated, others = X[a > 0.5], X[a <= 0.5]
    if not len(treated) or not len(others):
        return []
    apart = (treated.min(axis=0) >= others.max(axis=0)) | (
        treated.max(axis=0) <= others.min(axis=0)
    )
    return np.flatnonzero(apart & (np.ptp(X, axis=0) > 0)).tolist()


def words_on_separation(
    a: Float[np.ndarray, " n"], X: Float[np.ndarray, "n p"], names: Sequence[str]
) -> tuple[str, ...]:
    """A notice where the columns separate the arms, with those that do it alone; else nothing.

    >>> words_on_separation(np.array([0.0, 1.0]), np.array([[1.0], [3.0]]), ["x"])[0][:25]
    'perfect separation by x: '
    """
    alone = [names[j] for j in separating_columns(a, X)]
    if not alone and not (X.shape[1] and separated(a, X)):
        return ()
    which = ", ".join(alone) or "several covariates together"
    return (
        f"perfect separation by {which}: values are found in one arm only, and propensities "
        "without a penalty do not exist",
    )


def check_separation(
    a: Float[np.ndarray, " n"], X: Float[np.ndarray, "n p"], names: Sequence[str]
) -> None:
    """Refuse covariates under which a propensity without penalty does not exist.

    Raises:
      UserError: perfect separation, with the columns that do it alone.
    """
    for words in words_on_separation(a, X, names):
        raise UserError(f"Expected covariates that leave the treatment to chance, found {words}.")
