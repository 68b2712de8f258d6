"""Recipes of SUNet (Fan et al., ISCAS 2022)."""

from collections.abc import Callable

from jaxcore.data.astro.galaxies import Population
from jaxcore.data.astro.telescopes import Telescope
from jaxcore.data.astro.training import StampData
from jaxcore.data.images.kinds import Pairs
from jaxcore.data.images.pipeline import Stage
from jaxcore.models.sunet import SUNetConfig
from jaxcore.train.config import TrainConfig
from jaxcore.train.ema import EMAConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.deconvolution import DeconvolutionTask
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


def _swin_deconv() -> Recipe:
    """The second step of Akhaury et al. (Astronomy & Astrophysics 688, A6, 2024).

    Network, loss, rates, batch and number of epochs are the published ones; galaxies are
    simulated, with the seeing, pixels and range of noise that the publication names.
    """
    galaxies = Population(
        radius=(3.0, 11.5, 16.0),
        offset=4.0,
        clump_sigma=(1.4, 2.6),
        bulge=(0.0, 0.5),
        arms=(0.0, 0.6),
    )
    telescope = Telescope(
        factor=4, fwhm=(10.0, 18.0), axis_ratio=(0.9, 1.0), snr=(5.0, 200.0), snr_spacing="log"
    )
    schedule = ScheduleConfig(name="sunet_official", floor=1e-5)
    task = DeconvolutionTask(
        network=SUNetConfig.deconv(remat=True),
        data=StampData(galaxies=galaxies, telescope=telescope, scale=0.05),
        stages=(Stage(steps=None, patch=128, batch_size=16),),
    )
    train = TrainConfig(
        steps=1,
        optim=OptimConfig(name="adam", learning_rate=1e-3, schedule=schedule),
        save_every=2000,
        eval_every=2000,
        sample_every=10_000,
        best_metric="ssim",
    )
    return Recipe(task=task, train=train, epochs=400)


def _swin_deconv_small(steps: int = 500) -> Recipe:
    """A small network on small galaxies; not a published recipe."""
    schedule = ScheduleConfig(name="warmup_cosine", warmup_steps=max(1, 3 * steps // 10))
    task = DeconvolutionTask(
        network=SUNetConfig.small(qk_scale=None),
        data=StampData(count=2000),
        stages=(Stage(steps=None, patch=64, batch_size=4),),
    )
    train = TrainConfig(
        steps=steps,
        optim=OptimConfig(name="adam", learning_rate=2e-3, schedule=schedule),
        ema=EMAConfig(decay=0.99, warmup="debias"),
        log_every=20,
        save_every=100,
        keep_last=1,
    )
    return Recipe(task=task, train=train)


RECIPES: dict[str, Callable[..., Recipe]] = {
    "sunet": _sunet,
    "swin_deconv": _swin_deconv,
    "swin_deconv_small": _swin_deconv_small,
}
