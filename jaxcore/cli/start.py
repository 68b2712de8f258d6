"""The start of a training from weights: they say which network is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcore.cli.output import show
from jaxcore.errors import UserError
from jaxcore.train.recipes import Recipe

if TYPE_CHECKING:
    from jaxcore.typing import Params


def started(
    chosen: Recipe, weights: Path, over: Callable[[Any], Recipe], part: str | None = None
) -> "tuple[Recipe, Params]":
    """The recipe with the network of the weights, and these.

    Args:
      chosen: a recipe, with options that may ask for another network.
      weights: a run directory or a weight file.
      over: makes the recipe anew from the network of the weights and the same options.
      part: name of a set of weights in a file of several.

    Raises:
      UserError: no weights of such a network, or options that contradict them.
    """
    import jax

    from jaxcore.weights import load

    loaded = load(weights, model=chosen.task.model, part=part)
    for note in loaded.notes:
        show(note)
    entry = loaded.network
    cfg, params = loaded.cfg, loaded.params
    if entry.apart is not None:
        params, cfg = entry.apart(params, cfg, chosen.task.network)
    if cfg != loaded.cfg:
        show(
            f"the merged kernels of {weights} are one branch of each convolution; the others start "
            "at zero"
        )
    network = entry.start(cfg, chosen.task.network)
    chosen = over(network)
    asked = chosen.task.network
    shapes = [
        jax.tree.map(lambda leaf: leaf.shape, entry.param_shapes(cfg)) for cfg in (asked, network)
    ]
    if shapes[0] != shapes[1]:
        field, wanted, found = next(_differences(asked.to_dict(), network.to_dict()))
        raise UserError(
            f"Expected no other network than that of the weights in {weights}, whose {field} is "
            f"{found}, found --network.{field.replace('_', '-')} {wanted}: leave the option out."
        )
    return chosen, params


def _differences(a: dict[str, Any], b: dict[str, Any]) -> Any:
    """Dotted name and both values of every field that differs."""
    for name, value in a.items():
        other = b.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from ((f"{name}.{x}", *both) for x, *both in _differences(value, other))
        elif value != other:
            yield name, value, other
