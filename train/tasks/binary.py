"""The loss of a probability of treatment."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def cross_entropy(
    logits: Float[Array, "*b"],
    labels: Float[Array, "*b"],
    *,
    smoothing: float = 0.05,
    clip: float = 1e-3,
) -> Float[Array, "*b"]:
    """Cross-entropy of each unit, with smoothed labels and a clipped probability.

    Args:
      logits: log-odds of treatment.
      labels: 0 or 1; ``(1 - smoothing) label + smoothing / 2`` is compared.
      smoothing: in [0, 1).
      clip: the probability is kept in [clip, 1 - clip]; beyond, the gradient is 0. 0 clips nothing.

    >>> cross_entropy(jnp.zeros(1), jnp.ones(1)).round(4).tolist()
    [0.6930999755859375]
    """
    if clip:
        bound = float(np.log1p(-clip) - np.log(clip))
        logits = jnp.clip(logits, -bound, bound)
    target = (1 - smoothing) * labels + smoothing / 2
    return jax.nn.softplus(logits) - target * logits
