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
_FACES = Preparation(size=64, resample="bilinear")


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


def _restoration(
    network: RDDMConfig, name: str, *, equalise: bool = False, masks: str = "", **options: Any
) -> Recipe:
    """Whole images as squares, measured against squares as MATLAB makes them."""
    prepare = Preparation(size=256, pad=True, truth="matlab", equalise=equalise)
    data = Pairs(tasks=(name,), condition_folder=masks, prepare=prepare)
    return _published(network, data, side=256, batch=1, optim=_ADAM, **options)


def _low_light(network: RDDMConfig) -> Recipe:
    return _restoration(
        network, "lowlight", equalise=True, steps=80_000, sampled=2, eval_protocol="y"
    )


def _faces(network: RDDMConfig, data: ImageData, **options: Any) -> Recipe:
    return _published(network, data, side=64, optim=_RADAM, steps=100_000, sampled=10, **options)


def _generation(network: RDDMConfig) -> Recipe:
    return _faces(network, CelebA(prepare=_FACES), batch=128, eval_images=256)


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
    "rddm_deraining": lambda: _restoration(
        RDDMConfig.deraining(), "raindrop", steps=120_000, sampled=5, eval_protocol="y"
    ),
    "rddm_objective_search": lambda: _low_light(RDDMConfig.objective_search()),
    "rddm_inpainting": lambda: _faces(
        RDDMConfig.inpainting(), CleanImages(tasks=("centre_box",), prepare=_FACES), batch=64
    ),
    "rddm_translation": lambda: _faces(
        RDDMConfig.translation(),
        Pairs(tasks=("translation",), pair_by="unpaired", prepare=Preparation(size=64, pad=True)),
        batch=64,
    ),
    "rddm_generation": lambda: _generation(RDDMConfig.generation()),
    "rddm_path_independence": lambda: _generation(RDDMConfig.path_independence()),
    "rddm_low_light": lambda: _low_light(RDDMConfig.low_light()),
    "rddm_shadow_removal": lambda: _restoration(
        RDDMConfig.shadow_removal(), "shadow", masks="mask", steps=80_000, sampled=5
    ),
    "rddm_deblurring": lambda: _restoration(
        RDDMConfig.deblurring(), "deblur", steps=120_000, sampled=2, eval_protocol="matlab_rgb"
    ),
    "rddm_demo": _demo,
}
