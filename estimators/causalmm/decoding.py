"""CausalMM: text whose every token is contrasted with what other attention would have made of it.

Zhou et al. 2025, "Mitigating modality prior-induced hallucinations in multimodal large language
models via deciphering attention causality".
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators.causalmm.branches import Decoder, Prompt, Start, start
from jaxcore.estimators.causalmm.config import CausalMMConfig, LanguageEdit
from jaxcore.nn import AttentionEdit, layers_of
from jaxcore.typing import Key

# Tokens are drawn with keys folded with their number: counterfactuals count from the other end.
_LAST = 2**31 - 1


def causalmm(
    decoder: Decoder,
    factual: Prompt,
    config: CausalMMConfig,
    *,
    keys: Key,
    room: int,
    counterfactual: Callable[[Key], Prompt] | None = None,
) -> Start:
    """Let the factual branch and its counterfactuals read a prompt.

    Args:
      decoder: the network.
      factual: prompt of b rows.
      config: what is changed.
      keys: one typed key per row, also for drawing tokens.
      room: tokens that will be generated at most.
      counterfactual: from keys (b,) to the prompt as an edited vision encoder gives it; needed
        unless only the language model is edited.

    Returns:
      What generates, by ``.generate(keys=keys, sampler=..., max_new_tokens=room)`` or ``.stream``.

    Raises:
      UserError: no pictures for an edit of the vision encoder; see also `start`.

    >>> from jaxcore.generate import GREEDY
    >>> from jaxcore.models import llama
    >>> from jaxcore.estimators.causalmm import Text
    >>> cfg = llama.LlamaConfig.tiny()
    >>> decoder = Decoder(llama.init(jax.random.key(0), cfg), cfg, llama)
    >>> prompt = Text(jnp.array([[1, 5, 3]]), jnp.ones((1, 3), bool))
    >>> keys = jax.random.split(jax.random.key(1), 1)
    >>> ready = causalmm(decoder, prompt, CausalMMConfig(), keys=keys, room=2)
    >>> ready.generate(keys=keys, sampler=GREEDY, max_new_tokens=2).tokens.shape
    (1, 2)
    """
    prompts: list[Prompt] = [factual]
    for number, kind in enumerate(config.branches):
        if kind == "language":
            prompts.append(factual)
            continue
        if counterfactual is None:
            raise UserError(
                f"Expected pictures for the mode {config.mode!r}, found none: without them only "
                "'language' can be edited."
            )
        prompts.append(counterfactual(branch_keys(keys, number)))
    return start(
        decoder,
        prompts,
        room=room,
        gammas=config.gammas,
        epsilon=config.epsilon,
        edit=_edit(decoder, config, keys),
        shared_cache=config.cache_mode == "official",
    )


def branch_keys(keys: Key, number: int) -> Key:
    """Keys of a counterfactual branch, one per row, from those of the rows."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, _LAST - 1 - number)


def language_edit(
    edit: LanguageEdit, depth: int, heads: int, *, keys: Key | None = None
) -> AttentionEdit:
    """The edit of a language model as the data that ``apply`` takes.

    Args:
      edit: settings.
      depth: layers of the network.
      heads: of each layer.
      keys: one per row of the batch, for random kinds.

    Raises:
      UserError: the network has no such layer or head.

    >>> language_edit(LanguageEdit(heads=(0,)), depth=3, heads=2).heads.tolist()
    [True, False]
    """
    chosen = None
    if edit.heads:
        if max(edit.heads) >= heads:
            raise UserError(f"The heads must be numbers from 0 to {heads - 1}, found {edit.heads}.")
        chosen = jnp.asarray(np.isin(np.arange(heads), edit.heads))
    layers = layers_of(edit.layers, depth)
    return AttentionEdit.create(edit.kind, layers, depth, mode=edit.mode, heads=chosen, keys=keys)


def _edit(decoder: Decoder, config: CausalMMConfig, keys: Key) -> AttentionEdit | None:
    """Of the rows of the branches whose language model is edited."""
    edited = [kind != "vision" for kind in config.branches]
    if not any(edited):
        return None
    count = keys.shape[0]
    rows = jnp.asarray(np.repeat([False, *edited], count))
    drawn = None
    if config.language.kind in ("random", "shuffle"):
        parts = [branch_keys(keys, number) for number in range(-1, len(edited))]
        drawn = jnp.concatenate(parts)
    cfg = decoder.cfg
    edit = language_edit(config.language, cfg.depth, cfg.num_heads, keys=drawn)
    return edit.replace(rows=rows)  # pyright: ignore[reportAttributeAccessIssue]
