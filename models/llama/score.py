"""One number for a whole text: a linear head on the state of its last token."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcore import ops
from jaxcore.models.llama.config import LlamaConfig
from jaxcore.models.llama.model import apply
from jaxcore.typing import Params


def last_states(hidden: Float[Array, "b t d"], valid: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """State of the last token of each row that is no padding, on whichever side padding is.

    >>> hidden = jnp.arange(6.0).reshape(2, 3, 1)
    >>> last_states(hidden, jnp.array([[True, True, False], [False, True, True]])).tolist()
    [[1.0], [5.0]]
    """
    last = valid.shape[1] - 1 - jnp.argmax(valid[:, ::-1], axis=1)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


def score(
    params: Params,
    heads: Float[Array, "k d"],
    tokens: Int[Array, "b t"],
    cfg: LlamaConfig,
    *,
    valid: Bool[Array, "b t"] | None = None,
) -> Float[Array, "b k"]:
    """Scores of texts, as reward models give them.

    Args:
      params: of the decoder.
      heads: one row of weights for each score, without a bias, as in the sequence classifiers of
        Hugging Face's libraries (``score.weight``).
      tokens: rows, padded on either side.
      cfg: sizes and options.
      valid: False for padding; None: no padding.

    Returns:
      At least float32.

    >>> import jax
    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> params = llama.init(jax.random.key(0), cfg)
    >>> score(params, jnp.ones((1, 8)), jnp.array([[3, 1], [1, 2]]), cfg).shape
    (2, 1)
    """
    there = jnp.ones(tokens.shape, bool) if valid is None else valid
    hidden = apply(params, tokens, cfg, valid=there, logits="none").hidden
    return ops.project_rows(last_states(hidden, there), heads)
