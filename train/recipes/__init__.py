"""Recipes: what is trained and how, under one name each; a module per network, imported on use.

A recipe is published when its docstring names the paper; everything else is this library's own.
The module of a network (``recipes`` of its entry in `jaxcore.registry`) holds ``RECIPES``: name ->
function that makes the recipe, with a docstring.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxcore import registry
from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.train.config import TrainConfig
    from jaxcore.train.tasks.network import NetworkTask

# Network -> recipe -> one line: what is listed of the library's own without importing a network.
_SUMMARIES = {
    "adair": {
        "adair": "AdaIR of half the width on your own images, days on an accelerator",
        "adair_cpu": "Small AdaIR on your own images, an hour or two on a CPU",
        **{
            f"adair_{name}{ending}": f"AdaIR for {what}, {how}"
            for name, what in (
                ("3d", "noise, rain and haze"),
                ("5d", "noise, rain, haze, blur and low light"),
                ("denoise", "noise alone"),
                ("derain", "rain alone"),
                ("dehaze", "haze alone"),
            )
            for ending, how in (
                ("", "as the released code trains it"),
                ("_fixed", "without the quirks of the released code"),
            )
        },
        "restormer": "Restormer with growing patches, on pairs of images",
        "demo": "Small AdaIR on photographs, in minutes on a CPU",
        "adair_photos": "Small AdaIR for noise of any strength, on clean photographs",
    },
    "rddm": {
        "rddm": "RDDM for the residual on your own pairs of images",
        "rddm_deraining": "RDDM experiment 2: raindrops, two networks",
        "rddm_objective_search": "RDDM experiment 3: low light, the objective is searched, then "
        "trained",
        "rddm_inpainting": "RDDM experiment 4: the centre of faces",
        "rddm_translation": "RDDM experiment 5: pictures of one kind into another, such as dogs "
        "into cats",
        "rddm_generation": "RDDM experiment 6: faces of CelebA, the noise schedule apart from the "
        "residual's",
        "rddm_path_independence": "RDDM experiment 0: faces of CelebA, schedules can be changed "
        "afterwards",
        "rddm_low_light": "RDDM for low light as the paper has it (no released script)",
        "rddm_shadow_removal": "RDDM for shadows with masks as the paper has it (no released "
        "script)",
        "rddm_deblurring": "RDDM for motion blur as the paper has it (no released script)",
        "rddm_demo": "Tiny RDDM on noisy photographs, in minutes on a CPU",
    },
    "dea_net": {
        "dea_net": "DEA-Net for haze, as released but without the contrast",
        "dea_net_s": "DEA-Net-S for haze, with fewer blocks",
        "dea_net_cr": "DEA-Net for haze with the contrastive loss, as the released code trains it",
        "dea_net_demo": "Small DEA-Net on photographs with haze, minutes on a CPU",
        "dea_net_photos": "Small DEA-Net for haze, on clean photographs",
    },
    "sunet": {
        "sunet": "SUNet, a denoiser of colour images, on your own pairs of images",
        "swin_deconv": "SUNet for the deconvolution of galaxies, as published, on simulated ones "
        "or your own stamps",
        "swin_deconv_small": "Small SUNet on simulated galaxies of 64 pixels, minutes on a CPU",
    },
    "llama": {
        "lm_sft": "Language model on texts or on completions of prompts (SFT)",
        "lm_reward": "Reward model of a language model, on outcomes or on preferences",
        "lm_dpo": "Language model on preferences (DPO and its relatives)",
        "lm_grpo": "Language model on what its own completions earn (GRPO, RLOO, PPO)",
        "lm_ipw": "Language model on outcomes of texts that others wrote, weighted by importance",
    },
    "llava": {
        "llava_colours": "Small LLaVA on drawn pictures, with a prior, minutes on a CPU",
    },
    # Not trained here, or by an estimator.
    "clip": {},
    "cnn2023": {},
    "convnet": {},
    "qwen2_vl": {},
    "vit": {},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A task and its training, ready to be changed and run."""

    task: "NetworkTask"
    train: "TrainConfig"
    epochs: int | None = None  # passes over the data, which then decide ``train.steps``

    def __post_init__(self) -> None:
        parts = self.train.accum_steps
        for stage in self.task.stages:
            if stage.batch_size % parts:
                raise UserError(
                    f"A batch of {stage.batch_size} rows does not divide into {parts} "
                    "micro-batches (--train.accum-steps)."
                )


def _makers(network: str) -> dict[str, Callable[..., Recipe]]:
    module = registry.network(network).recipes
    return importlib.import_module(module).RECIPES if module else {}


def by_network() -> dict[str, dict[str, str]]:
    """Network -> recipe -> one line, with networks registered beside the library's own."""
    own = {name: _makers(name) for name in registry.networks() if name not in _SUMMARIES}
    return _SUMMARIES | {
        network: {name: _first_line(make) or name for name, make in of.items()}
        for network, of in own.items()
    }


def _first_line(make: Callable[..., Recipe]) -> str:
    return (inspect.getdoc(make) or "").partition("\n")[0].rstrip(".")


def summaries() -> dict[str, str]:
    """Every recipe and one line on it; no network of the library is imported for it.

    >>> summaries()["rddm_inpainting"]
    'RDDM experiment 4: the centre of faces'
    """
    return {name: line for of in by_network().values() for name, line in of.items()}


def names() -> tuple[str, ...]:
    """Names of all recipes."""
    return tuple(summaries())


def recipe(name: str, **options: int) -> Recipe:
    """Look a recipe up.

    Args:
      name: one of `names`.
      **options: of those that take some: ``steps`` of the demos, updates of the whole run.

    Raises:
      UserError: the name is unknown.

    >>> recipe("adair_5d").epochs
    150
    """
    for network, of in by_network().items():
        if name in of:
            return _makers(network)[name](**options)
    raise UserError(f"Unknown recipe {name!r}: expected one of {', '.join(names())}.")


def resolve(chosen: Recipe) -> Recipe:
    """Take from files what they say: the network, and how many updates ``epochs`` are.

    Raises:
      UserError: the data are missing or smaller than a batch.
    """
    chosen = dataclasses.replace(chosen, task=chosen.task.settled())
    if chosen.epochs is None:
        return chosen
    steps = chosen.epochs * chosen.task.steps_per_epoch()
    train = dataclasses.replace(chosen.train, steps=steps)
    return dataclasses.replace(chosen, train=train, epochs=None)
