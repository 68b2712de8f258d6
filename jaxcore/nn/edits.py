"""Attention edits as data that is handed to ``apply`` of a language model.

Zhou et al. 2025, "Mitigating modality prior-induced hallucinations in multimodal large language
models via deciphering attention causality". Which layers, heads and rows of the batch are edited
are arrays: other ones need no other program.
"""

from collections.abc import Sequence
from typing import Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxcore.errors import UserError
from jaxcore.ops.attention_edits import (
    EditKind,
    EditMode,
    check_kind,
    edit_language_attention,
    uniform_attention,
)
from jaxcore.ops.token_attention import attention_scores, masked_softmax, weighted_values
from jaxcore.typing import Key

Band = Literal["early", "middle", "late", "all"]


@struct.dataclass
class AttentionEdit:
    """What happens to the attention weights of a language model, after the softmax.

    A pytree: goes through jit and scan; only `kind` and `mode` decide what is compiled. `stacked`
    gives every layer its own part, in which each array lacks the axis of layers.

    Attributes:
      kind: of `jaxcore.ops.edit_language_attention`; or "amplify", which leaves the weights alone
        and adds ``strength * |score|`` to the scores of the last query for the `targets`, before
        the softmax (Liu et al. 2024, "Paying more attention to image").
      mode: "masked" or "official", see there.
      layers: (l,) which layers are edited.
      heads: (h,) which heads, None for all.
      rows: (b,) which rows of the batch, None for all. Branches of a contrast are stacked along
        the batch: only those of the counterfactual branch are edited.
      keys: (b,) typed random keys for "random" and "shuffle".
      rand: (l, b, h, t, s) numbers for "random" in the place of keys.
      perm: (l, b, h, t, s) orders for "shuffle" in the place of keys.
      targets: (b, s) keys for "amplify"; s is the length of the cache if there is one.
      strength: for "amplify".
    """

    layers: Bool[Array, " l"]
    kind: str = struct.field(pytree_node=False, default="reverse")
    mode: EditMode = struct.field(pytree_node=False, default="masked")
    heads: Bool[Array, " h"] | None = None
    rows: Bool[Array, " b"] | None = None
    keys: Key | None = None
    rand: Float[Array, "l b h t s"] | None = None
    perm: Int[Array, "l b h t s"] | None = None
    targets: Bool[Array, "b s"] | None = None
    strength: Float[Array, ""] | None = None

    @classmethod
    def create(
        cls,
        kind: EditKind,
        layers: Band | Sequence[int] | Bool[Array, " l"],
        depth: int,
        *,
        mode: EditMode = "masked",
        heads: Bool[Array, " h"] | None = None,
        rows: Bool[Array, " b"] | None = None,
        keys: Key | None = None,
    ) -> Self:
        """Check what can be checked before anything is compiled.

        Args:
          kind: see above.
          layers: a name or numbers, see `layers_of`; or (l,) of bool.
          depth: layers of the network.
          mode: see above.
          heads: see above.
          rows: see above.
          keys: see above.

        Raises:
          UserError: no such kind, mode or layer.

        >>> AttentionEdit.create("reverse", "middle", 6).layers.tolist()
        [False, False, True, True, False, False]
        """
        check_kind(kind, mode)
        chosen = layers if isinstance(layers, jax.Array) else layers_of(layers, depth)
        return cls(chosen, kind, mode, heads, rows, keys)

    def stacked(self, length: int) -> Self:
        """The same with an axis of layers in front of every array, for `jaxcore.nn.apply_stack`.

        Every layer has random numbers of its own.
        """

        def every(x: Array | None) -> Array | None:
            return None if x is None else jnp.broadcast_to(x, (length, *x.shape))

        keys = self.keys
        if keys is not None:
            fold = jax.vmap(jax.random.fold_in, (0, None))
            keys = jax.vmap(fold, (None, 0))(keys, jnp.arange(length))
        return self.replace(  # pyright: ignore[reportAttributeAccessIssue]
            keys=keys,
            heads=every(self.heads),
            rows=every(self.rows),
            targets=every(self.targets),
            strength=every(self.strength),
        )


