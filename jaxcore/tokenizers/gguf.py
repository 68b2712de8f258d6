"""The tokenizer inside a GGUF file, handed to the library ``tokenizers``."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from jaxcore.errors import UserError
from jaxcore.tokenizers.tokenizer import Tokenizer

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = (
    r"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a text is cut before pairs are merged, by the name in the file: digits one by one and GPT-2's
# own expression, or an expression of theirs.
_CUTS = {
    "smollm": "digits",
    "gpt-2": "",
    "default": "",
    "qwen2": f"{_CONTRACTIONS}|{_WORDS.format(digits='')}",
    "llama-bpe": f"{_CONTRACTIONS}|{_WORDS.format(digits='{1,3}')}",
}
_SPECIAL = (3, 4)  # types of tokens: control, defined by users
_NAMES = ("tokens", "merges", "token_type")


def gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """A byte-level tokenizer from the settings of a GGUF file.

    Args:
      metadata: of `jaxcore.convert.read_state_dict`.

    Raises:
      UserError: there is none, one of another kind, or one that contradicts itself.
    """
    found = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    kind, cut = found.get("model"), found.get("pre", "default")
    if kind != "gpt2":
        raise UserError(
            f"Expected a byte-level tokenizer ('gpt2') in the GGUF file, found {kind!r}: put the "
            "model's tokenizer.json beside it."
        )
    if cut not in _CUTS:
        raise UserError(
            f"Expected a tokenizer that cuts texts as one of {', '.join(_CUTS)} in the GGUF file, "
            f"found {cut!r}: put the model's tokenizer.json beside it."
        )
    tokens, merges, types = (found.get(name, []) for name in _NAMES)
    if not _texts(tokens) or not _texts(merges) or len(set(tokens)) < len(tokens):
        raise UserError("Expected different tokens and their merges in the GGUF file, found none.")
    if len(types) != len(tokens) or not isinstance(types, np.ndarray):
        raise UserError("Expected a type for each token in the GGUF file, found another number.")
    engine = _engine(tokens, merges, types, cut)
    ids = {name: _id(found, f"{name}_token_id", len(tokens)) for name in ("bos", "eos", "eot")}
    pad = _id(found, "padding_token_id", len(tokens))
    ends = tuple(dict.fromkeys(i for i in (ids["eos"], ids["eot"]) if i is not None))
    if found.get("add_bos_token") is True and ids["bos"] is not None:
        from tokenizers.processors import TemplateProcessing

        begin = tokens[ids["bos"]]
        engine.post_processor = TemplateProcessing(
            single=[begin, "$A"], special_tokens=[(begin, ids["bos"])]
        )
    template = metadata.get("tokenizer.chat_template")
    return Tokenizer(
        engine,
        bos=ids["bos"],
        eos=ends,
        pad=pad if pad is not None else (ends or (0,))[0],
        template=template if isinstance(template, str) else None,
        source="the GGUF file",
    )


def _texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _id(found: Mapping[str, Any], name: str, size: int) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < size:
        raise UserError(f"Expected as {name} in the GGUF file a token of {size}, found {value!r}.")
    return value


def _engine(tokens: list[str], merges: list[str], types: np.ndarray, cut: str) -> Any:
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    if not all(" " in merge for merge in merges):
        raise UserError("Expected merges of two tokens in the GGUF file, found another.")
    pairs = [(one, two) for one, _, two in (merge.partition(" ") for merge in merges)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
        merge: Any = models.BPE(vocabulary, pairs, ignore_merges=cut == "llama-bpe")
    except Exception as error:  # the library has one class for all that is wrong
        raise UserError(f"The merges of the GGUF file do not fit its tokens: {error}.") from None
    engine = tokenizers.Tokenizer(merge)
    own = _CUTS[cut] in ("", "digits")
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own)]
    if _CUTS[cut] == "digits":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif not own:
        pattern = tokenizers.Regex(_CUTS[cut])
        steps.insert(0, pre_tokenizers.Split(pattern, "isolated"))
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if cut == "qwen2":
        engine.normalizer = normalizers.NFC()
    engine.decoder = decoders.ByteLevel()
    special = np.flatnonzero(np.isin(types, _SPECIAL)).tolist()
    engine.add_special_tokens(
        [tokenizers.AddedToken(tokens[i], special=True, normalized=False) for i in special]
    )
    return engine
