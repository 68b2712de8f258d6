"""``jaxcore ask --causalmm``, pictures of attention, and ``jaxcore evaluate --asking.file``."""

import json

import numpy as np
import pytest

from jaxcore.data.images import read_image, write_image
from tests.seeing_folders import write_llava, write_qwen2_vl

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrasts")
    for name in ("a.png", "b.png"):
        write_image(folder / name, RNG.random((6, 14, 3)))
    lines = [
        {"image": "a.png", "text": "is it?", "label": "yes"},
        {"image": "b.png", "text": "is it?", "label": "no"},
    ]
    (folder / "pope.json").write_text("\n".join(map(json.dumps, lines)))
    write_llava(folder / "llava")
    write_qwen2_vl(folder / "qwen")
    return folder


@pytest.fixture
def ask(call, place):
    def answered(*words):
        code, out, err = call("ask", *words, "--max-new-tokens", 2, "--json-lines")
        assert code == 0, err
        return json.loads(out)["answer"]

    return answered


@pytest.mark.parametrize("name", ["llava", "qwen"])
def test_without_strength_a_contrast_says_what_the_model_says(ask, place, name):
    told = ("what?", "--model", place / name, "--image", place / "a.png")
    plain = ask(*told)
    weak = ("--causalmm", "both", "--gamma", 0, "--vision-kind", "random", "--kind", "random")
    assert ask(*told, *weak) == plain
    if name == "qwen":  # the other one says the same to everything
        strong = ("--causalmm", "joint", "--gamma", 30, "--epsilon", 0, "--layers", "all")
        assert ask(*told, *strong) != plain


@pytest.mark.parametrize("way", ["vcd", "text-only", "dola", "pai"])
def test_other_contrasts_answer_too(ask, place, way):
    told = ("what?", "--model", place / "llava", "--image", place / "a.png")
    assert isinstance(ask(*told, "--contrast", way), str)


def test_published_settings_have_names(call, ask, place):
    told = ("what?", "--model", place / "llava", "--image", place / "a.png")
    for name in ("official-pope", "paper-best"):
        assert isinstance(ask(*told, "--causalmm", name), str)


def test_attention_is_drawn_over_the_picture_or_the_words(call, ask, place, tmp_path):
    pytest.importorskip("matplotlib")
    told = ("what?", "--model", place / "llava", "--causalmm", "both")
    ask(*told, "--image", place / "a.png", "--attention", tmp_path / "a.png")
    ask("what?", "--model", place / "llava", "--attention", tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert read_image(tmp_path / name).pixels.shape[0] > 100


def test_questions_of_pope_are_asked_greedily_and_by_draws(call, place, tmp_path):
    words = ("--asking.file", place / "pope.json", "--asking.seeds", 2, "--asking.causalmm", "both")
    code, out, err = call("evaluate", place / "llava", *words, "-o", tmp_path / "new")
    assert code == 0, err
    assert "regular: " in out and "contrast: " in out and "yes_ratio" in out and "+-" in out
    found = json.loads((tmp_path / "new" / "answers.json").read_text())
    assert found["contrast"]["settings"]["mode"] == "both" and found["regular"]["settings"] is None
    assert len(found["regular"]["answers"]) == 2 and len(found["contrast"]["sampled"]) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ask", "a", "--gamma", "1"], "Expected --causalmm or --contrast with --gamma"),
        (["ask", "a", "--causalmm", "both", "--contrast", "vcd"], "found both"),
        (["ask", "a", "--causalmm", "both", "--model", "llava"], "Expected pictures for the mode"),
        (["ask", "a", "--contrast", "vcd", "--model", "llava"], "Expected pictures for vcd"),
        (["ask", "a", "--causalmm", "language", "--layers", "deep"], "or numbers with commas"),
        (["ask", "a", "--causalmm", "language", "--gamma", "-1"], "gamma must be"),
        (["ask", "a", "--contrast", "dola", "--gamma", "1"], "which has none"),
        (["evaluate", "llava", "--asking.seeds", "2"], "Expected a file of questions"),
        (["evaluate", "llava", "--asking.file", "nowhere.json"], "found no such file"),
        (["evaluate", "llava", "--asking.file", "lost.json"], "none for 1 of 1, such as"),
    ],
)
def test_mistakes_end_in_one_sentence(call, place, monkeypatch, words, sentence):
    monkeypatch.chdir(place)
    lost = {"image": "lost.png", "text": "?", "label": "no"}
    (place / "lost.json").write_text(json.dumps(lost))
    code, out, err = call(*words)
    assert (code, out) == (2, "") and sentence in err and "Traceback" not in err
