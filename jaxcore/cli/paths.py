"""Options that are paths: local ones, and places of runs, which may lie in a bucket."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeAlias

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from jaxcore.cli import kinds
from jaxcore.cli.kinds import Refused
from jaxcore.errors import UserError
from jaxcore.places import local_place, run_place


def _option(read: Callable[[str], Path]) -> PrimitiveConstructorSpec[Any]:
    def understood(words: list[str]) -> Path:
        try:
            return read(words[0])
        except UserError as error:
            raise Refused(str(error)) from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=understood,
        is_instance=lambda value: isinstance(value, PurePath),
        str_from_instance=lambda value: [str(value)],
    )


RunPlace: TypeAlias = Annotated[Path, _option(run_place)]
"""A run directory (or, of what is read, a file)."""


def registry(common: Mapping[str, tuple[str, ...]] | None = None) -> ConstructorRegistry:
    """How tyro makes options of our types; see `jaxcore.cli.kinds.registry`."""
    made = kinds.registry(common)
    made.primitive_rule(local)
    return made


def local(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A path that is not said to be the place of a run."""
    return _option(local_place) if info.type is Path else None
