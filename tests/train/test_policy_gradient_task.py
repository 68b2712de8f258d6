"""A decoder learns from what its own completions earn, on the one loop."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.parallel import make_mesh
from jaxcore.train import OptimConfig, TrainConfig, fit, rewards
from jaxcore.train.logging import Silent
from jaxcore.train.lora import LoRA
from jaxcore.train.policy_gradient import PolicyGradient
from jaxcore.train.prepare import prepare
from jaxcore.train.rollouts import Sampling
from jaxcore.train.tasks.policy_gradient import PolicyGradientTask
from jaxcore.weights.decoders import load_decoder
from tests import tiny_language

WANTED = range(2, 120)  # tokens that are to be said, not quite half of all
LINES = [{"prompt": text} for text in ("Why?", "How so?", "Hello, who is there?")]


def wanted_tokens(completions):
    return [sum(t in WANTED for t in found.tokens) / 4 for found in completions]


rewards.register("wanted tokens", wanted_tokens)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("model")
    weights = tiny_language.weights(scale=1.0)
    return tiny_language.write_folder(where / "model", tensors=weights)


@pytest.fixture(scope="module")
def task(folder):
    data = folder.parent / "prompts.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    task = PolicyGradientTask(
        base=str(folder),
        adapters=True,
        lora=LoRA(rank=4, alpha=8),
        data=data,
        chat=False,
        rewards=("wanted tokens",),
        method=PolicyGradient(beta=0.001, truncated="keep"),
        sampling=Sampling(group=8, max_new_tokens=4),
        eval_prompts=2,
        stages=(Stage(steps=None, patch=24, batch_size=4),),
    )
    return task.settled()


def config(steps, **options):
    optim = OptimConfig(learning_rate=5e-2)
    return TrainConfig(steps=steps, optim=optim, log_every=1, tensorboard=False, **options)


def logged(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "reward" in line and "grad_norm" in line]


@pytest.fixture(scope="module")
def trained(task, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    return run, fit(task, config(16, save_every=4), run, reporter=Silent())


def test_rewards_grow_and_what_there_is_to_follow_is_logged(trained):
    run, result = trained
    lines = logged(run)
    names = ("kl", "kl_k3", "entropy", "clipped", "tokens", "truncated", "equal_groups", "reward")
    assert all(np.isfinite([line[name] for name in names]).all() for line in lines)
    first, last = (np.mean([line["reward"] for line in part]) for part in (lines[:4], lines[-4:]))
    assert last > first + 0.3
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-4)  # adapters change nothing at first
    assert set(result.metrics) == {"reward", "tokens", "truncated", "kl"}
    assert result.metrics["kl"] > 0.1


def test_a_run_that_was_stopped_goes_on_with_the_same_completions(task, trained, tmp_path):
    whole, result = trained
    run = tmp_path / "run"
    fit(task, config(6), run, reporter=Silent())
    again = fit(task, config(16), run, reporter=Silent(), change_settings=True)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, result.state.params)
    assert [line["reward"] for line in logged(run)] == [line["reward"] for line in logged(whole)]


@pytest.mark.slow
def test_several_devices_learn_the_same(task, tmp_path):
    runs = {}
    for name, mesh in (("one", None), ("two", make_mesh(fsdp=2))):
        result = fit(task, config(1), tmp_path / name, mesh=mesh, reporter=Silent())
        runs[name] = result.state.params, logged(tmp_path / name)[0]["reward"]
    assert runs["one"][1] == runs["two"][1]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, runs["one"][0], runs["two"][0])


@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_other_algorithms_train_too(task, algorithm, tmp_path):
    method = dataclasses.replace(task.method, algorithm=algorithm)
    other = dataclasses.replace(task, method=method, inner_steps=2, resample=1)
    result = fit(other, config(2), tmp_path / "run", reporter=Silent())
    assert np.isfinite(logged(tmp_path / "run")[-1]["loss"])
    assert ("value" in result.state.params) == (algorithm == "ppo")


def test_what_is_compared_is_at_the_temperature_of_the_sampling(task, folder):
    """And prompts of other lengths, padded on the left, change nothing."""
    sampling = dataclasses.replace(task.sampling, temperature=0.7, top_k=50)
    other = dataclasses.replace(task, sampling=sampling, inner_steps=2)
    ready = prepare(other, config(1))
    batch = next(other.batches(0, 0))
    made = other.experience(ready.initial_state(), batch, jax.random.key(0), ready.frozen)
    row = int(np.argmin(batch["valid"].sum(axis=1))) * 8  # the shortest prompt
    texts = np.asarray(made["texts"])[row][None, np.asarray(made["valid"])[row]]
    logits = llama.apply(load_decoder(folder).params, texts, task.network).logits
    assert logits is not None
    count = int(made["mask"][row].sum())
    each = np.asarray(jax.nn.log_softmax(logits[0, -count - 1 : -1] / 0.7))
    wanted = np.take_along_axis(each, texts[0, -count:, None], axis=-1)[:, 0]
    np.testing.assert_allclose(made["old"][row][:count], wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": ("mach",)}, "Unknown reward 'mach'"),
        ({"sampling": Sampling(max_new_tokens=60)}, "at most 64 tokens, found"),
        ({"stages": (Stage(steps=None, patch=3, batch_size=4),)}, "a prompt of 1 to 3 tokens"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_start(task, changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(task, **changes).check()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "no prompt"}, 'Expected a "prompt" in line 1'),
        ({"prompt": 3}, "a prompt as a text, a chat or tokens in line 1"),
        ({"prompt": [999]}, "whole numbers below"),
    ],
)
def test_lines_without_a_prompt_are_refused(task, line, message, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=message):
        dataclasses.replace(task, data=path).check()


def test_settings_that_contradict_each_other_are_refused(task):
    with pytest.raises(UserError, match="group must be at least 2"):
        dataclasses.replace(task, sampling=Sampling(group=1))
    with pytest.raises(UserError, match="as many as the 1 rewards"):
        dataclasses.replace(task, reward_weights=(1.0, 2.0))
