"""Recipes of DEA-Net (Chen et al., IEEE TIP 2024), and a small one of our own.

The released command trains DEA-Net-CR: 1.5 M updates on crops of 256, batch 16, Adam from 1e-4
along a cosine to 1e-6, quarter turns without flips, no clipping, no moving average, L1 plus 0.1
of the contrastive regularisation. What was used without the contrast is not published: those
recipes here are the same with its weight 0.
"""

from collections.abc import Callable

from jaxcore.data.images.kinds import Dehazing, Photos
from jaxcore.data.images.pipeline import Stage
from jaxcore.models.dea_net import DEANetConfig
from jaxcore.train.config import TrainConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.recipes.demo import demo, on_photographs
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.restoration import RestorationTask

_EVALUATE = 5000  # updates between evaluations, as released


def _published(network: DEANetConfig, *, contrast: float = 0.0) -> Recipe:
    """The released training, of a network."""
    optim = OptimConfig(
        name="adam", learning_rate=1e-4, schedule=ScheduleConfig(name="cosine", floor=1e-6)
    )
    task = RestorationTask(
        model="dea_net",
        network=network,
        data=Dehazing(tasks=("its",)),
        stages=(Stage(steps=None, patch=256, batch_size=16),),
        augment="rotate",
        crop_multiple=1,
        eval_protocol="rgb_gaussian",
        contrastive_weight=contrast,
    )
    train = TrainConfig(
        steps=1_500_000,
        seed=666,
        optim=optim,
        eval_every=_EVALUATE,
        save_every=_EVALUATE,
        sample_every=10 * _EVALUATE,
    )
    return Recipe(task=task, train=train)


def _dea_net() -> Recipe:
    """DEA-Net (Chen et al., IEEE TIP 2024)."""
    return _published(DEANetConfig.base())


def _dea_net_s() -> Recipe:
    """DEA-Net-S (Chen et al., IEEE TIP 2024)."""
    return _published(DEANetConfig.small())


def _dea_net_cr() -> Recipe:
    """DEA-Net-CR (Chen et al., IEEE TIP 2024); needs ``--vgg``, torchvision's vgg19."""
    return _published(DEANetConfig.base(), contrast=0.1)


# 1.0 M parameters in training, half of that merged; wider than `DEANetConfig.tiny`.
_SMALL = DEANetConfig.tiny(base_dim=16, depths=(2, 2, 4, 2, 2))


def _demo(steps: int = 300) -> Recipe:
    """A small DEA-Net with a residual on photographs with haze.

    `jaxcore demo --model dea_net` starts it from the weights ``haze`` that come with the library.
    """
    return demo(
        steps,
        8,
        5e-4,
        model="dea_net",
        network=_SMALL,
        data=Photos(tasks=("haze",)),
        eval_protocol="rgb_gaussian",
    )


def _photos() -> Recipe:
    """A small DEA-Net for haze, on a folder of clean photographs; an hour on a CPU core.

    The weights ``haze`` that come with the library are trained by it. Every row is hazy: where
    half of them were clean, the network learnt to leave everything as it is.
    """
    return on_photographs(
        2200,
        2e-3,
        Stage(steps=None, patch=192, batch_size=4),
        ("haze",),
        save_every=200,
        model="dea_net",
        network=_SMALL,
    )


RECIPES: dict[str, Callable[..., Recipe]] = {
    "dea_net": _dea_net,
    "dea_net_s": _dea_net_s,
    "dea_net_cr": _dea_net_cr,
    "dea_net_demo": _demo,
    "dea_net_photos": _photos,
}
