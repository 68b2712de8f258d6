"""Networks that tell the outcome without treatment and the kind of place, with effects by kind."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.estimators.image_confounding import heterogeneity
from jaxcore.train.tasks.image_fits import ImageFits
from jaxcore.typing import Key, Params

CLUSTERS = "clusters"
"""Where the effects of the clusters stand among the parameters."""

_FIRST_DEVIATION = 0.1  # of the effect of a cluster before training


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ClusterTask(ImageFits):
    """Train networks of latent clusters, as `ImageFits` are.

    Targets are the treatment (0 or 1) and the standardised outcome. A network gives the outcome
    without treatment and log-odds of all clusters but the first against it; effects of clusters
    are parameters beside it. Losses are those of `heterogeneity.losses`, unit by unit.
    """

    name: ClassVar[str] = "image_clusters"
    n_clusters: int = 2
    draws: int = 2  # of memberships and effects, for each batch
    spread: float = 0.1  # of the effects before training, in standard deviations of the outcome

    @property
    def width(self) -> int:
        """Numbers that the network gives for a unit."""
        return self.n_clusters

    def of_network(self, learned: Params) -> Params:
        """All but the effects of the clusters."""
        return {name: tree for name, tree in learned.items() if name != CLUSTERS}

    def init_params(self, key: Key) -> Params:
        """Fresh networks, and effects about the difference in means among each fit's own units."""
        a, y = self.units.target[:, 0], self.units.target[:, 1]
        arms = [self.units.masks * weight for weight in (a, 1 - a)]
        treated, others = (np.sum(w * y, axis=1) / np.sum(w, axis=1) for w in arms)
        first = functools.partial(
            heterogeneity.first_means, clusters=self.n_clusters, spread=self.spread
        )
        mean = jax.vmap(first)(jnp.asarray(treated - others, jnp.float32))
        raw = jnp.full(mean.shape, np.log(np.expm1(_FIRST_DEVIATION)), mean.dtype)
        return {**super().init_params(key), CLUSTERS: {"mean": mean, "raw": raw}}

    def errors(
        self,
        out: Float[Array, "b o"],
        target: Float[Array, "b t"],
        learned: Params,
        key: Key | None,
    ) -> Float[Array, " b"]:
        """Mean over draws; without a key that of the expected effect."""
        logits, effects = heterogeneity.against_first(out[:, 1:]), learned[CLUSTERS]
        if key is None:
            draws = heterogeneity.predict(logits, effects["mean"]).expected[None]
        else:
            noise = heterogeneity.draw_noise(key, self.draws, *logits.shape)
            draws = heterogeneity.unit_effects(logits, effects["mean"], effects["raw"], noise)
        return jnp.mean(heterogeneity.losses(out[:, 0], draws, target[:, 0], target[:, 1]), axis=0)
