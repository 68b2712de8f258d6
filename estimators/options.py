"""Settings that the command line can say, as the arguments of a function."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from jaxcore.estimators.nuisance import candidates

C = TypeVar("C")


class Option(NamedTuple):
    """How a setting is said."""

    said: str
    kind: Any
    text: str


CLIP = {"clip": Option("clip", tuple[float, float], "bounds of the estimated probabilities.")}
_COMMON = {
    "n_folds": Option("folds", int, "cross-fitting folds."),
    "n_rep": Option("repetitions", int, "repeated partitions, aggregated by medians."),
    **CLIP,
    "missing": Option(
        "missing",
        Literal["error", "drop"],
        "refuse rows with missing values, or drop and count them.",
    ),
    "treated": Option("treated", str | None, "level of the treatment that counts as 1."),
    "assigned": Option("assigned", str | None, "level of the instrument that counts as 1."),
    "seed": Option("seed", int, "seed of the folds."),
}


def settings_function(
    cls: Callable[..., C],
    learners: Mapping[str, str],
    more: Mapping[str, Option] | None = None,
    *,
    without: Collection[str] = (),
    tune: bool = False,
) -> Callable[..., C]:
    """A function that makes settings, whose arguments are the options of a command.

    Args:
      cls: the class of the settings, a dataclass.
      learners: settings that hold a learner, and what it learns.
      more: further settings, after those that all estimators have.
      without: settings of the latter that this estimator does not have.
      tune: whether there is ``tune``, which the settings have as a method.
    """
    options = {
        name: Option(name, str, f"learner of {of}: {candidates.KNOWN}.")
        for name, of in learners.items()
    }
    if tune:
        text = "choose the learners' settings by cross-validation."
        options["tune"] = Option("tune", bool, text)
    options |= {name: option for name, option in _COMMON.items() if name not in without}
    options |= more or {}
    fields: Any = cls
    defaults = {f.name: f.default for f in dataclasses.fields(fields)} | {"tune": False}

    def make(**given: Any) -> C:
        found = {name: given[o.said] for name, o in options.items() if o.said in given}
        wanted = found.pop("tune", False)
        made: Any = cls(**found)
        return made.tune() if wanted else made

    make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # stubs lack it
        [
            inspect.Parameter(
                o.said, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=o.kind
            )
            for name, o in options.items()
        ]
    )
    make.__annotations__ = {o.said: o.kind for o in options.values()}
    told = "\n".join(f"  {o.said}: {o.text}" for o in options.values())
    make.__doc__ = f"Options of the command line.\n\nArgs:\n{told}\n"
    return make