def layers_of(layers: Band | Sequence[int], depth: int) -> Bool[Array, " l"]:
    """A mask of layers: a third of them by name, all, or some by number (from 0).

    Raises:
      UserError: no such name or number.

    >>> np.flatnonzero(layers_of("middle", 32)).tolist()
    [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    >>> layers_of([0, 2], 3).tolist()
    [True, False, True]
    """
    third = depth // 3
    bands = {
        "early": range(third),
        "middle": range(third, 2 * depth // 3),
        "late": range(2 * depth // 3, depth),
        "all": range(depth),
    }
    if isinstance(layers, str) and layers not in bands:
        raise UserError(f"The layers must be one of {', '.join(bands)}, found {layers!r}.")
    numbers = [int(n) for n in (bands[layers] if isinstance(layers, str) else layers)]
    if not numbers or min(numbers) < 0 or max(numbers) >= depth:
        raise UserError(f"The layers must be numbers from 0 to {depth - 1}, found {layers!r}.")
    mask = np.zeros(depth, bool)
    mask[numbers] = True
    return jnp.asarray(mask)


def edit_scores(
    scores: Float[Array, "b h t s"], allowed: Bool[Array, "b t s"], edit: AttentionEdit
) -> Float[Array, "b h t s"]:
    """Scores before the softmax with those of an edit "amplify"; others change nothing here."""
    if edit.kind != "amplify":
        return scores
    if edit.targets is None or edit.strength is None:
        raise UserError("An edit of kind 'amplify' needs targets and a strength.")
    last = jnp.arange(scores.shape[2]) == scores.shape[2] - 1
    here = (allowed & edit.targets[:, None] & last[None, :, None])[:, None]
    more = scores + edit.strength.astype(scores.dtype) * jnp.abs(scores)
    chosen = here & _chosen(edit, scores.shape[0], scores.shape[1])
    return jnp.where(chosen, more, scores)


def edit_weights(
    weights: Float[Array, "b h t s"], allowed: Bool[Array, "b t s"], edit: AttentionEdit
) -> Float[Array, "b h t s"]:
    """Attention weights with those of an edited layer; an edit "amplify" changes nothing here.

    Args:
      weights: after the softmax, zero where not allowed.
      allowed: which key a query may see.
      edit: of this layer, see `AttentionEdit.stacked`. Whether the layer is edited at all is for
        the caller to look at.
    """
    if edit.kind == "amplify":
        return weights
    edited = edit_language_attention(
        weights,
        allowed,
        edit.kind,  # pyright: ignore[reportArgumentType]
        mode=edit.mode,
        rand=edit.rand,
        perm=edit.perm,
        keys=edit.keys,
    )
    return jnp.where(_chosen(edit, weights.shape[0], weights.shape[1]), edited, weights)


def edited_attention(
    q: Float[Array, "b t h d"],
    k: Float[Array, "b s n d"],
    v: Float[Array, "b s n d"],
    allowed: Bool[Array, "b t s"],
    edit: AttentionEdit,
) -> Float[Array, "b t h d"]:
    """Attention of one edited layer, for ``jax.lax.cond`` on ``edit.layers``.

    "uniform" never forms the edited weights, see `jaxcore.ops.uniform_attention`.

    Args:
      q: queries, rotated.
      k: keys, rotated; each of the n heads serves h / n heads of queries.
      v: values.
      allowed: which key a query may see.
      edit: of this layer, see `AttentionEdit.stacked`.

    >>> q = jnp.ones((1, 3, 2, 4))
    >>> edit = AttentionEdit.create("uniform", "all", 1)
    >>> allowed = jnp.tri(3, dtype=bool)[None]
    >>> edited_attention(q, q, jnp.arange(12.0).reshape(1, 3, 1, 4), allowed, edit)[0, :, 0, 0]
    Array([0., 2., 4.], dtype=float32)
    """
    weights = masked_softmax(edit_scores(attention_scores(q, k), allowed, edit), allowed[:, None])
    if edit.kind != "uniform":
        return weighted_values(edit_weights(weights, allowed, edit), v)
    edited = uniform_attention(v, allowed, mode=edit.mode)
    edited = jnp.repeat(edited, q.shape[2] // v.shape[2], axis=2)
    chosen = jnp.moveaxis(_chosen(edit, q.shape[0], q.shape[2]), 1, 2)
    return jnp.where(chosen, edited, weighted_values(weights, v))


def _chosen(edit: AttentionEdit, rows: int, heads: int) -> Array:
    """(b, h, 1, 1): which rows and heads are edited."""
    chosen = jnp.ones((rows, heads), bool)
    if edit.rows is not None:
        chosen &= edit.rows[:, None]
    if edit.heads is not None:
        chosen &= edit.heads[None]
    return chosen[:, :, None, None]
