"""A simulation study of the routes, with a known effect of the confounder."""

import jax
import jax.numpy as jnp

from jaxcore.estimators.deconfound import routes
from jaxcore.estimators.deconfound.simulate import DELTA, linear
from jaxcore.estimators.linear_algebra import after
from jaxcore.estimators.monte_carlo import Replication, Study
from jaxcore.typing import Key


def deconfound_study(n: int, *, n_folds: int = 5, penalty: float = 2.0) -> Study:
    """Partially linear, instrument, and the biased baseline on samples of `simulate.linear`.

    Args:
      n: rows per sample.
      n_folds: folds of the partially linear route.
      penalty: of its ridge regressions.
    """

    def draw(key: Key) -> Replication:
        of_data, of_folds = jax.random.split(key)
        s = linear(of_data, n)
        ids = jax.random.permutation(of_folds, n) % n_folds
        plm = routes.plm(s.Y, s.C, s.features, ids, n_folds, penalty=penalty)
        iv = routes.iv(s.Y, s.C, after(s.Z, plm.theta))  # what is factorised waits its turn
        alone = routes.ols_c(s.Y, after(s.C, iv.theta))
        every = (plm, iv, alone)
        theta, se = (jnp.concatenate([getattr(e, name) for e in every]) for name in ("theta", "se"))
        return Replication(theta, se)

    names = ("plm", "iv", "ols_c")
    return Study(names=names, truth=DELTA, draw=draw)
