"""``jaxcore ask``: answers on standard output, figures and mistakes on standard error."""

import io
import json
import re

import pytest

from jaxcore.weights import load_language
from tests.tiny_language import SETTINGS, write_gguf_model

FIGURES = re.compile(r"\[(model [\d.]+ s; )?\d+ tokens read in [\d.]+ s; \d+ answered.*\]\n")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_gguf_model(tmp_path_factory.mktemp("model") / "m.gguf")


@pytest.fixture(scope="module")
def answer(path):
    """The text that a question must give."""
    model = load_language(path)

    def found(question, **options):
        ids = model.answer(model.prompt(question, **options), max_new_tokens=5)
        return model.tokenizer.decode([i for part in ids for i in part])

    return found


@pytest.fixture
def ask(call, path):
    return lambda *words: call("ask", *words, "--model", path, "--max-new-tokens", 5)


def printed(text):
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def test_questions_are_answered_one_after_the_other(ask, answer):
    code, out, err = ask("the cat", "the dog")
    assert code == 0 and out.count("\n") >= 2
    assert out.startswith(printed(answer("the cat"))) and printed(answer("the dog")) in out
    assert len(FIGURES.findall(err)) == 2 and err.startswith("[model ")


def test_the_system_and_raw_text_reach_the_model(ask, answer):
    (line,) = ask("the", "--json-lines", "--raw")[1].splitlines()
    assert json.loads(line)["answer"] == answer("the", raw=True)
    (line,) = ask("the", "--json-lines", "--system", "Be brief.")[1].splitlines()
    found = json.loads(line)
    assert found["answer"] == answer("the", system="Be brief.") and found["question"] == "the"
    assert found["answer_tokens"] == 5 and 0 < found["first_token_seconds"] <= found["seconds"]


def test_standard_input_is_a_question(ask, answer, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n"))
    (line,) = ask("--json-lines")[1].splitlines()
    assert json.loads(line)["answer"] == answer("the cat")
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    code, out, err = ask("-")
    assert (code, out) == (2, "") and "on standard input, found none" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["x" * 80], "Expected a prompt of 1 to 63 tokens, for which this model was made"),
        (["hi", "--temperature", "-1"], "temperature must be a number of at least 0"),
        (["hi", "--top-p", "0"], "top_p must be a number above 0"),
        (["hi", "--model", "nobody"], "found nothing at nobody"),
        (["hi", "--max-new-tokens", "0"], "Expected --max-new-tokens of at least 1, found 0"),
        (["hi", "--dtype", "int8"], "int8"),
    ],
)
def test_mistakes_end_in_one_sentence(call, path, words, sentence):
    code, out, err = call("ask", "--model", path, *words)
    assert (code, out) == (2, "") and sentence in err


def test_a_model_without_a_template_goes_on_with_the_text(call, tmp_path, answer):
    bare = {k: v for k, v in SETTINGS.items() if k != "tokenizer.chat_template"}
    path = write_gguf_model(tmp_path / "m.gguf", settings=bare)
    code, out, err = call("ask", "the", "--model", path, "--max-new-tokens", 5)
    assert code == 0 and "no template of chats" in err
    assert out.startswith(printed(answer("the", raw=True)))
