"""A small decoder learns texts by heart, on the one loop."""

import json

import numpy as np
import pytest

from jaxcore.data.completions import Encoder
from jaxcore.data.images.pipeline import Stage
from jaxcore.data.texts import read_texts
from jaxcore.errors import UserError
from jaxcore.models.llama import LlamaConfig
from jaxcore.train import OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.tasks.lm import LanguageTask

LINES = [
    {"tokens": [1, 2, 3, 4, 5, 6]},
    {"tokens": [1, 7, 3, 8]},
    {"tokens": [9, 9, 10, 2], "counted": [False, False, True, True]},
]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_texts_are_learned_by_heart(texts, tmp_path):
    task = LanguageTask(
        network=LlamaConfig.tiny(width=16),
        data=texts,
        chunk=4,
        stages=(Stage(steps=None, patch=8, batch_size=2),),
    )
    cfg = TrainConfig(steps=150, optim=OptimConfig(learning_rate=1e-2), tensorboard=False)
    found = fit(task, cfg, tmp_path / "run", reporter=Silent())
    # After the 1 either follows: one nat in the two texts of eleven tokens cannot be learned.
    assert found.metrics["loss"] < 0.4
    assert np.isclose(found.metrics["perplexity"], np.exp(found.metrics["loss"]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"tokens": [1, 11]}, "whole numbers below 11"),
        ({"tokens": [1, 2.5]}, "found another object 4"),
        ({"tokens": [1, 2], "counted": [True]}, "true or false for each"),
        ({"text": "no tokenizer"}, 'Expected "tokens" of whole numbers'),
    ],
)
def test_lines_that_do_not_fit_are_refused(texts, line, message):
    with texts.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=message):
        read_texts(texts, 8, Encoder(vocab_size=11))


def test_rows_longer_than_the_network_are_refused(texts):
    task = LanguageTask(network=LlamaConfig.tiny(), data=texts)
    with pytest.raises(UserError, match="at most 64 tokens, found 512"):
        task.check()


def test_the_best_completions_alone_are_learned(tmp_path):
    path = tmp_path / "logs.jsonl"
    lines = [{"prompt": [1], "tokens": [n, 2], "reward": n} for n in range(3, 9)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stages = (Stage(steps=None, patch=6, batch_size=1),)
    task = LanguageTask(network=LlamaConfig.tiny(), data=path, best=0.3, stages=stages)
    rows = task.rows()
    assert rows.tokens.tolist() == [[1, 7, 2, 1, 8, 2]]
    assert rows.counted.astype(int).tolist() == [[0, 1, 1, 0, 1, 1]]
