"""How well a decoder foresees the next token."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from jaxcore import ops
from jaxcore.models.llama.config import LlamaConfig
from jaxcore.models.llama.model import vocabulary
from jaxcore.typing import Params


def next_tokens(
    tokens: Int[Array, "b t"], segments: Int[Array, "b t"] | None = None
) -> tuple[Int[Array, "b t"], Bool[Array, "b t"]]:
    """The token after each, and whether there is one in the same text.

    Args:
      tokens: rows.
      segments: number of the text of each token, 0 for padding; None: a row is one text.

    >>> targets, there = next_tokens(jnp.array([[5, 6, 7, 0]]), jnp.array([[1, 1, 2, 0]]))
    >>> targets.tolist(), there.tolist()
    ([[6, 7, 0, 0]], [[True, False, False, False]])
    """
    targets = jnp.concatenate([tokens[:, 1:], jnp.zeros_like(tokens[:, :1])], axis=1)
    last = jnp.zeros((tokens.shape[0], 1), bool)
    if segments is None:
        return targets, jnp.concatenate([jnp.ones(targets[:, 1:].shape, bool), last], axis=1)
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] != 0)
    return targets, jnp.concatenate([same, last], axis=1)


def next_token_loss(
    params: Params,
    hidden: Float[Array, "b t d"],
    targets: Int[Array, "b t"],
    mask: Real[Array, "b t"] | Bool[Array, "b t"],
    cfg: LlamaConfig,
    chunk: int = 8192,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the cross-entropies of the tokens that count, and how many these are.

    Logits are formed for ``chunk`` tokens of the vocabulary at a time.

    Args:
      params: of the network.
      hidden: of `apply` with ``logits="none"``.
      targets: the token after each, see :func:`next_tokens`.
      mask: 0 where a token does not count: prompts, images, padding. Other numbers are weights.
      cfg: sizes and options.
      chunk: see `jaxcore.ops.chunked_cross_entropy`.

    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> hidden, targets = jnp.zeros((1, 3, 8)), jnp.array([[1, 2, 3]])
    >>> params = {"embed": jnp.ones((11, 8)), "head": jnp.ones((11, 8))}
    >>> total, count = next_token_loss(params, hidden, targets, jnp.array([[1, 1, 0]]), cfg, 4)
    >>> round(float(total / count), 4)
    2.3979
    """
    rows, table = hidden.reshape(-1, hidden.shape[-1]), vocabulary(params, cfg)
    errors = ops.chunked_cross_entropy(rows, table, targets.reshape(-1), chunk=chunk)
    weights = mask.reshape(-1).astype(errors.dtype)
    # A token that does not count may have an error that is not finite.
    errors = jnp.where(weights == 0, 0, errors)
    return jnp.sum(errors * weights), jnp.sum(weights)


def token_log_probs(
    params: Params,
    hidden: Float[Array, "b t d"],
    tokens: Int[Array, "b t"],
    cfg: LlamaConfig,
    *,
    valid: Bool[Array, "b t"] | None = None,
    chunk: int = 8192,
) -> Float[Array, "b t"]:
    """Log-probability of every token by what stands before it in its row.

    It is 0 for the first token of a row, which nothing foresees, and for padding. Logits are formed
    for ``chunk`` tokens of the vocabulary at a time.

    Args:
      params: of the network.
      hidden: of `apply` with ``logits="none"`` and the same padding.
      tokens: rows.
      cfg: sizes and options.
      valid: False for padding, on the left or on the right; None: no padding.
      chunk: see `jaxcore.ops.chunked_cross_entropy`.

    Returns:
      At least float32, at most 0.

    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> params = {"embed": jnp.ones((11, 8)), "head": jnp.ones((11, 8))}
    >>> found = token_log_probs(params, jnp.zeros((1, 3, 8)), jnp.array([[1, 2, 3]]), cfg)
    >>> [round(float(x), 4) for x in found[0]]
    [0.0, -2.3979, -2.3979]
    """
    before = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    table, targets = vocabulary(params, cfg), tokens[:, 1:]
    errors = ops.chunked_cross_entropy(before, table, targets.reshape(-1), chunk=chunk)
    found = jnp.pad(-errors.reshape(targets.shape), ((0, 0), (1, 0)))
    if valid is None:
        return found
    seen = jnp.pad(valid[:, :-1], ((0, 0), (1, 0)))  # the first token of a row padded on the left
    return jnp.where(valid & seen, found, 0)
