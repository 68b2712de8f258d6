"""``jaxcore train``: one sub-command per recipe, every setting of which can be changed."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxcore.cli import placeholder
from jaxcore.train.recipes import Recipe, recipe, resolve, summaries

if TYPE_CHECKING:
    from jaxcore.train.tasks.images import ImageTask


_EPOCHS = "passes over the data; decides train.steps when given"


def commands(argv: Sequence[str]) -> dict[str, Callable[..., None]]:
    """Name of a recipe -> its command; that of the chosen recipe alone has its options."""
    chosen = argv[0].replace("-", "_") if argv else None
    return {
        name: _command(name, line) if name == chosen else placeholder(f"{line}.")
        for name, line in summaries().items()
    }


def _command(name: str, line: str) -> Callable[..., None]:
    from jaxcore.train import TrainConfig
    from jaxcore.train.tasks.images import ImageTask

    default, run = recipe(name), train

    def command(
        out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
        task: Annotated[ImageTask, tyro.conf.arg(name="")] = default.task,
        init: Path | None = None,
        epochs: Annotated[int | None, tyro.conf.arg(help=_EPOCHS)] = default.epochs,
        fsdp: int = 1,
        change_settings: bool = False,
        train: TrainConfig = default.train,
    ) -> None:
        chosen = Recipe(task=task, train=train, epochs=epochs)
        run(chosen, out, init=init, fsdp=fsdp, change_settings=change_settings)

    options = (inspect.getdoc(train) or "").partition("\n")[-1]
    command.__doc__ = f"{line}.\n{options}"
    return command


def train(
    chosen: Recipe,
    out: Path,
    *,
    init: Path | None = None,
    fsdp: int = 1,
    change_settings: bool = False,
) -> None:
    """Train a network by a recipe, or go on with a run.

    Args:
      chosen: the recipe.
      out: run directory; a run in it goes on from its newest checkpoint
      init: weights to start from (fine-tuning): a run directory or an official weight file
      fsdp: devices over which parameters are split as well as rows
      change_settings: go on with other settings than the run was begun with, such as more steps,
        another learning rate or evaluation; config.json lists what was changed
    """
    import sys

    import jax

    from jaxcore.parallel import initialise, make_mesh
    from jaxcore.train import EXIT_INTERRUPTED, fit

    initialise()
    chosen = resolve(chosen)
    task = chosen.task
    first = jax.process_index() == 0
    if first:
        print_counts(task.counts())
    task.check()
    params = None if init is None else _start(init, task)
    alone = jax.device_count() == 1 and fsdp == 1
    mesh = None if alone else make_mesh(fsdp=fsdp)
    if not task.entry.searching(task.network):
        result = fit(
            task,
            chosen.train,
            out,
            mesh=mesh,
            init_params=params,
            change_settings=change_settings,
        )
    else:
        found = _search(chosen, out / "search", mesh, params)
        trained = out / "trained"
        result = fit(found, chosen.train, trained, mesh=mesh, change_settings=change_settings)
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if first:
        for name, value in result.metrics.items():
            print(f"{name:28}{value:10.4f}")
        print(f"trained {int(result.state.step)} steps: {out}")


def _start(weights: Path, task: "ImageTask") -> Any:
    """Parameters to start from, of a kind that the training can go on with."""
    from jaxcore.weights import load

    loaded = load(weights, model=task.model)
    loaded.network.check_start(loaded.cfg, task.network)
    return loaded.params


def _search(recipe: Recipe, out: Path, mesh: Any, params: Any) -> "ImageTask":
    """Search for the objective (unless that is done), and the task of what it found."""
    import sys

    import jax

    from jaxcore.errors import UserError
    from jaxcore.train import EXIT_INTERRUPTED, fit, load_params
    from jaxcore.train.checkpoint import CHECKPOINTS, complete_steps

    task, found = recipe.task, None
    if complete_steps(out / CHECKPOINTS):
        found = task.entry.chosen(load_params(out, "last", ema=False), task.network)
    if found is None:
        result = fit(task, recipe.train, out, mesh=mesh, init_params=params)
        if result.interrupted:
            sys.exit(EXIT_INTERRUPTED)
        found = task.entry.chosen(result.state.params, task.network)
        if found is None:
            raise UserError(
                f"Expected the search to find an objective, found its weight at "
                f"{float(result.state.params['weight']):.4f} after {recipe.train.steps} steps; "
                "give it more (--train.steps)."
            )
    if jax.process_index() == 0:
        print(f"objective found: {found.objective}")
    return dataclasses.replace(task, network=found)


def print_counts(counts: list[tuple[str, int, int, int]]) -> None:
    """A table of the data a run draws from."""
    print(f"{'data':16}{'images':>10}{'x':>6}{'per epoch':>12}")
    for name, items, repeat, entries in counts:
        print(f"{name:16}{items:10,}{repeat:6}{entries:12,}")
    print(f"{'in all':16}{'':10}{'':6}{sum(row[-1] for row in counts):12,}")
