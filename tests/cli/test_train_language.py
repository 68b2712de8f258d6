"""``jaxcore train lm-sft``, ``lm-reward``, ``lm-dpo`` as a user calls them, and what comes out."""

import json

import numpy as np
import pytest

from jaxcore.weights import load_language
from jaxcore.weights.decoders import load_decoder
from tests.tiny_language import write_folder

COMMON = (
    "--stages.0.patch 32 --stages.0.batch-size 2 --train.steps 2 --train.no-tensorboard".split()
)
LOG = [
    {"prompt": "the cat", "text": "sat the mat", "reward": 0.2, "confounders": {"hour": 3}},
    {"prompt": "the cat", "text": "ran", "reward": 1.5, "confounders": {"hour": 4}},
    {"prompt": "the dog", "text": "the cat ran", "reward": -0.5, "confounders": {"hour": 1}},
    {"prompt": "the dog", "text": "sat", "reward": 0.0, "confounders": {"hour": 9}},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, and a log as ``estimate deconfound`` writes it."""
    folder = tmp_path_factory.mktemp("language")
    write_folder(folder / "model")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    return folder


def training(place, name, run, *more):
    paths = ["--model", place / "model", "--data", place / "log.jsonl", "-o", run]
    return ["train", name, *paths, "--epochs", "None", *COMMON, *more]


def test_preferences_are_learned_exported_and_read_again(place, tmp_path, call):
    run = tmp_path / "run"
    code, out, err = call(*training(place, "lm-dpo", run, "--lora.rank", "2"))
    assert code == 0, err
    assert "pairs" in out and "accuracy" in out
    config = json.loads((run / "config.json").read_text())
    assert config["task_config"]["network"]["width"] == 8
    code, out, err = call("convert", run, tmp_path / "whole")
    assert code == 0, err
    merged, again = load_decoder(run), load_language(tmp_path / "whole")
    assert again.cfg == merged.cfg and again.tokenizer.template is not None
    np.testing.assert_array_equal(again.params["embed"], merged.params["embed"])
    prompt = load_language(run).prompt("the cat")
    assert prompt == again.prompt("the cat") and again.tokenizer.eos == (0,)
    code, out, err = call("convert", run, tmp_path / "adapters", "--adapters")
    assert code == 0 and "adapters of rank 2" in out, err
    settings = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(place / "model")
    code, out, err = call("convert", run, tmp_path / "adapters", "--adapters")
    assert code == 2 and "adapters" in err


def test_rewards_are_learned_of_what_the_deconfounding_wrote(place, tmp_path, call):
    run = tmp_path / "run"
    code, out, err = call(
        *training(place, "lm-reward", run, "--objective", "odin", "--confounder", "hour")
    )
    assert code == 0, err
    assert "confounder_correlation" in out and "completions" in out
    code, _, err = call("convert", run, tmp_path / "whole")
    assert code == 0, err
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["reward_mean"] == pytest.approx(0.3) and config["reward_std"] > 0


def test_completions_are_learned_with_all_weights(place, tmp_path, call):
    run = tmp_path / "run"
    argv = training(place, "lm-sft", run, "--no-adapters", "--held-out", place / "log.jsonl")
    code, out, err = call(*argv)
    assert code == 0, err
    assert "perplexity" in out
    code, out, err = call("info", run)
    assert code == 0 and "llama" in out, err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--init", "x"], "as --model, found --init"),
        (["--data", "nowhere.jsonl"], "no such file: nowhere.jsonl"),
        (["--network.depth", "7"], "options of --network other than"),
        (["--stages.0.patch", "65"], "at most 64 tokens, found 65"),
        (["--model", "nowhere"], "found nothing at nowhere"),
        (["--model", "None"], "--model must be the model that adapters are for"),
        (["--adapters-from", "nowhere"], "a configuration of adapters in nowhere"),
    ],
)
def test_what_does_not_fit_ends_in_one_sentence(place, tmp_path, call, more, message):
    code, _, err = call(*training(place, "lm-dpo", tmp_path / "run", *more))
    assert code == 2 and message in err
    assert not (tmp_path / "run").exists()
