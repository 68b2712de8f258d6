"""Prompts and completions as texts, chats and tokens."""

import json

import numpy as np
import pytest

from jaxcore.data.completions import Completions, Encoder
from jaxcore.data.scored import read_preferred, read_scored
from jaxcore.data.texts import read_texts
from jaxcore.errors import UserError
from jaxcore.tokenizers import gguf_tokenizer
from tests.tiny_language import TOKENIZER, TOKENS

TOKENIZE = gguf_tokenizer(TOKENIZER)
ENCODER = Encoder(vocab_size=len(TOKENS), tokenizer=TOKENIZE)
END = TOKENIZE.eos[0]
USER = [{"role": "user", "content": "the cat"}]


def shown(answer):
    tokens, start = answer
    return [TOKENIZE.decode(part, special=True) for part in (tokens[:start], tokens[start:])]


def test_prompts_take_the_template_and_completions_end():
    expected = ["<|start|>user the cat<|end|><|start|>", "sat<|end|>"]
    assert shown(ENCODER.answer("the cat", "sat", "")) == expected
    assert shown(ENCODER.answer(USER, "sat", "")) == expected
    whole = [*USER, {"role": "assistant", "content": "sat"}]
    assert shown(ENCODER.answer(None, whole, "")) == expected
    assert shown(ENCODER.answer(USER, whole[1:], "")) == expected
    plain = Encoder(vocab_size=len(TOKENS), tokenizer=TOKENIZE, chat=False)
    assert shown(plain.answer("the cat", "sat", "")) == ["the cat", "sat<|end|>"]


def test_marks_of_ends_inside_a_text_are_but_characters():
    for prompt, completion in (("a<|end|>", "b"), ("a", "b<|end|>c")):
        tokens, start = ENCODER.answer(prompt, completion, "")
        assert tokens[start:].count(END) == 1 and tokens[-1] == END
        assert tokens[:start].count(END) == 1


def test_the_end_is_learned_although_padding_may_be_the_same_token():
    answers = Completions([ENCODER.answer("a", "b", ""), ENCODER.answer("a", "bcd", "")])
    assert TOKENIZE.pad == END
    rows = answers.rows([0, 1], 24)
    for row, mask, valid in zip(*rows[:1], rows.mask, rows.valid, strict=True):
        assert row[mask][-1] == END and mask.sum() in (2, 4)
        assert not (mask & ~valid).any()
    assert answers.lengths.tolist() == [2, 4]
    assert answers.fitting(512) == 16 and answers.fitting(9) == 9


def test_texts_begin_and_end_and_completions_alone_are_learned(tmp_path):
    path = tmp_path / "texts.jsonl"
    chat = [*USER, {"role": "assistant", "content": "sat"}]
    lines = [{"text": "the"}, {"messages": chat}, {"prompt": "a", "text": "b", "reward": 1}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = read_texts(path, 64, ENCODER)
    learned = [rows.tokens[(rows.segments == i) & rows.counted].tolist() for i in (1, 2, 3)]
    found = [TOKENIZE.decode(part, special=True) for part in learned]
    assert found == ["the<|end|>", "sat<|end|>", "b<|end|>"]


@pytest.mark.parametrize(
    ("prompt", "completion", "message"),
    [
        ("a", "", "a completion of at least one token in here, found an empty one"),
        ("a", None, "a completion as a text, a chat or tokens in here, found None"),
        (3, "b", "a prompt as a text, a chat or tokens in here, found 3"),
        ("a", [1, -1], "a completion of whole numbers below"),
        ("a", [*USER], "Expected chats as prompt and completion"),
    ],
)
def test_what_is_no_prompt_or_completion_is_refused(prompt, completion, message):
    with pytest.raises(UserError, match=message):
        ENCODER.answer(prompt, completion, "here")


def test_a_tokenizer_with_more_tokens_than_the_weights_know_is_refused():
    with pytest.raises(UserError, match=rf"at most 9 tokens, .*, found {len(TOKENS)}"):
        Encoder(vocab_size=9, tokenizer=TOKENIZE)


def written(folder, lines):
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_pairs_of_outcomes_share_prompt_and_group_and_differ_enough(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        {
            "prompt": f"q{i % 3}",
            "text": f"text {i}",
            "reward": float(rng.normal()),
            "groups": {"author": f"a{i % 2}"},
        }
        for i in range(60)
    ]
    found = read_preferred(written(tmp_path, lines), ENCODER, least_gap=0.5, within="author")
    assert len(found.chosen) > 10
    for better, worse, gap in zip(found.chosen, found.rejected, found.margin, strict=True):
        a, b = lines[better], lines[worse]
        assert (a["prompt"], a["groups"]) == (b["prompt"], b["groups"])
        assert gap == pytest.approx(a["reward"] - b["reward"]) and gap > 0.5
    with pytest.raises(UserError, match="among length, author, found 'hour'"):
        read_preferred(tmp_path / "lines.jsonl", ENCODER, within="hour")


def test_lines_without_an_outcome_are_left_out_and_columns_are_read(tmp_path):
    lines = [
        {"text": "a", "reward": 1, "confounders": {"hour": 3}},
        {"text": "b", "reward": None, "confounders": {"hour": 4}},
        {"text": "cd", "reward": 2, "confounders": {"hour": 5}, "weight": 2},
    ]
    found = read_scored(written(tmp_path, lines), ENCODER)
    assert found.outcome.tolist() == [1, 2] and found.weight.tolist() == [1, 2]
    assert found.numbers("hour").tolist() == [3, 5]
    assert found.numbers("length").tolist() == [2, 3]


def test_the_highest_outcomes_of_each_prompt_are_chosen(tmp_path):
    rewards = {"p": [3, 1, 4, 1.5], "q": [9, 2], "r": [0]}
    lines = [
        {"prompt": prompt, "text": "a", "reward": reward}
        for prompt, all_of_it in rewards.items()
        for reward in all_of_it
    ]
    found = read_scored(written(tmp_path, lines), ENCODER)
    assert found.outcome[found.highest(0.5)].tolist() == [3, 4, 9, 0]
    assert len(found.highest(1.0)) == len(lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "b", "reward": 2}, "confounders and groups of the first line in line 2"),
        ({"text": "b", "reward": 2, "confounders": 3}, "confounders by name in line 2"),
        ({"text": "b", "reward": True}, "a number as 'reward' in line 2"),
    ],
)
def test_lines_that_differ_from_the_first_are_refused(tmp_path, line, message):
    first = {"text": "a", "reward": 1, "confounders": {"hour": 3}}
    with pytest.raises(UserError, match=message):
        read_scored(written(tmp_path, [first, line]), ENCODER)
