"""Text to ids and back, from both kinds of files."""

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.tokenizers import gguf_tokenizer, read_tokenizer
from tests.tiny_language import TOKENIZER, TOKENS, write_tokenizer

TEXTS = [
    "the cat",
    " the 12",
    "naïve – 東京 😀\n",
    "<|start|>the<|end|>",
    "",
    "a\N{REPLACEMENT CHARACTER}b",
]


def made(**changes):
    return gguf_tokenizer({**TOKENIZER, **{f"tokenizer.ggml.{k}": v for k, v in changes.items()}})


@pytest.fixture
def folder(tmp_path):
    write_tokenizer(tmp_path)
    return tmp_path


def test_texts_come_back_whole_and_in_a_stream():
    tokenizer = made()
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids, special=True) == text
        stream = tokenizer.stream(special=True)
        assert "".join([stream.add([i]) for i in ids] + [stream.end()]) == text
    assert tokenizer.encode(" the") == [TOKENS.index("Ġthe")]
    assert len(tokenizer.encode("123")) == 3 and len(tokenizer) == len(TOKENS)


def test_a_stream_never_shows_part_of_a_character():
    tokenizer = made()
    ids = tokenizer.encode("é😀!")
    stream = tokenizer.stream()
    assert [stream.add([i]) for i in ids] == ["", "é", "", "", "", "😀", "!"]
    stream.add(ids[:3])
    assert stream.end() == "\N{REPLACEMENT CHARACTER}" and stream.end() == ""
    # Bytes that are no text at all come out as marks, and do not wait for ever.
    assert len(stream.add([ids[2]] * 40)) > 30


def test_special_tokens_in_a_message_are_but_characters():
    tokenizer = made()
    ids = tokenizer.chat([{"role": "user", "content": "a<|end|><|start|>b"}])
    assert [i for i in ids if i < 2] == [1, 0, 1]
    shown = "<|start|>user a<|end|><|start|>b<|end|><|start|>"
    assert tokenizer.decode(ids, special=True) == shown
    assert tokenizer.encode("a<|end|>").count(0) == 1
    assert tokenizer.encode_literally("a<|end|>").count(0) == 0
    assert tokenizer.encode("a<|end|>").count(0) == 1  # nothing was left behind


def test_beginnings_are_added_on_request_only():
    assert made().encode("the", start=True) == made().encode("the")
    tokenizer = made(add_bos_token=True)
    assert tokenizer.encode("the", start=True) == [1, *tokenizer.encode("the")]


def test_ids_without_a_token_are_left_out():
    assert made().decode([TOKENS.index("the"), 10_000, -1]) == "the"


def test_a_folder_gives_the_same_tokenizer(folder):
    ours, theirs = made(), read_tokenizer(folder)
    assert (theirs.bos, theirs.eos, theirs.pad) == (1, (0,), 0)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
    chat = [{"role": "user", "content": "the"}]
    assert ours.chat(chat) == theirs.chat(chat) and theirs.source == "tokenizer_config.json"
    assert ours.fingerprint == theirs.fingerprint
    assert ours.fingerprint != made(pre="gpt-2").fingerprint


def test_a_file_of_its_own_names_the_template_and_several_ends(folder):
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 0, 99999]}')
    tokenizer = read_tokenizer(folder)
    assert tokenizer.eos == (1, 0) and tokenizer.source == "chat_template.jinja"
    assert tokenizer.chat([{"role": "user", "content": "the"}]) == [1, TOKENS.index("the")]


def test_nothing_is_cut_off_or_filled_up(folder):
    engine = made().engine
    engine.enable_truncation(2)
    engine.enable_padding(length=9)
    engine.save(str(folder / "tokenizer.json"))
    assert len(read_tokenizer(folder).encode("abc")) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "llama"}, "byte-level tokenizer ('gpt2') in the GGUF file, found 'llama'"),
        (
            {"pre": "other"},
            "smollm, gpt-2, default, qwen2, llama-bpe in the GGUF file, found 'other'",
        ),
        ({"tokens": 3}, "Expected different tokens and their merges"),
        ({"tokens": ["a", "a"]}, "Expected different tokens and their merges"),
        ({"merges": ["t"]}, "Expected merges of two tokens"),
        ({"merges": ["t 東"]}, "merges of the GGUF file do not fit its tokens"),
        ({"token_type": np.ones(3, np.int32)}, "a type for each token"),
        ({"eos_token_id": 99999}, f"as eos_token_id in the GGUF file a token of {len(TOKENS)}"),
    ],
)
def test_what_is_wrong_in_a_gguf_file_is_named(changes, sentence):
    with pytest.raises(UserError) as error:
        made(**changes)
    assert sentence in str(error.value)


def test_what_is_wrong_in_a_folder_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"Expected a tokenizer \(tokenizer.json\) in .*, found none"
    ):
        read_tokenizer(tmp_path)
    for content in ("{", '{"model": 3}', "[]"):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match="does not hold a tokenizer"):
            read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(b"nothing")
    with pytest.raises(UserError, match="found older files that cannot be turned into one"):
        read_tokenizer(tmp_path)
