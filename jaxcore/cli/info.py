"""``jaxcore info``."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace
from jaxcore.weights import Which


def info(
    source: tyro.conf.Positional[RunPlace],
    model: str | None = None,
    which: Which = "best",
    part: Annotated[str | None, tyro.conf.arg(name="set")] = None,
) -> None:
    """Say which network weights are of, its size and its settings.

    Args:
      source: run directory, or weight file (PyTorch or safetensors).
      model: name of the network, where it cannot be read from the weights.
      which: checkpoint of a run directory.
      part: name of a set of weights in a file of several; the one that fits without it, and of
        several that do a moving average.
    """
    import jax

    from jaxcore.weights import load

    loaded = load(source, model=model, which=which, part=part)
    network, cfg = loaded.network, loaded.cfg
    leaves = jax.tree.leaves(loaded.params)
    count, size = sum(leaf.size for leaf in leaves), sum(leaf.nbytes for leaf in leaves)
    _line("network", f"{network.name} ({cfg.title})")
    _line("parameters", f"{count:,} in {len(leaves)} arrays, {size / 1e6:.1f} MB")
    for line in (*_of_run(source), *(("note", note) for note in loaded.notes)):
        _line(*line)
    for name, value in cfg.to_dict().items():
        _line(f"  {name}", value)


def _line(name: str, value: Any) -> None:
    show(f"{name:24}{value}")


def _of_run(source: Path) -> list[tuple[str, Any]]:
    """Steps and metrics of a run directory; nothing of a file."""
    if not source.is_dir():
        return []
    from jaxcore.train import read_config
    from jaxcore.train.steps import CHECKPOINTS, complete_steps

    config = read_config(source)
    steps = complete_steps(source / CHECKPOINTS)
    lines: list[tuple[str, Any]] = [
        ("task", config.get("task", "restoration")),
        ("checkpoints", ", ".join(map(str, sorted(steps)))),
    ]
    train = config.get("train", {})
    kept = ("steps", "seed", "best_metric")
    lines += [(f"train.{name}", train[name]) for name in kept if train.get(name) is not None]
    return lines
