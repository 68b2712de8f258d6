"""The tokenizer of a folder as Hugging Face's libraries write it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxcore.errors import UserError, readable
from jaxcore.json_files import read_at_most, read_json
from jaxcore.tokenizers.tokenizer import Tokenizer

_LARGEST = 2**27  # bytes of tokenizer.json; those of 250,000 tokens have about 2**25
_SETTINGS = 2**24
_OLDER = ("tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")


def read_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """A tokenizer from ``tokenizer.json``, or from older files by way of `transformers`.

    Read besides, where they are there: ``tokenizer_config.json``, ``chat_template.jinja`` (or
    ``.json``), ``generation_config.json`` and ``config.json``, which name special tokens, the ends
    of answers and the template of chats.

    Args:
      folder: on this machine.

    Raises:
      UserError: there is none, or it is damaged.
    """
    folder = Path(folder)
    engine = _engine(folder)
    engine.no_truncation()
    engine.no_padding()
    settings = _json(folder / "tokenizer_config.json", "the settings of a tokenizer")
    ids = {name: _named(engine, settings.get(f"{name}_token")) for name in ("bos", "eos", "pad")}
    told = [
        _json(folder / name, "ids of tokens") for name in ("generation_config.json", "config.json")
    ]
    told += [part for part in (told[1].get("text_config"),) if isinstance(part, dict)]
    size = engine.get_vocab_size()
    listed = next(
        (found for part in told if (found := list(_ids(part.get("eos_token_id"), size)))), []
    )
    ends = tuple(dict.fromkeys([*listed, *(i for i in (ids["eos"],) if i is not None)]))
    template, source = _template(folder, settings)
    pad = ids["pad"] if ids["pad"] is not None else (ends or (0,))[0]
    return Tokenizer(engine, ids["bos"], ends, pad, template, source)


def _engine(folder: Path) -> Any:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return _converted(folder)
    import tokenizers

    try:
        with path.open("rb") as file:
            content = read_at_most(file, _LARGEST)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(content) > _LARGEST:
        raise UserError(
            f"Expected a tokenizer of at most {_LARGEST:,} bytes, found more in {path}."
        )
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library has one class for all that is wrong
        raise UserError(f"{path} does not hold a tokenizer: {readable(str(error))}.") from None
    except BaseException as error:  # what its Rust did not foresee
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{path} does not hold a tokenizer that can be read.") from None


def _converted(folder: Path) -> Any:
    """By way of `transformers`, which needs further packages for some of these."""
    if not any((folder / name).is_file() for name in _OLDER):
        raise UserError(f"Expected a tokenizer (tokenizer.json) in {folder}, found none.")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    try:
        found = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return found.backend_tokenizer
    except Exception as error:
        reason = readable(str(error).split("\n")[0])
        raise UserError(
            f"Expected tokenizer.json in {folder}, found older files that cannot be turned into "
            f"one: {reason}."
        ) from None


def _json(path: Path, what: str) -> dict[str, Any]:
    return read_json(path, what=what, max_bytes=_SETTINGS) if path.is_file() else {}


def _named(engine: Any, token: Any) -> int | None:
    text = token.get("content") if isinstance(token, dict) else token
    return engine.token_to_id(text) if isinstance(text, str) else None


def _ids(value: Any, size: int) -> Iterable[int]:
    values = value if isinstance(value, list) else [value]
    return (i for i in values if type(i) is int and 0 <= i < size)


def _template(folder: Path, settings: dict[str, Any]) -> tuple[str | None, str]:
    """The template of chats and where it stands; a file of its own counts before settings."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        with path.open("rb") as file:
            return read_at_most(file, _SETTINGS).decode("utf-8", "replace"), path.name
    path = folder / "chat_template.json"
    found = _json(path, "a template of chats").get("chat_template")
    if isinstance(found, str):
        return found, path.name
    found = settings.get("chat_template")
    if isinstance(found, list):  # several with names
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return (found, "tokenizer_config.json") if isinstance(found, str) else (None, "")
