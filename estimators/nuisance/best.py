"""The best of several learners, or of one learner under several settings, by inner folds."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.estimators.linear_algebra import after
from jaxcore.estimators.nuisance.base import Learner, classifies, static
from jaxcore.estimators.nuisance.losses import log_loss
from jaxcore.estimators.nuisance.stack import inner_folds, out_of_fold
from jaxcore.typing import Key


class BestFit(NamedTuple):
    """Of every kind the best learner with its fit; which kind won; all losses."""

    fits: tuple[tuple[Learner, Any], ...]
    winner: Int[Array, ""]
    losses: Float[Array, " l"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """Take the learner of least loss on inner folds: log-loss of classifiers, else squared error.

    Learners that differ in numbers alone are fitted at once by `jax.vmap`; `tuning.tuned` makes
    them from a grid. Every fit chooses anew, so that cross-fitting never chooses by the rows it
    predicts. Inner folds split clusters.

    References:
      van der Laan and Dudoit (2003), the discrete super learner.

    >>> import jax, jax.numpy as jnp
    >>> from jaxcore.estimators.nuisance import Ridge
    >>> x = jnp.linspace(-1, 1, 30)[:, None]
    >>> best = Best(learners=(Ridge(alpha=10.0), Ridge(alpha=0.0)))
    >>> fitted = best.fit(x, 2 * x[:, 0], jnp.ones(30), jax.random.key(0))
    >>> int(jnp.argmin(fitted.losses)), round(float(best.predict(fitted, x[-1:])[0]), 3)
    (1, 2.0)
    """

    learners: tuple[Any, ...]  # JAX learners; where a target is known, names will do
    n_inner: int = static(3)

    @property
    def per_arm(self) -> bool:
        """As its learners want it, if they agree."""
        return all(one.per_arm for one in self.learners)

    @property
    def binary(self) -> bool:
        """Whether it predicts probabilities."""
        return any(classifies(one) for one in self.learners)

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> BestFit:
        """Losses of all on inner folds; then the best of each kind on all rows."""
        k_folds, k_inner, k_full = jax.random.split(key, 3)
        held, masks = inner_folds(k_folds, w, self.n_inner)
        of = log_loss if self.binary else lambda p, y: (p - y) ** 2

        total = jnp.sum(w)

        def loss(one: Learner) -> Array:
            lost = w @ of(out_of_fold(one, X, y, held, masks, k_inner), y) / total
            return jnp.where(jnp.isfinite(lost), lost, jnp.inf)

        losses = jnp.zeros(len(self.learners), X.dtype)
        fits, least = [], []
        for places in _kinds(self.learners):
            same = [self.learners[i] for i in places]
            if len(same) == 1:
                (chosen,), lost, best = same, loss(same[0])[None], 0
            else:
                every = jax.tree.map(lambda *v: jnp.stack([jnp.asarray(a) for a in v]), *same)
                one_by_one = getattr(same[0], "large", False)
                lost = jax.lax.map(loss, every) if one_by_one else jax.vmap(loss)(every)
                best = jnp.argmin(lost)
                chosen = jax.tree.map(lambda v, best=best: v[best], every)
            w = after(w, lost)
            fits.append((chosen, chosen.fit(X, y, w, k_full)))
            masks = after(masks, chosen.predict(fits[-1][1], X[:1]))
            losses = losses.at[np.array(places)].set(lost)
            least.append(lost[best])
        return BestFit(tuple(fits), jnp.argmin(jnp.stack(least)), losses)

    def predict(self, fitted: BestFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Prediction of the best."""
        return jnp.stack([one.predict(f, X) for one, f in fitted.fits])[fitted.winner]

    def findings(self, fitted: BestFit) -> dict[str, Array]:
        """The losses of all."""
        return {"losses": fitted.losses}


def _kinds(learners: tuple[Any, ...]) -> list[list[int]]:
    """Places of learners that differ in numbers alone; of one without numbers, its own."""
    kinds: dict[Any, list[int]] = {}
    for i, one in enumerate(learners):
        shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(one))
        kinds.setdefault((jax.tree.structure(one), shapes or i), []).append(i)
    return list(kinds.values())
