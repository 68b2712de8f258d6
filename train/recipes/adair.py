"""Recipes of AdaIR and Restormer."""

import functools
from collections.abc import Callable

from jaxcore.data.images.kinds import AllInOne, Pairs, Photos
from jaxcore.data.images.pipeline import Stage
from jaxcore.models.adair.config import AdaIRConfig, Preset
from jaxcore.train.config import TrainConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.recipes.demo import demo, on_photographs
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.restoration import RestorationTask

THREE_TASK = ("denoise_15", "denoise_25", "denoise_50", "derain", "dehaze")
FIVE_TASK = (*THREE_TASK, "deblur", "enhance")
DENOISE = ("denoise_15", "denoise_25", "denoise_50")
# 2.8 M parameters; hidden widths are multiples of 8, which GPUs want.
_PHOTOS = AdaIRConfig.small(num_blocks=(1, 2, 2, 1), mask_mode="soft", ffn_expansion=8 / 3)
_PRESETS: dict[str, Preset] = {"": "official", "_fixed": "fixed"}  # by the ending of the name


def _adair(tasks: tuple[str, ...], preset: Preset) -> Recipe:
    """AdaIR (Cui et al., ICLR 2025): L1, AdamW 2e-4, patches of 128, batch 32, 150 epochs.

    Weights decay by 0.01, biases and norms too, as PyTorch's AdamW has it.

    "official" is what the released code does, its quirks included: two epochs at rate 0, a
    cosine that is cut off at 9 % of the peak, no identity among the augmentations, and a
    frequency window that is empty at the size of the patches. "fixed" warms up from the first
    update, decays to 0 at the end, draws all eight augmentations and learns a soft window.
    """
    official = preset == "official"
    schedule = ScheduleConfig(name="adair_official" if official else "fixed")
    optim = OptimConfig(learning_rate=2e-4, weight_decay=0.01, decay_all=True, schedule=schedule)
    task = RestorationTask(
        network=AdaIRConfig.five_task(preset=preset),
        data=AllInOne(tasks=tasks),
        stages=(Stage(steps=None, patch=128, batch_size=32),),
        augment="official" if official else "all",
    )
    train = TrainConfig(steps=667_500, optim=optim, save_every=2000, sample_every=10_000)
    return Recipe(task=task, train=train, epochs=150)


def _own() -> Recipe:
    """Half-width AdaIR with a soft window on the user's own data; not a published recipe."""
    schedule = ScheduleConfig(name="warmup_cosine", warmup_steps=1000, floor=1e-6)
    optim = OptimConfig(
        learning_rate=4e-4, weight_decay=0.01, schedule=schedule, clip_norm=1.0, betas=(0.9, 0.99)
    )
    task = RestorationTask(
        network=AdaIRConfig.small(mask_mode="soft"),
        data=Pairs(),
        stages=(Stage(steps=None, patch=128, batch_size=8),),
    )
    return Recipe(
        task=task,
        train=TrainConfig(steps=100_000, optim=optim, save_every=1000, sample_every=5000),
    )


def _cpu() -> Recipe:
    """A small AdaIR on the user's own data, for a computer without accelerator.

    The network is that of the weights that come with the library, which ``--init noise`` starts
    from. The rate suits both starts.
    """
    schedule = ScheduleConfig(name="warmup_cosine", warmup_steps=100, floor=1e-6)
    optim = OptimConfig(
        learning_rate=4e-4, weight_decay=0.01, schedule=schedule, clip_norm=1.0, betas=(0.9, 0.99)
    )
    task = RestorationTask(
        network=_PHOTOS, data=Pairs(), stages=(Stage(steps=None, patch=96, batch_size=4),)
    )
    train = TrainConfig(steps=3000, optim=optim, log_every=20, save_every=200, sample_every=500)
    return Recipe(task=task, train=train)


def _restormer() -> Recipe:
    """Restormer (Zamir et al., CVPR 2022): progressive patches, AdamW 3e-4, 300,000 updates."""
    sizes = ((92_000, 128, 64), (64_000, 160, 40), (48_000, 192, 32), (36_000, 256, 16))
    sizes += ((36_000, 320, 8), (None, 384, 8))
    schedule = ScheduleConfig(name="cosine", floor=1e-6)
    optim = OptimConfig(learning_rate=3e-4, weight_decay=1e-4, decay_all=True, schedule=schedule)
    task = RestorationTask(
        network=AdaIRConfig.restormer(),
        data=Pairs(),
        stages=tuple(Stage(steps=s, patch=p, batch_size=b) for s, p, b in sizes),
    )
    return Recipe(
        task=task,
        train=TrainConfig(steps=300_000, optim=optim, save_every=2000, sample_every=10_000),
    )


def _demo(steps: int = 120) -> Recipe:
    """A small AdaIR on the photographs of `jaxcore.data.images.photos`.

    `jaxcore demo` starts it from the weights ``noise`` that come with the library.
    """
    data = Photos(tasks=("noise25", "noise50", "clean"))
    return demo(steps, 4, 1e-4, network=_PHOTOS, data=data)


def _photos() -> Recipe:
    """A small AdaIR for noise of any strength, on a folder of clean photographs.

    The weights ``noise`` that come with the library are trained by it. A quarter of the rows are
    clean, of any look, so that the network leaves alone what is not degraded.
    """
    tasks = ("noise_any", "noise25", "noise50", "clean_any")
    stage = Stage(steps=None, patch=192, batch_size=16)
    return on_photographs(6000, 1e-3, stage, tasks, save_every=500, network=_PHOTOS)


RECIPES: dict[str, Callable[..., Recipe]] = {
    "adair": _own,
    "adair_cpu": _cpu,
    **{
        f"adair_{name}{ending}": functools.partial(_adair, tasks, preset)
        for name, tasks in {
            "3d": THREE_TASK,
            "5d": FIVE_TASK,
            "denoise": DENOISE,
            "derain": ("derain",),
            "dehaze": ("dehaze",),
        }.items()
        for ending, preset in _PRESETS.items()
    },
    "restormer": _restormer,
    "demo": _demo,
    "adair_photos": _photos,
}
