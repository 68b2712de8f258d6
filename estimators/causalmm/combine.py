"""Logits of a factual and of counterfactual branches made into the scores of one next token.

Zhou et al. 2025 (CausalMM); Leng et al. 2024 (VCD), whose formula and constraint these are.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from jaxcore.errors import UserError


def plausibility_mask(
    logits: Float[Array, "*b v"], epsilon: float | Float[Array, ""]
) -> Bool[Array, "*b v"]:
    """Tokens that the factual branch itself finds plausible.

    Those with a probability of at least ``epsilon`` times the largest. 0 lets all pass, 1 only the
    largest, so that no contrast can change a greedy answer; 0.1 is usual.

    Args:
      logits: of the factual branch, before temperature.
      epsilon: in [0, 1].

    >>> plausibility_mask(jnp.log(jnp.array([0.6, 0.3, 0.1])), 0.4).tolist()
    [True, True, False]
    """
    wide = logits.astype(jnp.float32)
    cutoff = jnp.log(jnp.asarray(epsilon, jnp.float32)) + jnp.max(wide, axis=-1, keepdims=True)
    return wide >= cutoff


def combine_logits(
    logits: Float[Array, "*b v"],
    counterfactuals: Sequence[Float[Array, "*b v"]],
    gamma: float | Sequence[float],
    epsilon: float = 0.1,
) -> Float[Array, "*b v"]:
    """Scores ``l + sum_m gamma_m (l - c_m)``, minus infinity where a token is not plausible.

    With one branch that is ``(1 + gamma) l - gamma c``.

    Args:
      logits: l, of the factual branch.
      counterfactuals: c_m, of the others, at the same place of the text.
      gamma: strength of the contrast, one for all or one for each.
      epsilon: see `plausibility_mask`.

    Raises:
      UserError: as many strengths as branches are needed; epsilon is not in [0, 1].

    >>> l, c = jnp.log(jnp.array([0.6, 0.4])), jnp.log(jnp.array([0.9, 0.1]))
    >>> jnp.exp(combine_logits(l, [c], 1.0)).round(3).tolist()
    [0.4..., 1.6...]
    """
    gammas = [gamma] * len(counterfactuals) if isinstance(gamma, int | float) else list(gamma)
    if len(gammas) != len(counterfactuals):
        raise UserError(
            f"Expected one gamma for each of {len(counterfactuals)} branches, found {len(gammas)}."
        )
    if not 0 <= epsilon <= 1:
        raise UserError(f"Expected epsilon in [0, 1], found {epsilon}.")
    stacked = jnp.stack([logits, *counterfactuals])
    return _combined(jnp.asarray(gammas, jnp.float32), jnp.float32(epsilon), stacked)


def combiner(gammas: Sequence[float], epsilon: float) -> Partial:
    """The same as a function of (branches, b, v), factual first, for `jaxcore.generate.generate`.

    A pytree: other numbers need no other program.

    >>> combiner([1.0], 0.1)(jnp.zeros((2, 1, 3))).tolist()
    [[0.0, 0.0, 0.0]]
    """
    return Partial(_combined, jnp.asarray(gammas, jnp.float32), jnp.float32(epsilon))


def _combined(gammas: Array, epsilon: Array, stacked: Array) -> Array:
    stacked = stacked.astype(jnp.float32)
    factual = stacked[0]
    differences = factual[None] - stacked[1:]
    scores = factual + jnp.tensordot(gammas, differences, axes=1, precision="highest")
    return jnp.where(plausibility_mask(factual, epsilon), scores, -jnp.inf)
