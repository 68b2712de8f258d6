"""A decoder learns from outcomes of texts that others wrote."""

import json

import numpy as np
import pytest

from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.train import OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.lora import LoRA
from jaxcore.train.tasks.off_policy import OffPolicyTask
from tests import tiny_language

TOKENS = (10, 20, 30, 40)
LINES = [
    {"prompt": [5], "tokens": [token, 0], "reward": 10.0 + (token == 20)} for token in TOKENS * 2
]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    place = tmp_path_factory.mktemp("logs")
    folder = tiny_language.write_folder(place / "model", tensors=tiny_language.weights(scale=0.3))
    data = place / "logs.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    stages = (Stage(steps=None, patch=4, batch_size=8),)
    options = {"base": str(folder), "data": data, "stages": stages, "largest": 2.0}
    return OffPolicyTask(adapters=True, lora=LoRA(rank=4, alpha=8), **options).settled()


def test_the_value_grows_and_what_weighs_is_told(task, tmp_path):
    optim = OptimConfig(learning_rate=3e-2)
    cfg = TrainConfig(steps=30, optim=optim, log_every=1, tensorboard=False)
    found = fit(task, cfg, tmp_path / "run", reporter=Silent()).metrics
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "effective_share" in line)
    assert first["effective_share"] == pytest.approx(1)  # at first it is the writer itself
    assert first["value"] == pytest.approx(0, abs=1e-5)  # in deviations from the mean
    mean = float(np.mean([line["reward"] for line in LINES]))
    assert found["value"] > mean + 0.3 and found["gain"] == pytest.approx(found["value"] - mean)
    assert 0.2 < found["effective_share"] < 0.9


def test_normalised_weights_want_whole_batches(task):
    cfg = TrainConfig(steps=1, accum_steps=2)
    with pytest.raises(UserError, match="Expected whole batches"):
        task.step(None, cfg, None)
