"""Recipes of RDDM (Liu et al., CVPR 2024): the published experiments, and small ones of our own.

Common to the published ones: T = 1000, moving average 0.995, joint gradient norm 1, two
micro-batches per update, no decay of the rate. Rows of the paper that no released script states
are marked as such; what is not known of them is taken from the deraining script.

Two optimisers, one per network, with equal settings and joint clipping are one optimiser.
"""

from collections.abc import Callable
from typing import Any

from jaxcore.data.images.kinds import CelebA, CleanImages, ImageData, Pairs, Photos
from jaxcore.data.images.pipeline import Stage
from jaxcore.data.images.preparation import Preparation
from jaxcore.models.rddm import RDDMConfig
from jaxcore.train.config import TrainConfig
from jaxcore.train.ema import EMAConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.diffusion import DiffusionTask

_ADAM = OptimConfig(name="adam", learning_rate=8e-5, betas=(0.9, 0.99), clip_norm=1.0)
_RADAM = OptimConfig(name="radam", learning_rate=2e-4, clip_norm=1.0)
_ACCUMULATE = 2


def _published(
    network: RDDMConfig,
    data: ImageData,
    *,
    side: int,
    batch: int,
    optim: OptimConfig,
    steps: int,
    sampled: int,
    **task: Any,
) -> Recipe:
    """A published experiment; ``batch`` is that of one micro-batch."""
    return Recipe(
        task=DiffusionTask(
            network=network,
            data=data,
            # The released code accumulates over two batches of the stated size.
            stages=(Stage(steps=None, patch=side, batch_size=_ACCUMULATE * batch),),
            sample_steps=sampled,
            **task,
        ),
        train=TrainConfig(
            steps=steps,
            seed=10,
            optim=optim,
            accum_steps=_ACCUMULATE,
            ema=EMAConfig.rddm(),
            save_every=1000,
            sample_every=1000,
        ),
    )


def _photos(side: int = 256, **options: Any) -> Preparation:
    """Whole images as squares, measured against squares as MATLAB makes them."""
    return Preparation(size=side, pad=True, truth="matlab", **options)


def _restoration(network: RDDMConfig, data: ImageData, **options: Any) -> Recipe:
    return _published(network, data, side=256, batch=1, optim=_ADAM, **options)


def _faces(network: RDDMConfig, data: ImageData, **options: Any) -> Recipe:
    return _published(network, data, side=64, optim=_RADAM, steps=100_000, sampled=10, **options)


def _deraining() -> Recipe:
    return _restoration(
        RDDMConfig.deraining(),
        Pairs(tasks=("raindrop",), prepare=_photos()),
        steps=120_000,
        sampled=5,
        eval_protocol="y",
    )


def _objective_search() -> Recipe:
    return _restoration(
        RDDMConfig.objective_search(),
        Pairs(tasks=("lowlight",), prepare=_photos(equalise=True)),
        steps=80_000,
        sampled=2,
        eval_protocol="y",
    )


def _low_light() -> Recipe:
    return _restoration(
        RDDMConfig.low_light(),
        Pairs(tasks=("lowlight",), prepare=_photos(equalise=True)),
        steps=80_000,
        sampled=2,
        eval_protocol="y",
    )


def _shadow_removal() -> Recipe:
    return _restoration(
        RDDMConfig.shadow_removal(),
        Pairs(tasks=("shadow",), condition_folder="mask", prepare=_photos()),
        steps=80_000,
        sampled=5,
    )


def _deblurring() -> Recipe:
    return _restoration(
        RDDMConfig.deblurring(),
        Pairs(tasks=("deblur",), prepare=_photos()),
        steps=120_000,
        sampled=2,
        eval_protocol="matlab_rgb",
    )


def _inpainting() -> Recipe:
    prepare = Preparation(size=64, resample="bilinear")
    return _faces(
        RDDMConfig.inpainting(),
        CleanImages(tasks=("centre_box",), prepare=prepare),
        batch=64,
    )


def _translation() -> Recipe:
    prepare = Preparation(size=64, pad=True)
    return _faces(
        RDDMConfig.translation(),
        Pairs(tasks=("translation",), pair_by="index", prepare=prepare),
        batch=64,
    )


def _celeba() -> ImageData:
    return CelebA(prepare=Preparation(size=64, resample="bilinear"))


def _generation() -> Recipe:
    return _faces(
        RDDMConfig.generation(),
        _celeba(),
        batch=128,
        eval_images=256,
    )


def _path_independence() -> Recipe:
    return _faces(
        RDDMConfig.path_independence(),
        _celeba(),
        batch=128,
        eval_images=256,
    )


def _own() -> Recipe:
    """RDDM for the residual on one's own pairs, at their own resolution; not published."""
    optim = OptimConfig(name="adam", learning_rate=1e-4, betas=(0.9, 0.99), clip_norm=1.0)
    return Recipe(
        task=DiffusionTask(
            network=RDDMConfig.low_light(),
            data=Pairs(),
            stages=(Stage(steps=None, patch=128, batch_size=8),),
            sample_steps=5,
        ),
        train=TrainConfig(
            steps=100_000, optim=optim, ema=EMAConfig.rddm(), save_every=1000, sample_every=5000
        ),
    )


def _demo() -> Recipe:
    """A tiny network that learns to remove noise from photographs: minutes on a CPU."""
    optim = OptimConfig(
        name="adam",
        learning_rate=1e-3,
        betas=(0.9, 0.99),
        clip_norm=1.0,
        schedule=ScheduleConfig(name="warmup_cosine", warmup_steps=20),
    )
    return Recipe(
        task=DiffusionTask(
            network=RDDMConfig.tiny(),
            data=Photos(tasks=("noise50",)),
            stages=(Stage(steps=None, patch=32, batch_size=8),),
            sample_steps=5,
            eval_side=160,
        ),
        train=TrainConfig(
            steps=400,
            optim=optim,
            ema=EMAConfig(decay=0.98, warmup="debias"),
            log_every=20,
            save_every=200,
            keep_last=1,
        ),
    )


RECIPES: dict[str, Callable[..., Recipe]] = {
    "rddm": _own,
    "rddm_deraining": _deraining,
    "rddm_objective_search": _objective_search,
    "rddm_inpainting": _inpainting,
    "rddm_translation": _translation,
    "rddm_generation": _generation,
    "rddm_path_independence": _path_independence,
    "rddm_low_light": _low_light,
    "rddm_shadow_removal": _shadow_removal,
    "rddm_deblurring": _deblurring,
    "rddm_demo": _demo,
}
