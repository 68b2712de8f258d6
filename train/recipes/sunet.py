"""Recipes of SUNet (Fan et al., ISCAS 2022)."""

from collections.abc import Callable

from jaxcore.data.images.kinds import Pairs
from jaxcore.data.images.pipeline import Stage
from jaxcore.models.sunet import SUNetConfig
from jaxcore.train.config import TrainConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.restoration import RestorationTask


def _sunet() -> Recipe:
    """SUNet on pairs of colour images; rates, crops and batch of the published denoiser."""
    schedule = ScheduleConfig(name="sunet_official", floor=1e-6)
    optim = OptimConfig(name="adam", learning_rate=2e-4, schedule=schedule)
    task = RestorationTask(
        model="sunet",
        network=SUNetConfig.denoise_rgb(remat=True),
        data=Pairs(),
        stages=(Stage(steps=None, patch=256, batch_size=4),),
    )
    train = TrainConfig(steps=500_000, optim=optim, save_every=2000, sample_every=10_000)
    return Recipe(task=task, train=train)


RECIPES: dict[str, Callable[..., Recipe]] = {"sunet": _sunet}
