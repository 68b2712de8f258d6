"""``jaxcore train``: one sub-command per recipe, every setting of which can be changed."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxcore.cli import placeholder, understand
from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace
from jaxcore.cli.start import started
from jaxcore.train.recipes import Recipe, recipe, resolve, summaries

if TYPE_CHECKING:
    from jaxcore.train.tasks.network import NetworkTask


_EPOCHS = "passes over the data; decides train.steps when given"


def commands(argv: Sequence[str]) -> dict[str, Callable[..., None]]:
    """Name of a recipe -> its command; that of the chosen recipe alone has its options."""
    chosen = argv[0].replace("-", "_") if argv else None
    listed = {name: placeholder(f"{line}.") for name, line in summaries().items()}
    if chosen in listed:
        default = recipe(chosen)
        run = functools.partial(train, over=functools.partial(_over, chosen, default, argv))
        listed[chosen] = _command(chosen, default, run)
    return listed


def _over(name: str, default: Recipe, argv: Sequence[str], network: Any) -> Recipe:
    """What the same words ask for where the recipe has another network."""
    asked: list[Recipe] = []

    def keep(chosen: Recipe, *_: Any, **__: Any) -> None:
        asked.append(chosen)

    task = dataclasses.replace(default.task, network=network)
    again = _command(name, dataclasses.replace(default, task=task), keep)
    understand({**commands([]), name: again}, argv, "train", "")()
    return asked[0]


def _command(name: str, default: Recipe, run: Callable[..., None]) -> Callable[..., None]:
    from jaxcore.train import TrainConfig
    from jaxcore.train.tasks.network import NetworkTask

    def command(
        out: Annotated[RunPlace, tyro.conf.arg(aliases=["-o"])],
        task: Annotated[NetworkTask, tyro.conf.arg(name="")] = default.task,
        init: RunPlace | None = None,
        init_set: Annotated[str | None, tyro.conf.arg(name="set")] = None,
        epochs: Annotated[int | None, tyro.conf.arg(help=_EPOCHS)] = default.epochs,
        fsdp: int = 1,
        dcn: int = 1,
        change_settings: bool = False,
        dry_run: bool = False,
        train: TrainConfig = default.train,
    ) -> None:
        chosen = Recipe(task=task, train=train, epochs=epochs)
        more = {"change_settings": change_settings, "dry_run": dry_run}
        run(chosen, out, init=init, init_set=init_set, fsdp=fsdp, dcn=dcn, **more)

    options = (inspect.getdoc(train) or "").partition("\n")[-1]
    command.__doc__ = f"{summaries()[name]}.\n\nAll options: --help-all.\n{options}"
    return command


def train(
    chosen: Recipe,
    out: Path,
    *,
    over: Callable[[Any], Recipe],
    init: Path | None = None,
    init_set: str | None = None,
    fsdp: int = 1,
    dcn: int = 1,
    change_settings: bool = False,
    dry_run: bool = False,
) -> None:
    """Train a network by a recipe, or go on with a run.

    Args:
      chosen: the recipe.
      out: run directory, or gs://bucket/folder; a run in it goes on from its newest checkpoint
      over: makes the recipe anew, with the same options, for another network
      init: weights to start from (fine-tuning), a run directory or an official weight file; the
        network is theirs, whatever the recipe's
      init_set: name of a set of weights, where the file has several
      fsdp: devices over which parameters are split as well as rows
      dcn: slices of a multi-slice pod; parameters are copied to each
      change_settings: go on with other settings, such as more steps or another learning rate
      dry_run: two steps and a short evaluation, then shapes, names of metrics and an estimate of
        time and memory; nothing is written
    """
    import sys

    import jax

    from jaxcore.errors import UserError
    from jaxcore.parallel import initialise, make_mesh
    from jaxcore.train import EXIT_INTERRUPTED, fit
    from jaxcore.train.deterministic import ask_for_determinism

    if chosen.train.deterministic:
        ask_for_determinism()
    initialise()
    params = None
    if init is not None:
        if chosen.task.start_option != "--init":
            raise UserError(
                f"Expected the weights to start from as {chosen.task.start_option}, found --init."
            )
        chosen, params = started(chosen, init, over, init_set)
    chosen = resolve(chosen)
    task = chosen.task
    first = jax.process_index() == 0
    if first:
        print_counts(task.counts(), task.items_name)
        for note in task.notes():
            show(note)
    task.check()
    alone = jax.device_count() == 1 and fsdp == dcn == 1
    mesh = None if alone else make_mesh(fsdp=fsdp, dcn=dcn)
    if dry_run:
        from jaxcore.train.dry_run import dry_run as try_out

        found = try_out(task, chosen.train, mesh=mesh, init_params=params)
        if first:
            show(found)
        return
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
            show(f"{name:28}{value:10.4f}")
        show(f"trained {int(result.state.step)} steps: {out}")


def _search(recipe: Recipe, out: Path, mesh: Any, params: Any) -> "NetworkTask":
    """Search for the objective (unless that is done), and the task of what it found."""
    import sys

    import jax

    from jaxcore.errors import UserError
    from jaxcore.train import EXIT_INTERRUPTED, fit, load_params
    from jaxcore.train.steps import CHECKPOINTS, complete_steps

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
        show(f"objective found: {found.objective.name}")
    return dataclasses.replace(task, network=found)


def print_counts(counts: list[tuple[str, int, int, int]], unit: str = "images") -> None:
    """A table of the data a run draws from."""
    show(f"{'data':16}{unit:>10}{'x':>6}{'per epoch':>12}")
    for name, items, repeat, entries in counts:
        show(f"{name:16}{items:10,}{repeat:6}{entries:12,}")
    show(f"{'in all':16}{'':10}{'':6}{sum(row[-1] for row in counts):12,}")
