"""``jaxcore ask --image``: what LLaVA and Qwen2-VL say of pictures, and mistakes in a sentence."""

import json

import jax
import numpy as np
import pytest

from jaxcore.data.images import read_image, write_image
from jaxcore.data.images.vision_inputs import PatchInputs, SquareInputs, as_bytes
from jaxcore.models import llava, qwen2_vl
from jaxcore.weights import load_language
from tests.seeing_folders import LLAVA, QWEN, write_llava, write_qwen2_vl

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeing")
    for name, shape in (("wide.png", (6, 14, 3)), ("tall.png", (9, 5, 3))):
        write_image(folder / name, RNG.random(shape))
    (folder / "words.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def llava_params(place):
    return write_llava(place / "llava")


@pytest.fixture(scope="module")
def qwen_params(place):
    return write_qwen2_vl(place / "qwen")


@pytest.fixture
def ask(call, place):
    def answered(*words, tokens=2):
        code, out, err = call("ask", *words, "--max-new-tokens", tokens, "--json-lines")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    return answered


def greedy(logits, prompt, count):
    """Ids of an answer, everything being read anew for each; what stands behind is not seen."""
    ids = [*prompt, *[0] * count]
    for i in range(len(prompt), len(ids)):
        ids[i] = int(np.argmax(logits(np.array([ids]))[0, i - 1]))
    return ids[len(prompt) :]


def test_llava_speaks_of_a_picture(ask, place, llava_params):
    folder = place / "llava"
    model = load_language(folder)
    prompt = model.prompt("what is this?", images=1)
    image = as_bytes(read_image(place / "wide.png"))
    whole = [i for i in prompt for _ in range(4 if i == LLAVA.image_token else 1)]
    apply = jax.jit(lambda tokens, images: llava.apply(llava_params, tokens, LLAVA, images=images))
    for words in ((), ("--fit", "crop")):
        seen = SquareInputs(side=4, pad=not words)(image)[None]
        expected = greedy(lambda tokens, seen=seen: apply(tokens, seen).logits, whole, 2)
        (found,) = ask("what is this?", "--model", folder, "--image", place / "wide.png", *words)
        assert found["answer"] == model.tokenizer.decode(expected)
        assert found["prompt_tokens"] == len(whole)


def test_qwen2_vl_speaks_of_several_pictures_of_other_sizes(ask, place, qwen_params):
    folder, files = place / "qwen", [place / "wide.png", place / "tall.png"]
    model = load_language(folder)
    inputs = PatchInputs(patch=2, min_pixels=16, max_pixels=128)
    seen = [inputs(as_bytes(read_image(path))) for path in files]
    grids = [grid for _, grid in seen]
    patches = qwen2_vl.join_patches([rows for rows, _ in seen], grids, QWEN.vision)
    counts = iter([qwen2_vl.image_tokens(grid, QWEN.vision) for grid in grids])
    prompt = model.prompt("what is this?", images=2)
    whole = [i for i in prompt for _ in range(next(counts) if i == QWEN.image_token else 1)]

    apply = jax.jit(
        lambda tokens, places: qwen2_vl.apply(
            qwen_params, tokens, QWEN, images=patches, positions=places
        )
    )

    def logits(tokens):
        positions, _ = qwen2_vl.position_ids(tokens, grids, QWEN)
        return apply(tokens, positions).logits

    expected = greedy(logits, whole, 3)
    words = ("--model", folder, "--image", files[0], "--image", files[1])
    (found,) = ask("what is this?", *words, tokens=3)
    kept = expected[: expected.index(2)] if 2 in expected else expected
    assert found["answer"] == model.tokenizer.decode(kept)


def test_models_that_see_answer_without_a_picture(ask, place, llava_params, qwen_params):
    for name in ("llava", "qwen"):
        one, two = ask("what is a cat?", "what is a dog?", "--model", place / name)
        assert one["question"] == "what is a cat?" and two["answer_tokens"] <= 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "--image", "nowhere.png"], "Expected a picture, found no file"),
        (["a", "--image", "words.png"], "found other or damaged content in"),
        (["a", "--image", "wide.png", "--image", "tall.png"], "LLaVA-1.5 knows, found 2."),
        (["a " * 250, "--image", "wide.png"], "Expected a prompt of 1 to 255 tokens"),
        (["a", "--image", "wide.png", "--raw"], "image token in the prompt for each of 1 image(s)"),
        (["<image>", "--raw"], "for each of 0 image(s), found 1."),
        (["a", "--image", "wide.png", "--max-pixels", "0"], "--max-pixels of at least 1, found 0"),
        (["a", "--fit", "stretch"], "stretch"),
        (["a", "--model", "text", "--image", "wide.png"], "reads images (--image), found"),
    ],
)
def test_mistakes_end_in_one_sentence(call, place, llava_params, words, sentence, monkeypatch):
    from tests.tiny_language import write_gguf_model

    monkeypatch.chdir(place)
    if "--model" not in words:
        words = [*words, "--model", "llava"]
    elif not (place / "text.gguf").exists():
        write_gguf_model(place / "text.gguf")
    words = ["text.gguf" if word == "text" else word for word in words]
    code, out, err = call("ask", *words)
    assert (code, out) == (2, "") and sentence in err
    assert err.count("\n") <= 12 and "Traceback" not in err


def test_a_template_without_a_place_for_pictures_is_told(call, place, llava_params, tmp_path):
    write_llava(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content[-1].text }}")
    code, out, err = call("ask", "a", "--model", tmp_path, "--image", place / "wide.png")
    assert (code, out) == (2, "") and "each of 1 image(s), found 0." in err
