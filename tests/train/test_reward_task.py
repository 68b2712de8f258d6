"""Reward models on the one loop: what they learn, their units, what is kept beside them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.data.completions import Answer, Completions
from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.train import OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.losses.reward import odin, reward_bt
from jaxcore.train.tasks.reward import RewardTask
from jaxcore.weights.rewards import load_reward

GOOD = 7  # the token that makes an outcome one higher each time it stands in a completion
CFG = TrainConfig(steps=60, optim=OptimConfig(learning_rate=2e-2), tensorboard=False)
STAGES = (Stage(steps=None, patch=8, batch_size=16),)


def completions(count=64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 11, rng.integers(2, 6)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "adjusted.jsonl"
    lines = [
        {"prompt": [1, 2], "tokens": tokens, "reward": 100.0 + 10 * tokens.count(GOOD)}
        for tokens in completions()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def task_of(data, **changes):
    network = LlamaConfig.tiny(depth=1, width=16)
    return RewardTask(**{"network": network, "data": data, "stages": STAGES, **changes})


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    report = tmp_path_factory.mktemp("report") / "estimate.json"
    report.write_text(json.dumps({"route": "iv", "delta": [2.0]}))
    task, folder = task_of(data, deconfounder=report), tmp_path_factory.mktemp("reward") / "run"
    return task, folder, fit(task, CFG, folder, reporter=Silent())


def test_outcomes_are_learned_in_their_own_units(run):
    _, folder, result = run
    assert result.metrics["r2"] > 0.9
    model = load_reward(folder)
    assert model.deconfounder == {"route": "iv", "delta": [2.0]}
    tokens = jnp.array([[1, 2, 5, 4, 0, 0], [0, 0, 1, 2, 5, 4], [1, 2, 5, GOOD, 0, 0]])
    valid = tokens > 0
    padded_right, padded_left, better = model.rewards(tokens, valid)
    np.testing.assert_allclose(padded_right, padded_left, rtol=1e-5)
    assert abs(padded_right - 100) < 4 and abs(better - 110) < 8


def test_a_model_without_its_deconfounding_is_loaded_with_a_warning(data, tmp_path):
    cfg = dataclasses.replace(CFG, steps=1)
    fit(task_of(data, objective="bt"), cfg, tmp_path / "run", reporter=Silent())
    with pytest.warns(UserWarning, match="Nothing is known of how the rewards"):
        assert load_reward(tmp_path / "run").deconfounder is None


def test_pairs_of_the_same_prompt_are_made_of_outcomes(data):
    task = task_of(data, objective="bt", margin=True)
    batch = task.batch(range(5), 8)
    outcome = np.sum((batch["tokens"] == GOOD) & batch["valid"], axis=-1)
    assert (outcome[:, 0] > outcome[:, 1]).all()
    np.testing.assert_allclose(batch["margin"], 10 * (outcome[:, 0] - outcome[:, 1]))


def scores(task, params, batch):
    """Of each row of a batch, computed apart."""
    tokens = batch["tokens"].reshape(-1, batch["tokens"].shape[-1])
    valid = batch["valid"].reshape(tokens.shape)
    hidden = llama.apply(params["model"], tokens, task.network, valid=valid).hidden
    last = valid.sum(axis=1) - 1
    return hidden[np.arange(len(last)), last]


@pytest.mark.parametrize(
    ("objective", "more"),
    [("bt", {"margin": True, "centering": 0.1}), ("odin_pairs", {}), ("odin", {"form": "plain"})],
)
def test_losses_are_those_of_the_library(data, objective, more):
    task = task_of(data, objective=objective, **more)
    params = task.init_params(jax.random.key(0))
    batch = task.batch(range(6), 8)
    found = jax.jit(task.loss)({"params": params}, batch, jax.random.key(1), None)
    states = scores(task, params, batch)
    heads = params["score"]["kernel"]
    if objective == "bt":
        r = states @ heads[0]
        options = {"margin": batch["margin"], "centering": 0.1}
        expected = reward_bt(r[::2], r[1::2], **options).value()
    elif objective == "odin":
        length = jnp.asarray(batch["confounder"])
        expected = odin(states, heads, length, scores=batch["outcome"], form="plain")
        assert set(batch["confounder"]) <= {2, 3, 4, 5}
    else:
        states = jnp.concatenate([states[::2], states[1::2]])
        length = jnp.asarray(batch["confounder"].T.reshape(-1))
        expected = odin(states, heads, length)
    np.testing.assert_allclose(found.total / found.weight, expected, rtol=1e-5)


def test_correlations_of_micro_batches_are_refused(data):
    task = task_of(data, objective="odin")
    with pytest.raises(UserError, match="whole batches with the objective odin"):
        task.step(None, dataclasses.replace(CFG, accum_steps=2), None)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"tokens": [1], "reward": 2}] * 3, "outcomes that differ in .*, found 2 3 times"),
        ([{"tokens": [], "reward": 2}], "a completion of at least one token in line 1"),
        ([{"tokens": [1], "outcome": 2}], "named 'reward' in line 1 .*, found tokens, outcome"),
        ([{"text": "a", "reward": 2}], "as there is no tokenizer"),
        ([{"tokens": [11], "reward": 2}], "whole numbers below 11 in line 1"),
        ([{"tokens": [1], "reward": "x"}], "a number as 'reward' in line 1"),
        ([{"tokens": [1], "reward": 1, "weight": -1}], "a weight of at least 0 in line 1"),
        ([{"tokens": [1], "reward": None}], "at least one completion"),
    ],
)
def test_lines_that_do_not_fit_are_refused(tmp_path, lines, message):
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=message):
        task_of(path, stages=(Stage(steps=None, patch=8, batch_size=1),)).check()


def test_the_completion_stays_where_a_row_is_too_short():
    answers = Completions([Answer([1, 2, 3, 4, 5], n) for n in (3, 1)] + [Answer([1, 2], 0)])
    rows = answers.rows([0, 1, 2], 3)
    assert rows.tokens.tolist() == [[3, 4, 5], [1, 2, 3], [1, 2, 0]]
    assert rows.mask.tolist() == [[False, True, True], [False, True, True], [True, True, False]]
