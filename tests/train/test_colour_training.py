"""LLaVA trained on drawn pictures: the batches, the first values, the run, and what it learns."""

import jax
import numpy as np
import pytest

from jaxcore.data.images.colour_questions import COLOURS, as_picture, questions
from jaxcore.errors import UserError
from jaxcore.models.llava import LlavaConfig
from jaxcore.train import fit
from jaxcore.train.logging import Silent
from jaxcore.train.recipes import recipe
from jaxcore.train.tasks.colour_questions import (
    ColourQuestionsTask,
    QuestionStage,
    small_network,
)
from jaxcore.weights import load, load_language

STAGES = (
    QuestionStage(steps=2, batch_size=4),
    QuestionStage(steps=None, batch_size=8, noise=2.0, prior=1.0),
)


def test_stages_follow_each_other_and_batches_depend_on_their_number_alone():
    task = ColourQuestionsTask(stages=STAGES)
    stream = task.batches(3, 0)
    drawn = [next(stream) for _ in range(4)]
    assert [len(batch["answers"]) for batch in drawn] == [4, 4, 8, 8]
    likely = drawn[3]["tokens"][:, -1] < 10
    np.testing.assert_array_equal(drawn[3]["answers"], likely)
    again = next(task.batches(3, 3))
    jax.tree.map(np.testing.assert_array_equal, again, drawn[3])
    assert np.std(drawn[2]["images"]) > 1.5 > np.std(drawn[1]["images"])


def test_first_values_have_the_variance_of_their_inputs():
    task = ColourQuestionsTask()
    params = jax.tree.map(np.asarray, task.init_params(jax.random.key(0)))
    vision, language = params["vision"], params["language"]
    kernels = {
        "qkv": (language["layers"]["qkv"]["kernel"], 64),
        "fc2": (vision["layers"]["fc2"]["kernel"], 128),
        "patches": (vision["patch_embedding"]["kernel"], 108),
        "projector": (params["projector"]["linear_1"]["kernel"], 64),
        "head": (language["head"], 64),
        "embed": (language["embed"], 4),
        "places": (vision["position_embedding"], 4),
    }
    for name, (kernel, inputs) in kernels.items():
        assert abs(kernel.std() * inputs**0.5 - 1) < 0.15, name
    assert not vision["layers"]["fc1"]["bias"].any()
    assert (language["norm"]["scale"] == 1).all()


def test_a_network_for_other_pictures_is_refused():
    with pytest.raises(UserError, match="pictures of 12 pixels, with 2 as image token"):
        ColourQuestionsTask(network=LlavaConfig.tiny())


def test_a_short_run_is_evaluated_drawn_and_loaded(tmp_path):
    chosen = recipe("llava_colours", steps=3)
    task = ColourQuestionsTask(stages=STAGES, eval_questions=8)
    result = fit(task, chosen.train, tmp_path / "run", reporter=Silent())
    assert set(result.metrics) == set(task.metric_names())
    assert all(0 <= value <= 1 for value in result.metrics.values())
    (picture,) = task.pictures(result.state, None).values()
    assert picture.dtype == np.uint8 and picture.shape[0] > 200
    found = load(tmp_path / "run")
    assert found.network.name == "llava" and found.cfg == small_network()
    again = task.evaluate(result.state.replace(params=found.params), None)
    assert again == result.metrics
    model = load_language(tmp_path / "run")
    assert model.prompt("Is there any RED?", images=1) == [1, 2, 3, 6]
    assert model.decoder[1].max_positions == 8


@pytest.mark.slow
def test_the_network_learns_to_see_and_a_prior_that_contradicts_it(tmp_path):
    """Between chance and perfection, and worse where the prior is wrong."""
    chosen = recipe("llava_colours")
    found = fit(chosen.task, chosen.train, tmp_path, reporter=Silent()).metrics
    assert 0.6 < found["conflict_accuracy"] < 0.87
    assert found["conflict_accuracy"] + 0.05 < found["balanced_accuracy"]
    assert found["balanced_accuracy"] > 0.8
    model, asked = load_language(tmp_path), questions(20, noise=0.3)
    right = 0
    for image, colour, answer in zip(*asked, strict=True):
        prompt = model.prompt(f"Is there any {list(COLOURS)[colour]}?", images=1)
        (ids,) = model.answer(prompt, images=[as_picture(image, pixel=8)])
        right += model.tokenizer.decode(ids) == ("yes" if answer else "no")
    assert right >= 18
