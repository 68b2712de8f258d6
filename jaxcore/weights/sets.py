"""Which set of weights of a file is meant, and of which network it is."""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcore.convert import LEFTOVERS, PREFERRED, StateFile, select_prefix
from jaxcore.errors import UserError, readable
from jaxcore.typing import StateDict

if TYPE_CHECKING:
    from jaxcore.models.base import Network

_AVERAGED = re.compile(r"(^|[^a-z])(ema|avg|averaged?|swa|shadow)([^a-z]|$)")
_DEEPEST = 3  # parts of a prefix that is not that of a wrapper
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class WeightSet:
    """Tensors of one network in a file."""

    file: StateFile
    prefix: str  # of the keys that belong to it, where others do not
    tensors: StateDict  # without the prefix
    network: "Network[Any] | None" = None  # whose weights they are
    cfg: Any = None  # of it, as the weights tell it

    @property
    def name(self) -> str:
        """What ``--set`` calls it."""
        return "/".join(part for part in (self.file.where, self.prefix.rstrip(".")) if part)

    @property
    def averaged(self) -> bool:
        """Whether its name says that it is a moving average."""
        return _AVERAGED.search(self.name.lower()) is not None


def weight_set(
    path: Path,
    files: list[StateFile],
    networks: "Iterable[Network[Any]]",
    part: str | None = None,
) -> tuple[WeightSet, tuple[str, ...]]:
    """The one set of weights that fits a network; of several the averaged one.

    Args:
      path: of a file, for messages.
      files: the sets in it, of `jaxcore.convert.read_sets`.
      networks: those it may be of, in their order.
      part: name of the set, or the end of it; None chooses.

    Returns:
      The set, and sentences on what else there is. Its network is None where none fits.

    Raises:
      UserError: no file that can be read, no set of that name, or several that fit equally well.
    """
    if part is not None:
        files, prefixes = _named(path, files, part)
        found = [_fitting(file, prefixes, networks) for file in files]
    else:
        found = [one for file in files for one in _all_fitting(file, networks)]
    fitting = [one for one in found if one.network is not None]
    if not fitting:
        if len(files) > 1:
            raise UserError(
                f"Expected weights of one network in {path}, found {len(files)} sets "
                f"({_listing([_name(file) for file in files])}), none of which fits "
                f"{_listing([network.name for network in networks])}."
            )
        return found[0] if found else WeightSet(files[0], "", files[0].tensors), ()
    best = min(fitting, key=_rank)
    rivals = [one for one in fitting if _rank(one) == _rank(best)]
    if len(rivals) > 1:
        raise UserError(
            f"Expected one set of weights in {path}, found {len(rivals)} that fit: name one with "
            f"--set, of {', '.join(readable(one.name) for one in rivals)}."
        )
    return best, _notes(best, files)


def _rank(one: WeightSet) -> tuple[bool, int]:
    """The averaged sets first, then the usual names, best first."""
    first = one.name.split("/")[0]
    return not one.averaged, PREFERRED.index(first) if first in PREFERRED else len(PREFERRED)


def _name(file: StateFile) -> str:
    return file.where or "the whole file"


def _named(
    path: Path, files: Sequence[StateFile], part: str
) -> tuple[list[StateFile], tuple[str, ...]]:
    """The file's sets of a name, or the one with a prefix of that name."""
    part = part.rstrip(".")
    exact = [file for file in files if file.where == part]
    exact = exact or [file for file in files if file.where.split("/")[-1] == part]
    if len(exact) == 1:
        return exact, ("",)
    for file in files:
        where, _, prefix = part.rpartition("/")
        if where in ("", file.where) and any(key.startswith(f"{prefix}.") for key in file.tensors):
            return [file], (f"{prefix}.",)
    names = [file.where for file in files if file.where]
    raise UserError(
        f"Expected a set of weights {part!r} in {path}, found "
        f"{_listing(names) or 'one set without a name'}."
    )


def _all_fitting(file: StateFile, networks: "Iterable[Network[Any]]") -> list[WeightSet]:
    """The whole set if it fits, else the parts of it below a prefix that do."""
    whole = _fitting(file, ("",), networks)
    if whole.network is not None:
        return [whole]
    counts: dict[str, int] = {}
    for key in file.tensors:
        parts = key.split(".")[:-1][:_DEEPEST]
        for end in range(1, len(parts) + 1):
            prefix = ".".join(parts[:end]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    found: list[WeightSet] = []
    for prefix in sorted(counts, key=lambda p: (p.count("."), -counts[p])):
        if counts[prefix] < 2 or any(prefix.startswith(one.prefix) for one in found):
            continue
        one = _fitting(file, (prefix,), networks)
        if one.network is not None:
            found.append(one)
    return found


def _fitting(
    file: StateFile, prefixes: tuple[str, ...], networks: "Iterable[Network[Any]]"
) -> WeightSet:
    (prefix,) = prefixes
    tensors = select_prefix(file.tensors, prefix) if prefix else file.tensors
    for network in networks:
        if network.config_from_state_dict is None:
            continue
        with contextlib.suppress(UserError), promised_axes():
            cfg = network.config_from_state_dict(tensors)
            return WeightSet(file, prefix, tensors, network, cfg)
    return WeightSet(file, prefix, tensors)


@contextlib.contextmanager
def promised_axes() -> Iterator[None]:
    """A tensor with fewer axes than its name promises, or an empty one, is the file's mistake."""
    try:
        yield
    except UserError:
        raise
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError("its tensors have other axes than their names promise.") from error


def _notes(best: WeightSet, files: Sequence[StateFile]) -> tuple[str, ...]:
    """What was taken and what was left, where there is more than the weights."""
    notes = []
    others = [key for key in best.file.tensors if not key.startswith(best.prefix)]
    rest = list(dict.fromkeys(".".join(key.split(".")[:2]) for key in others))
    left = [*best.file.unused, *rest]
    if left:
        notes.append(f"taken from {best.name!r}; left alone: {', '.join(map(readable, left[:20]))}")
    counters = [key for key in best.tensors if LEFTOVERS.fullmatch(key)]
    if counters:
        notes.append(
            f"left out {len(counters)} counters of a profiler, such as {readable(counters[0])}"
        )
    return tuple(notes)


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(readable, names[:_SHOWN])) + more
