"""Recipes of the network of two convolutions, found by its entry in the registry."""

from jaxcore.data.astro.telescopes import Telescope
from jaxcore.data.astro.training import StampData
from jaxcore.data.images.kinds import Pairs
from jaxcore.data.images.pipeline import Stage
from jaxcore.train import OptimConfig, TrainConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.tasks.deconvolution import DeconvolutionTask
from jaxcore.train.tasks.restoration import RestorationTask
from tests.tiny_network import NETWORK, TinyConfig


def tiny() -> Recipe:
    """Two convolutions on pairs of images.

    Two updates.
    """
    task = RestorationTask(
        model=NETWORK.name,
        network=TinyConfig(),
        data=Pairs(),
        stages=(Stage(steps=None, patch=16, batch_size=2),),
    )
    return Recipe(task=task, train=TrainConfig(steps=2, optim=OptimConfig(learning_rate=1e-3)))


def tiny_stamps() -> Recipe:
    """Two convolutions on simulated galaxies.

    Two updates.
    """
    task = DeconvolutionTask(
        model=NETWORK.name,
        network=TinyConfig(channels=1),
        data=StampData(count=4, held_out=2, telescope=Telescope(fwhm=(3.0, 3.0))),
        stages=(Stage(steps=None, patch=16, batch_size=2),),
    )
    return Recipe(task=task, train=TrainConfig(steps=2, optim=OptimConfig(learning_rate=1e-3)))


RECIPES = {"tiny": tiny, "tiny_stamps": tiny_stamps}
