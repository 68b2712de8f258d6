"""``jaxcore models``."""

from collections.abc import Iterator

import tyro

from jaxcore.cli.output import show

RESTORE = ("restore", "photo.jpg", "-o", "out.jpg", "--weights")


def models(network: tyro.conf.Positional[str | None] = None) -> None:
    """List networks, their recipes and weights, and where official weights are found.

    Nothing is downloaded.

    Args:
      network: name of one; all without it.
    """
    from jaxcore import registry
    from jaxcore.errors import UserError

    names = registry.networks()
    if network is not None and network not in names:
        raise UserError(f"Unknown network {network!r}: expected one of {', '.join(names)}.")
    for name in names if network is None else (network,):
        for line in _of_network(name):
            show(line)


def _of_network(name: str) -> Iterator[str]:
    from jaxcore.cli.shell import command
    from jaxcore.train.recipes import by_network
    from jaxcore.weights import SHIPPED
    from jaxcore.weights.official import OFFICIAL

    yield name
    for recipe, line in by_network().get(name, {}).items():
        yield f"  recipe    {recipe:24}{line}"
    for own in SHIPPED.values():
        if own.network == name:
            size = own.path.stat().st_size / 1e6
            ready = "; taken where no weights are named" if own.default else ""
            yield f"  shipped   {own.name:24}{own.what}{ready}"
            yield f"            {size:.1f} MB; Apache-2.0, of pictures under CC0 and CC BY 4.0"
            yield f"            {command(*RESTORE, own.name)}"
    for one in OFFICIAL:
        if one.network == name:
            yield f"  official  {one.name:24}{one.what}"
            yield f"            {one.where}; {one.licence}; about {one.megabytes} MB"
            yield f"            {command(*one.command.split())}"
    yield ""
