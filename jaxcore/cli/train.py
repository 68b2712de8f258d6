"""``jaxcore train``: one sub-command per recipe, every setting of which can be changed."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, Union

import tyro

from jaxcore.data.config import DataConfig
from jaxcore.data.pipeline import Augment, Stage
from jaxcore.train.config import TrainConfig
from jaxcore.train.recipes import RECIPES, Recipe, resolve
from jaxcore.train.tasks.restoration import Loss, RestorationTask

NetworkConfig = TypeVar("NetworkConfig")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainArguments(Generic[NetworkConfig]):
    """What ``jaxcore train RECIPE`` understands."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """run directory; a run in it goes on from its newest checkpoint"""
    init: Path | None = None
    """weights to start from (fine-tuning): a run directory or an official weight file"""
    epochs: int | None = None
    """passes over the data; decides train.steps when given"""
    fsdp: int = 1
    """devices over which parameters are split as well as rows"""
    model: tyro.conf.Suppress[str] = "adair"
    network: NetworkConfig
    data: DataConfig
    stages: tuple[Stage, ...]
    augment: Augment = "all"
    """"official" never draws the identity"""
    loss_type: Loss = "l1"
    eval_images: int | None = None
    """evaluate at most so many images per degradation"""
    eval_tile: int | None = None
    """evaluate in tiles of this side, pixels"""
    train: TrainConfig


def _arguments(recipe: Recipe) -> TrainArguments[Any]:
    task = recipe.task
    return TrainArguments(
        out=tyro.MISSING,
        epochs=recipe.epochs,
        model=task.model,
        network=task.network,
        data=task.data,
        stages=task.stages,
        augment=task.augment,
        loss_type=task.loss_type,
        eval_images=task.eval_images,
        eval_tile=task.eval_tile,
        train=recipe.train,
    )


def _recipe(arguments: TrainArguments[Any]) -> Recipe:
    names = {f.name for f in dataclasses.fields(RestorationTask)}
    fields = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return Recipe(task=RestorationTask(**fields), train=arguments.train, epochs=arguments.epochs)


def _subcommands() -> Any:
    choices = []
    for name, make in RECIPES.items():
        recipe = make()
        default = _arguments(recipe)
        config = tyro.conf.subcommand(
            name, default=default, description=recipe.summary + ".", prefix_name=False
        )
        choices.append(Annotated[TrainArguments[type(default.network)], config])
    return Union[tuple(choices)]  # noqa: UP007  # the members are known at run time only


def train(recipe: Annotated[_subcommands(), tyro.conf.arg(name="")]) -> None:  # type: ignore[valid-type]  # built from RECIPES
    """Train a network by a recipe, or go on with a run."""
    import sys

    import jax

    from jaxcore.cli.weights import load_network
    from jaxcore.parallel import initialise, make_mesh
    from jaxcore.train import EXIT_INTERRUPTED, fit

    initialise()
    chosen = resolve(_recipe(recipe))
    first = jax.process_index() == 0
    if first:
        print_counts(chosen.task.counts())
    params = None if recipe.init is None else load_network(recipe.init, chosen.task.model)[2]
    mesh = make_mesh(fsdp=recipe.fsdp) if jax.device_count() > 1 else None
    result = fit(chosen.task, chosen.train, recipe.out, mesh=mesh, init_params=params)
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if first:
        for name, value in result.metrics.items():
            print(f"{name:28}{value:10.4f}")
        print(f"trained {int(result.state.step)} steps: {recipe.out}")


def print_counts(counts: list[tuple[str, int, int, int]]) -> None:
    """A table of the data a run draws from."""
    print(f"{'data':16}{'images':>10}{'x':>6}{'per epoch':>12}")
    for name, items, repeat, entries in counts:
        print(f"{name:16}{items:10,}{repeat:6}{entries:12,}")
    print(f"{'in all':16}{'':10}{'':6}{sum(row[-1] for row in counts):12,}")
