"""``jaxcore train``: one sub-command per recipe, every setting of which can be changed."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, Union

import tyro

from jaxcore.data.images.kinds import ImageData
from jaxcore.data.images.pipeline import Augment, Stage
from jaxcore.train.config import TrainConfig
from jaxcore.train.recipes import RECIPES, Recipe, resolve
from jaxcore.train.tasks.diffusion import DiffusionTask
from jaxcore.train.tasks.images import ImageTask
from jaxcore.train.tasks.restoration import LossType, RestorationTask

NetworkConfig = TypeVar("NetworkConfig")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageArguments(Generic[NetworkConfig]):
    """What ``jaxcore train RECIPE`` understands for every network."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """run directory; a run in it goes on from its newest checkpoint"""
    init: Path | None = None
    """weights to start from (fine-tuning): a run directory or an official weight file"""
    epochs: int | None = None
    """passes over the data; decides train.steps when given"""
    fsdp: int = 1
    """devices over which parameters are split as well as rows"""
    model: tyro.conf.Suppress[str]
    network: NetworkConfig
    data: ImageData
    stages: tuple[Stage, ...]
    augment: Augment = "all"
    """turns: all eight, "official" without the identity, left-right "flip", always ("mirror"),
    quarter turns ("rotate")"""
    eval_images: int | None = None
    """evaluate at most so many images per degradation"""
    eval_tile: int | None = None
    """evaluate in tiles of this side, pixels"""
    eval_side: int | None = None
    """evaluate central squares of this side, pixels"""
    crop_multiple: int = 16
    """whole images are first cropped centrally to sides of multiples of this; 1 keeps all"""
    eval_protocol: str = "rgb"
    """what is measured: rgb, rgb_gaussian (dehazing), y (8-bit luma) or matlab_rgb"""
    train: TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(ImageArguments[NetworkConfig]):
    """And for networks from image to image."""

    loss_type: LossType = "l1"
    contrastive_weight: float = 0.0
    """of DEA-Net-CR's loss, a distance of VGG19's features; 0 leaves it out"""
    contrast_per_sample: bool = False
    """one ratio of distances per image instead of one per batch"""
    contrast_positive_only: bool = False
    """the distance to the clean image alone"""
    vgg: str = ""
    """for it: file of torchvision's vgg19"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionArguments(ImageArguments[NetworkConfig]):
    """And for diffusion models."""

    sample_steps: int = 5
    """calls of the networks in evaluation and sample pictures"""
    preview: int = 9
    """generated images in a sample picture"""


_KINDS: dict[type[ImageTask], type[ImageArguments[Any]]] = {
    RestorationTask: TrainArguments,
    DiffusionTask: DiffusionArguments,
}


def _shared(kind: type[ImageTask]) -> list[str]:
    """Fields of a task that are arguments too."""
    arguments = {f.name for f in dataclasses.fields(_KINDS[kind])}
    return [f.name for f in dataclasses.fields(kind) if f.name in arguments]


def _arguments(recipe: Recipe) -> ImageArguments[Any]:
    kind = type(recipe.task)
    fields = {name: getattr(recipe.task, name) for name in _shared(kind)}
    return _KINDS[kind](out=tyro.MISSING, epochs=recipe.epochs, train=recipe.train, **fields)


def _recipe(arguments: ImageArguments[Any]) -> Recipe:
    kind = next(task for task, own in _KINDS.items() if isinstance(arguments, own))
    fields = {name: getattr(arguments, name) for name in _shared(kind)}
    return Recipe(task=kind(**fields), train=arguments.train, epochs=arguments.epochs)


def _subcommands() -> Any:
    choices = []
    for name, make in RECIPES.items():
        recipe = make()
        default = _arguments(recipe)
        config = tyro.conf.subcommand(
            name, default=default, description=recipe.summary + ".", prefix_name=False
        )
        kind: Any = type(default)
        choices.append(Annotated[kind[type(default.network)], config])
    return Union[tuple(choices)]  # noqa: UP007  # the members are known at run time only


def train(recipe: Annotated[_subcommands(), tyro.conf.arg(name="")]) -> None:  # type: ignore[valid-type]  # built from RECIPES
    """Train a network by a recipe, or go on with a run."""
    import sys

    import jax

    from jaxcore import registry
    from jaxcore.parallel import initialise, make_mesh
    from jaxcore.train import EXIT_INTERRUPTED, fit

    initialise()
    chosen = resolve(_recipe(recipe))
    first = jax.process_index() == 0
    if first:
        print_counts(chosen.task.counts())
    chosen.task.check()
    params = None if recipe.init is None else _start(recipe.init, chosen.task)
    alone = jax.device_count() == 1 and recipe.fsdp == 1
    mesh = None if alone else make_mesh(fsdp=recipe.fsdp)
    out = recipe.out
    if registry.network(chosen.task.model).searching(chosen.task.network):
        chosen = _search(chosen, out / "search", mesh, params)
        params, out = None, out / "trained"
    result = fit(chosen.task, chosen.train, out, mesh=mesh, init_params=params)
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if first:
        for name, value in result.metrics.items():
            print(f"{name:28}{value:10.4f}")
        print(f"trained {int(result.state.step)} steps: {out}")


def _start(weights: Path, task: ImageTask) -> Any:
    """Parameters to start from, of a kind that the training can go on with."""
    from jaxcore.weights import load

    loaded = load(weights, model=task.model)
    loaded.network.check_start(loaded.cfg, task.network)
    return loaded.params


def _search(recipe: Recipe, out: Path, mesh: Any, params: Any) -> Recipe:
    """Search for the objective (unless that is done), and the recipe of what it found."""
    import sys

    import jax

    from jaxcore import registry
    from jaxcore.errors import UserError
    from jaxcore.train import EXIT_INTERRUPTED, fit, load_params
    from jaxcore.train.checkpoint import CHECKPOINTS, complete_steps

    network, cfg = registry.network(recipe.task.model), recipe.task.network
    found = None
    if complete_steps(out / CHECKPOINTS):
        found = network.chosen(load_params(out, "last", ema=False), cfg)
    if found is None:
        result = fit(recipe.task, recipe.train, out, mesh=mesh, init_params=params)
        if result.interrupted:
            sys.exit(EXIT_INTERRUPTED)
        found = network.chosen(result.state.params, cfg)
        if found is None:
            raise UserError(
                f"Expected the search to find an objective, found its weight at "
                f"{float(result.state.params['weight']):.4f} after {recipe.train.steps} steps; "
                "give it more (--train.steps)."
            )
    if jax.process_index() == 0:
        print(f"objective found: {found.objective}")
    return dataclasses.replace(recipe, task=dataclasses.replace(recipe.task, network=found))


def print_counts(counts: list[tuple[str, int, int, int]]) -> None:
    """A table of the data a run draws from."""
    print(f"{'data':16}{'images':>10}{'x':>6}{'per epoch':>12}")
    for name, items, repeat, entries in counts:
        print(f"{name:16}{items:10,}{repeat:6}{entries:12,}")
    print(f"{'in all':16}{'':10}{'':6}{sum(row[-1] for row in counts):12,}")
