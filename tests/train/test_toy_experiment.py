"""The acceptance experiment: one small network, two degradations, 250 updates."""

import pytest

from jaxcore.data.images.kinds import Toy
from jaxcore.data.images.pipeline import Stage
from jaxcore.models.adair import AdaIRConfig
from jaxcore.train import OptimConfig, ScheduleConfig, TrainConfig, fit
from jaxcore.train.logging import Silent
from jaxcore.train.tasks.restoration import RestorationTask


@pytest.mark.slow
def test_one_network_learns_both_degradations_without_being_told_which(tmp_path):
    task = RestorationTask(
        network=AdaIRConfig.tiny(),
        data=Toy(),
        stages=(Stage(patch=64, batch_size=8),),
        augment="none",
    )
    optim = OptimConfig(
        learning_rate=1e-3, weight_decay=0.01, schedule=ScheduleConfig(name="cosine")
    )
    cfg = TrainConfig(steps=250, optim=optim, tensorboard=False)
    metrics = fit(task, cfg, tmp_path, reporter=Silent()).metrics
    # Inputs of the experiment's own stream: 20.47 dB and 12.84 dB.
    assert metrics["noise25/psnr_in"] == pytest.approx(20.47, abs=0.01)
    assert metrics["haze/psnr_in"] == pytest.approx(12.84, abs=0.01)
    assert metrics["noise25/gain"] >= 4.0
    assert metrics["haze/gain"] >= 6.0
