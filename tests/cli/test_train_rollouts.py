"""``jaxcore train lm-grpo`` as a user calls it: rewards of functions and of a reward model."""

import json

import numpy as np
import pytest

from jaxcore.data.images.pipeline import Stage
from jaxcore.train import TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.lora import LoRA
from jaxcore.train.tasks.reward import RewardTask
from jaxcore.weights.decoders import load_decoder
from tests.tiny_language import weights, write_folder

SHORT = ["--train.no-tensorboard", "--stages.0.patch", "32"]
LOG = [
    {"prompt": "the cat", "text": "sat the mat", "reward": 0.2, "answer": "sat"},
    {"prompt": "the dog", "text": "ran", "reward": 1.5, "answer": "ran"},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    write_folder(folder / "model", tensors=weights(scale=0.3))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    return folder


@pytest.fixture(scope="module")
def reward(place):
    """A run of ``lm-reward``."""
    stages = (Stage(steps=None, patch=32, batch_size=2),)
    options = {"base": str(place / "model"), "data": place / "log.jsonl", "stages": stages}
    task = RewardTask(adapters=True, lora=LoRA(rank=2), **options).settled()
    run = place / "reward"
    fit(task, TrainConfig(steps=1, tensorboard=False), run, reporter=Silent())
    return run


def training(place, name, run, *more):
    return [
        "train",
        name,
        "--model",
        place / "model",
        "--data",
        place / "log.jsonl",
        "-o",
        run,
        *more,
    ]


def sampling(place, run, *more):
    sizes = [
        "--stages.0.batch-size",
        "2",
        "--sampling.group",
        "2",
        "--sampling.max-new-tokens",
        "4",
    ]
    given = ["--eval-prompts", "1", "--lora.rank", "2", *sizes, *SHORT, *more]
    return training(place, "lm-grpo", run, *given)


def test_a_reward_model_and_a_function_reward_together(place, reward, tmp_path, call):
    run = tmp_path / "run"
    both = ["--reward-models", reward, "--rewards", "brevity", "--reward-weights", "0.5", "1"]
    code, out, err = call(
        *sampling(place, run, *both, "--method.truncated", "keep", "--train.steps", "1")
    )
    assert code == 0, err
    assert "not known to be free of what confounders did" in out
    assert "truncated" in out and ", reward " in err and ", kl " in err
    before, after = load_decoder(place / "model").params, load_decoder(run).params
    assert np.any(before["layers"]["qkv"]["kernel"] != after["layers"]["qkv"]["kernel"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "something to reward (--rewards brevity contains match"),
        (["--rewards", "mtch"], "Unknown reward 'mtch'"),
        (["--reward-models", "model"], "run of a reward model, found none"),
        (["--rewards", "match", "--method.algorithm", "a2c"], "algorithm"),
        (["--rewards", "match", "--method.delta", "0.5"], "Expected delta above"),
        (["--rewards", "match", "--sampling.banned", "0"], "may end a completion"),
    ],
)
def test_what_cannot_be_rewarded_is_refused_in_a_sentence(place, more, message, tmp_path, call):
    more = [place / word if word == "model" else word for word in more]
    code, _, err = call(*sampling(place, tmp_path / "run", *more, "--train.steps", "1"))
    assert code == 2 and message in err
    assert not (tmp_path / "run").exists()
