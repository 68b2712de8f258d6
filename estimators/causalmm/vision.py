"""Counterfactual features of images: what an edited vision encoder hands to the language model."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.config import VisionEdit
from jaxcore.models import llava, qwen2_vl
from jaxcore.nn import intervene, layers_of
from jaxcore.ops import edit_language_attention, patch_weights
from jaxcore.typing import Key, Params


def llava_features(
    params: Params,
    images: Float[Array, "n h w c"],
    cfg: llava.LlavaConfig,
    edit: VisionEdit,
    *,
    keys: Key | None = None,
    rand: Float[Array, "n heads t t"] | None = None,
    perm: Int[Array, "heads tt"] | None = None,
) -> Float[Array, "n k e"]:
    """Embeddings of images by LLaVA's tower with other attention.

    Pure: can be jitted, ``cfg`` and ``edit`` static.

    Args:
      params: of the whole network.
      images: normalised squares.
      cfg: configuration of the network; must leave the token for the whole image out.
      edit: what is changed.
      keys: one per image, for random kinds.
      rand: numbers of "random" with mode "reweight", in the place of keys.
      perm: order of "shuffle" with mode "reweight", see `jaxcore.ops.edit_vision_attention`.

    Raises:
      UserError: the network keeps the token for the whole image; no keys for a random kind.
    """
    if cfg.select != "patches":
        raise UserError("Expected a LLaVA of patches alone for an edit, found one of all tokens.")
    if edit.mode == "inject":
        tower = _injected(llava.tower, "layers/attention", edit, keys, cfg.vision.depth)
        return llava.project(params, tower(params, images, cfg).tokens, cfg)
    seen = llava.tower(params, images, cfg, attention=True)
    assert seen.attention is not None
    side = int(cfg.vision.tokens**0.5)
    drawn: dict[str, Any] = {"keys": keys, "rand": rand, "perm": perm}
    weights = patch_weights(seen.attention, (side, side), edit.kind, **drawn)
    return llava.project(params, reweighted(seen.tokens, weights, edit), cfg)


def reweighted(
    features: Float[Array, "n k d"], weights: Float[Array, "n k"], edit: VisionEdit
) -> Float[Array, "n k d"]:
    """Features of patches times their weights, rounded through the type of the edit.

    >>> reweighted(jnp.ones((1, 2, 1)), jnp.array([[0.1, 2.0]]), VisionEdit()).ravel()
    Array([0.1, 2. ], dtype=float32)
    """
    weighted = features * weights.astype(features.dtype)[..., None]
    return weighted if edit.cast == "float32" else weighted.astype(edit.cast).astype(features.dtype)


def qwen2_vl_features(
    params: Params,
    patches: Any,
    grids: Sequence[tuple[int, int, int]],
    cfg: qwen2_vl.Qwen2VLConfig,
    edit: VisionEdit,
    *,
    keys: Key | None = None,
) -> Float[Array, "m e"]:
    """Embeddings of images by Qwen2-VL's tower with other attention.

    An extension: there is no published one. Each frame of each image is edited by itself, on the
    attention of the last block, and the weights go to the patches before cells are merged.

    Args:
      params: of the whole network.
      patches: of `qwen2_vl.join_patches`.
      grids: frames, rows and columns of patches of each image.
      cfg: configuration of the network.
      edit: what is changed.
      keys: one per image, for random kinds.

    Raises:
      UserError: no keys for a random kind.
    """
    if edit.mode == "inject":
        one = None if keys is None else keys[:1]
        tower = _injected(qwen2_vl.tower, "layers/attention", edit, one, cfg.vision.depth)
        return qwen2_vl.project(params, tower(params, patches, cfg, attention=True).tokens, cfg)
    seen = qwen2_vl.tower(params, patches, cfg, attention=True)
    assert seen.attention is not None
    weights, at = [], 0
    for image, (frames, rows, columns) in enumerate(grids):
        size = rows * columns
        for frame in range(frames):
            own = seen.attention[:, :, at : at + size, at : at + size]
            drawn = None
            if keys is not None:
                drawn = jax.random.fold_in(keys[image], frame)[None]
            found = patch_weights(own, (rows, columns), edit.kind, keys=drawn)
            weights.append(_by_cells(found.reshape(rows, columns), cfg.vision.merge))
            at += size
    left = seen.tokens.shape[1] - at  # rows that only fill up
    factors = jnp.concatenate([*weights, jnp.ones(left, seen.attention.dtype)])
    return qwen2_vl.project(params, reweighted(seen.tokens, factors[None], edit), cfg)


def _by_cells(weights: Array, merge: int) -> Array:
    """Row by row to cell by cell, as the tower has its patches."""
    rows, columns = weights.shape
    cells = weights.reshape(rows // merge, merge, columns // merge, merge)
    return jnp.swapaxes(cells, 1, 2).reshape(-1)


def _injected(tower: Any, name: str, edit: VisionEdit, keys: Key | None, depth: int) -> Any:
    """The tower with other attention weights inside the chosen layers."""
    layers = layers_of(edit.layers, depth)

    def replace(weights: Array, layer: Any) -> Array:
        # A patch never attends outside of its image: where it may, its weights are above zero.
        allowed = jnp.any(weights > 0, axis=1)
        count = weights.shape[2]
        positions = jnp.broadcast_to(jnp.arange(count), (weights.shape[0], count))
        own = None
        if keys is not None:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, layer)
        edited = edit_language_attention(weights, allowed, edit.kind, keys=own, positions=positions)
        return jnp.where(layers[layer], edited, weights)

    return intervene(tower, {name: replace})
