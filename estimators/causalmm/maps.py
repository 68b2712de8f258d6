"""What a language model attends to, with and without an edit; as numbers and as a picture."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.branches import Decoder, Prompt, stack
from jaxcore.figures import new_figure
from jaxcore.nn import AttentionEdit, capture


def attention_maps(
    decoder: Decoder, prompt: Prompt, edit: AttentionEdit | None = None
) -> Float[Array, "l b h t t"]:
    """Weights of every layer and head while a prompt is read, after any edit.

    >>> from jaxcore.estimators.causalmm import Text
    >>> from jaxcore.models import llama
    >>> cfg = llama.LlamaConfig.tiny()
    >>> decoder = Decoder(llama.init(jax.random.key(0), cfg), cfg, llama)
    >>> attention_maps(decoder, Text(jnp.ones((1, 3), int), jnp.ones((1, 3), bool))).shape
    (2, 1, 4, 3, 3)
    """
    text = stack(decoder, [prompt])
    return _looked(decoder, text, edit)


@jax.jit
def _looked(decoder: Decoder, text: Any, edit: AttentionEdit | None) -> Array:
    look = capture(decoder.network.apply, "layers/attention")
    options = {"valid": text.valid, "positions": text.positions, "edit": edit, "logits": "none"}
    _, seen = look(decoder.params, text.x, decoder.cfg, **options)
    return seen["layers/attention"]


def on_picture(
    maps: Float[Array, "l b h t t"], places: Sequence[int], grid: tuple[int, int], row: int = 0
) -> Float[np.ndarray, "l rows columns"]:
    """Weights of the last token on the tokens of a picture, a mean over heads.

    Args:
      maps: of :func:`attention_maps`.
      places: of the picture's tokens in the prompt, line by line.
      grid: rows and columns of them.
      row: of the batch.

    Raises:
      UserError: as many places as the grid has are expected.

    >>> on_picture(jnp.ones((2, 1, 1, 5, 5)), [1, 2, 3, 4], (2, 2)).shape
    (2, 2, 2)
    """
    if len(places) != grid[0] * grid[1]:
        raise UserError(
            f"Expected {grid[0] * grid[1]} places of a picture's tokens, found {len(places)}."
        )
    last = np.asarray(jnp.mean(maps[:, row, :, -1], axis=1))
    return last[:, np.asarray(places)].reshape(-1, *grid)


def attention_picture(
    image: np.ndarray,
    branches: Mapping[str, Float[np.ndarray, "l rows columns"]],
    title: str = "",
) -> Any:
    """A picture, and on it what each branch attends to, averaged over thirds of the layers.

    All maps have one scale, so that strong and weak attention can be told apart.

    Args:
      image: (h, w, 3) in [0, 1].
      branches: name to weights, of :func:`on_picture`.
      title: above everything.

    Returns:
      A figure of Matplotlib.

    >>> import pytest
    >>> _ = pytest.importorskip("matplotlib")
    >>> len(attention_picture(np.ones((4, 4, 3)), {"factual": np.ones((3, 2, 2))}).axes)
    5
    """
    thirds = {name: _thirds(maps) for name, maps in branches.items()}
    names = list(next(iter(thirds.values())))
    top = max(float(maps.max()) for parts in thirds.values() for maps in parts.values())
    figure = new_figure(2.1 * (1 + len(names)), 0.4 + 2.2 * len(thirds))
    axes = figure.subplots(len(thirds), 1 + len(names), squeeze=False)
    height, width = image.shape[:2]
    grey = np.clip(image, 0, 1).mean(axis=-1)  # colours are those of the weights
    extent = (0, width, height, 0)
    shown = None
    for line, (branch, parts) in zip(axes, thirds.items(), strict=True):
        line[0].imshow(np.clip(image, 0, 1), extent=extent)
        line[0].set_title(branch, fontsize=9)
        for place, (name, weights) in zip(line[1:], parts.items(), strict=True):
            place.imshow(grey, extent=extent, cmap="gray", vmin=0, vmax=1)
            shown = place.imshow(weights, extent=extent, cmap="magma", vmin=0, vmax=top, alpha=0.8)
            place.set_title(f"{name}\nsum {weights.sum():.2f}", fontsize=8)
        for place in line:
            place.set_axis_off()
    if shown is not None:
        figure.colorbar(shown, ax=axes[:, -1], shrink=0.7, label="attention of the last token")
    figure.suptitle(title, fontsize=10)
    return figure


def text_picture(
    words: Sequence[str], branches: Mapping[str, Float[np.ndarray, "l t"]], title: str = ""
) -> Any:
    """What the last token of each branch attends to, word by word and layer by layer.

    Args:
      words: of the prompt.
      branches: name to weights of the last token, a mean over heads.
      title: above everything.

    Returns:
      A figure of Matplotlib.
    """
    width = min(24.0, 2 + 0.28 * len(words))
    figure = new_figure(width, 1.4 + 2.2 * len(branches))
    axes = figure.subplots(len(branches), 1, squeeze=False, sharex=True)[:, 0]
    # The first token gets nearly all attention of most layers: colours are for the others.
    top = max(float(np.max(maps[:, 1:], initial=1e-6)) for maps in branches.values())
    shown = None
    for place, (name, maps) in zip(axes, branches.items(), strict=True):
        shown = place.imshow(maps, aspect="auto", cmap="magma", vmin=0, vmax=top)
        place.set_ylabel(f"{name}\nlayer")
    labels = [word.replace("\n", "\\n").replace("$", "\\$") for word in words]
    axes[-1].set_xticks(range(len(words)), labels, rotation=90, fontsize=7)
    figure.colorbar(shown, ax=list(axes), label="attention of the last token")
    figure.suptitle(title, fontsize=10)
    return figure


def last_token(
    maps: Float[Array, "l b h t t"], valid: Any, row: int = 0
) -> Float[np.ndarray, "l t"]:
    """Weights of the last token on all real ones, a mean over heads.

    >>> last_token(jnp.ones((2, 1, 1, 3, 3)), np.array([[False, True, True]])).shape
    (2, 2)
    """
    weights = np.asarray(jnp.mean(maps[:, row, :, -1], axis=1))
    return weights[:, np.asarray(valid)[row]]


def _thirds(maps: np.ndarray) -> dict[str, np.ndarray]:
    depth = len(maps)
    if depth < 3:
        return {f"layer {i}": one for i, one in enumerate(maps)}
    bounds = (0, depth // 3, 2 * depth // 3, depth)
    return {
        f"layers {a}-{b - 1}" if b - a > 1 else f"layer {a}": maps[a:b].mean(axis=0)
        for a, b in itertools.pairwise(bounds)
    }
