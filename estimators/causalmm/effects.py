"""How much the attention of a branch matters for each token of a text.

Zhou et al. 2025, "Mitigating modality prior-induced hallucinations in multimodal large language
models via deciphering attention causality", section 3: the effect of attention on the output is the
difference between the output and that under another attention.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class Effect:
    """Effects of one counterfactual branch on a text, token by token.

    Attributes:
      logit: of the token itself, factual minus counterfactual; above zero, the attention speaks for
        the token.
      log_odds: the same of the logarithm of the odds of the token against all others.
      total_variation: half the sum of the absolute differences of all probabilities, in [0, 1].
    """

    logit: Float[Array, "*b"]
    log_odds: Float[Array, "*b"]
    total_variation: Float[Array, "*b"]

    def summary(self, tokens: Sequence[str]) -> str:
        """One line per token of a single text.

        >>> one = jnp.ones(1)
        >>> print(Effect(one, one, one).summary(["yes"]))
        token    logit  log-odds  variation
        yes      1.000     1.000      1.000
        """
        width = max(5, *(len(token) for token in tokens))
        lines = [f"{'token':<{width}}  {'logit':>7}  {'log-odds':>8}  {'variation':>9}"]
        numbers = (np.asarray(self.logit), np.asarray(self.log_odds))
        for token, one, odds, total in zip(
            tokens, *numbers, np.asarray(self.total_variation), strict=True
        ):
            lines.append(f"{token:<{width}}  {one:7.3f}  {odds:8.3f}  {total:9.3f}")
        return "\n".join(lines)


def causal_effect(
    logits: Float[Array, "*b v"], counterfactual: Float[Array, "*b v"], tokens: Int[Array, "*b"]
) -> Effect:
    """Effect of attention on each token.

    Args:
      logits: of the factual branch, at the place before the token.
      counterfactual: of the branch whose attention is edited; a mean over draws of it, where the
        edit is random.
      tokens: of the text, generated or given.

    >>> logits, other = jnp.log(jnp.array([0.8, 0.2])), jnp.log(jnp.array([0.5, 0.5]))
    >>> effect = causal_effect(logits, other, jnp.array(0))
    >>> [round(float(x), 3) for x in (effect.logit, effect.log_odds, effect.total_variation)]
    [0.47, 1.386, 0.3]
    """
    both = [x.astype(jnp.float32) for x in (logits, counterfactual)]

    def own(x: Array) -> Array:
        return jnp.take_along_axis(x, tokens[..., None], axis=-1)[..., 0]

    def odds(x: Array) -> Array:
        index = jnp.arange(x.shape[-1])
        here = index.reshape((1,) * (x.ndim - 1) + (-1,)) == tokens[..., None]
        return own(x) - jax.nn.logsumexp(jnp.where(here, -jnp.inf, x), axis=-1)

    one, other = (jax.nn.softmax(x, axis=-1) for x in both)
    return Effect(
        logit=own(both[0]) - own(both[1]),
        log_odds=odds(both[0]) - odds(both[1]),
        total_variation=jnp.sum(jnp.abs(one - other), axis=-1) / 2,
    )
