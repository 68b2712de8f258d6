"""DPO on the one loop: the reference, the pairs, what is learned."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.train import OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.lora import LoRA
from jaxcore.train.losses.preference import Preference, preference_loss
from jaxcore.train.tasks.lm import LanguageTask
from jaxcore.train.tasks.preference import PreferenceTask
from tests.tiny_language import write_folder, write_tokenizer

LINES = [
    {"prompt": [1, 2], "chosen": [3, 4, 5], "rejected": [6, 4]},
    {"prompt": [1, 7], "chosen": [3, 8], "rejected": [6, 8, 9]},
    {"prompt": [9], "chosen": [3], "rejected": [6]},
    {"prompt": [9, 1, 1], "chosen": [3, 5], "rejected": [6, 5]},
]
CFG = TrainConfig(steps=30, optim=OptimConfig(learning_rate=3e-2), tensorboard=False)
STAGES = (Stage(steps=None, patch=8, batch_size=4),)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    texts = folder / "texts.jsonl"
    texts.write_text('{"tokens": [1, 2, 3]}\n')
    network = LlamaConfig.tiny(depth=1, width=16)
    stages = (Stage(steps=None, patch=8, batch_size=1),)
    cfg = dataclasses.replace(CFG, steps=1)
    task = LanguageTask(network=network, data=texts, stages=stages)
    fit(task, cfg, folder / "run", reporter=Silent())
    return str(folder / "run")


@pytest.fixture(params=["adapters", "everything"])
def task(request, data, base):
    adapters = request.param == "adapters"
    options = {"data": data, "stages": STAGES, "lora": LoRA(rank=4, alpha=8)}
    return PreferenceTask(base=base, adapters=adapters, **options).settled()


def test_what_was_chosen_gets_likelier_than_by_the_reference(task, tmp_path):
    start = task.frozen()["base"]
    params = task.init_params(jax.random.key(0))
    batch = task.batch(range(4), 8)
    first = jax.jit(task.loss)({"params": params}, batch, jax.random.key(0), task.frozen())
    # Before the first step the policy is the reference.
    np.testing.assert_allclose(first.total / first.weight, math.log(2), rtol=1e-5)
    found = fit(task, CFG, tmp_path / "run", reporter=Silent())
    assert found.metrics["accuracy"] == 1 and found.metrics["loss"] < 0.65
    assert found.metrics["margin"] > 0.1
    again = task.frozen()["base"]
    jax.tree.map(np.testing.assert_array_equal, again, start)


def test_the_loss_is_that_of_the_library_on_log_probabilities_of_completions(task, data):
    settings = Preference(loss=("ipo", "sft"), weights=(1.0, 0.5), ld_alpha=0.5)
    task = dataclasses.replace(task, preference=settings)
    params = jax.tree.map(lambda leaf: leaf + 0.05, task.init_params(jax.random.key(0)))
    frozen = task.frozen()
    batch = task.batch([0, 1], 8)
    found = jax.jit(task.loss)({"params": params}, batch, jax.random.key(0), frozen)

    @jax.jit
    def forward(weights, tokens):
        return llama.apply(weights, tokens, task.network).logits

    def log_probs(weights, which):
        rows = [[*LINES[i]["prompt"], *LINES[i][which]] for i in (0, 1)]
        out = np.zeros((2, 8), np.float32)
        for place, row in enumerate(rows):
            logits = forward(weights, np.array([row + [0] * (8 - len(row))]))[0]
            every = jax.nn.log_softmax(logits)
            for i, token in enumerate(row[1:], 1):
                out[place, i] = every[i - 1, token]
        return out

    both = [
        jnp.concatenate([log_probs(weights, "chosen"), log_probs(weights, "rejected")])
        for weights in (task.policy.merged(params, frozen), task.policy.reference(frozen))
    ]
    mask = batch["mask"].swapaxes(0, 1).reshape(4, 8)
    assert mask.sum() == sum(len(LINES[i][w]) for i in (0, 1) for w in ("chosen", "rejected"))
    expected = preference_loss(*both, mask, settings).mean.value()
    np.testing.assert_allclose(found.total / found.weight, expected, rtol=2e-5)


def test_a_dpo_without_a_reference_and_sorted_losses_of_parts_are_refused(data, base):
    with pytest.raises(UserError, match="base must be the model that is the reference"):
        PreferenceTask(data=data)
    task = PreferenceTask(base=base, data=data, preference=Preference(loss="aot"))
    with pytest.raises(UserError, match="whole batches with the loss aot"):
        task.step(None, dataclasses.replace(CFG, accum_steps=2), None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": [1], "chosen": [2]}, '"chosen" and "rejected" in line 1'),
        ({"prompt": [1], "chosen": [2], "rejected": [2]}, "two different completions in line 1"),
        ({"prompt": [1], "chosen": [2], "rejected": []}, "at least one token in line 1"),
    ],
)
def test_pairs_that_are_none_are_refused(base, tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=message):
        PreferenceTask(base=base, data=path, stages=STAGES).settled().check()


def test_what_a_user_should_know_of_the_data_is_said(tmp_path):
    folder = write_folder(tmp_path / "model")
    other = tmp_path / "other"
    other.mkdir()
    write_tokenizer(other)
    task = PreferenceTask(base=str(folder), data=tmp_path / "pairs.jsonl", stages=STAGES)
    line = {"prompt": "a question", "chosen": "yes", "rejected": "no"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(line) + "\n")
    (note,) = task.settled().notes()
    assert note.startswith("2 of 2 texts have more than 8 tokens")
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "x"}))
    (note,) = dataclasses.replace(task, tokenizer=other).settled().notes()
    assert note.startswith(f"the tokenizer of {other} is not that of {folder}")
