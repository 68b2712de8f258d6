"""Options of dataclasses; of those that come in kinds all side by side, and ``kind`` chooses.

The class of an option has a static method ``kinds()``: name of a kind -> its dataclass. An option
that is not given keeps the value of the default, also where another kind is chosen, unless the
class of the default counts it among its ``own_options``; one that the chosen kind does not have is
refused.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from tyro import MISSING
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from jaxcore.errors import UserError
from jaxcore.serial import SettingsError

# Class -> the options that a short help shows; of classes that are not here, all.
COMMON = {
    "PolicyGradientTask": (
        *("base", "adapters", "data", "held_out", "rewards", "reward_models", "reward_weights"),
        *("method", "sampling", "stages"),
    ),
    "PolicyGradient": ("algorithm", "beta", "truncated"),
    "Sampling": ("group", "max_new_tokens", "temperature"),
    "FineTuningTask": ("base", "adapters", "data", "held_out", "stages", "preference", "objective"),
    "NetworkTask": ("data", "stages"),
    "ImageData": ("kind", "root", "tasks", "eval_root", "held_out"),
    "StampData": ("root", "eval_root", "held_out", "count"),
    "TrainConfig": ("steps", "seed", "optim", "log_every", "eval_every", "save_every"),
    "OptimConfig": ("learning_rate",),
}
_ALONE = object()  # marks a dataclass whose options are being collected


class Refused(Exception):
    """A `UserError` on its way through tyro, which would draw a box around it."""


@dataclasses.dataclass(frozen=True)
class Faulty:
    """Stands for a part that cannot be made until all others were tried, so that all are named."""

    problems: tuple[str, ...]  # ".path must be ..., found ..." or ": a sentence"


def faults(given: Mapping[str, Any], unnamed: Collection[str] = ()) -> list[str]:
    """What is wrong with the faulty parts among some fields, in the form of `Faulty.problems`.

    Args:
      given: name -> value.
      unnamed: names that are no part of the paths of options.
    """
    out = []
    for name, value in given.items():
        parts = value if isinstance(value, tuple) else (value,)
        found = [problem for p in parts if isinstance(p, Faulty) for problem in p.problems]
        out += found if name in unnamed else [f".{name}{problem}" for problem in found]
    return out


def _faulty(error: UserError, *others: str) -> Faulty:
    if isinstance(error, SettingsError):
        return Faulty((*others, *(f".{problem}" for problem in error.problems)))
    return Faulty((*others, f": {str(error).removesuffix('.')}"))


def _sentences(
    make: Callable[..., Any], of: type, options: Iterable[StructFieldSpec]
) -> Callable[..., Any]:
    """``make`` for tyro, explained by the docstring of the class without its example.

    What cannot be made becomes `Faulty`. Where a part is, the default stands in for it, so that
    the other fields are checked too.
    """
    defaults = {option.name: option.default for option in options}

    def made(**given: Any) -> Any:
        problems = faults(given)
        broken = {name for name, value in given.items() if faults({name: value})}
        sound = {name: defaults[name] if name in broken else given[name] for name in given}
        if any(sound[name] is MISSING for name in broken):
            return Faulty(tuple(problems))
        try:
            out = make(**sound)
        except UserError as error:
            return _faulty(error, *problems)
        return Faulty(tuple(problems)) if problems else out

    made.__doc__ = (inspect.getdoc(of) or "").split(">>>")[0]
    return made


def _in_one_word(kind: Any) -> bool:
    """Whether a dataclass is written as one word, by its ``parse``, ``text`` and ``metavar``."""
    return isinstance(kind, type) and all(hasattr(kind, n) for n in ("parse", "text", "metavar"))


def _word(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A dataclass in one word, such as an optimiser group."""
    kind: Any = info.type
    if not _in_one_word(kind):
        return None

    def parse(words: list[str]) -> Any:
        try:
            return kind.parse(words[0])
        except UserError as error:
            return _faulty(error)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.metavar,
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda one: [one.text()],
    )


def registry(common: Mapping[str, tuple[str, ...]] | None = None) -> ConstructorRegistry:
    """How tyro makes options of our dataclasses.

    Args:
      common: class -> fields that become options, such as `COMMON`; None: all fields of all.
    """
    made = ConstructorRegistry()
    for rule in (_own, _of_kinds):  # the last that fits is taken
        made.struct_rule(functools.partial(rule, common or {}))
    made.primitive_rule(_word)
    return made


def _rare(cls: type, common: Mapping[str, tuple[str, ...]], names: Any) -> set[str]:
    """The names that are not among the common ones of a class."""
    known = next((common[c.__name__] for c in cls.__mro__ if c.__name__ in common), None)
    return set() if known is None else set(names) - set(known)


def _own(
    common: Mapping[str, tuple[str, ...]], info: StructTypeInfo
) -> StructConstructorSpec | None:
    """The options of a dataclass; metadata of a field say ``"option": False``, or another name."""
    if _ALONE in info.markers or not dataclasses.is_dataclass(info.type):
        return None
    if _in_one_word(info.type):
        return None
    spec = ConstructorRegistry.get_struct_spec(dataclasses.replace(info, markers=(_ALONE,)))
    assert isinstance(spec, StructConstructorSpec)
    fields = dataclasses.fields(info.type)
    hidden = {f.name for f in fields if not f.metadata.get("option", True)}
    hidden |= _rare(info.type, common, (option.name for option in spec.fields))
    fixed = {option.name: option.default for option in spec.fields if option.name in hidden}
    names = {f.name: f.metadata.get("option", True) for f in fields}
    names = {name: said if isinstance(said, str) else name for name, said in names.items()}
    shown = tuple(
        dataclasses.replace(option, name=names.get(option.name, option.name))
        for option in spec.fields
        if option.name not in hidden
    )
    fields_of = {said: name for name, said in names.items() if name not in hidden}

    def make(**given: Any) -> Any:
        own = {fields_of.get(said, said): value for said, value in given.items()}
        try:
            return spec.instantiate(**own, **fixed)
        except SettingsError as error:  # of fields, by the names of their options
            said = [re.sub(r"^\w+", lambda m: names.get(m[0], m[0]), p) for p in error.problems]
            raise SettingsError(said) from None

    return StructConstructorSpec(_sentences(make, info.type, shown), shown)


def _of_kinds(
    common: Mapping[str, tuple[str, ...]], info: StructTypeInfo
) -> StructConstructorSpec | None:
    """The options of all kinds; None for what does not come in kinds."""
    if _ALONE in info.markers or not hasattr(info.type, "kinds"):
        return None
    kinds: dict[str, type[Any]] = info.type.kinds()
    options, owners = _options(tuple(kinds.items()))
    shown = {name: getattr(info.default, name, one.default) for name, one in options.items()}
    rare = _rare(info.type, common, options)
    fields = tuple(
        dataclasses.replace(option, default=shown[name])
        for name, option in options.items()
        if name not in rare
    )
    own = getattr(info.default, "own_options", ())

    def make(kind: str, **given: Any) -> Any:
        if kind != getattr(info.default, "kind", kind):
            given |= {n: options[n].default for n in own if given.get(n) == shown[n]}
        foreign = [n for n in given if kind not in owners[n] and given[n] != shown[n]]
        if foreign:
            found = " and no ".join(
                f"{n} (found {given[n]}, an option of {', '.join(owners[n])})" for n in foreign
            )
            raise UserError(
                f"Expected no {found} for data of kind {kind}: name the kind of what is there, "
                f"such as {owners[foreign[0]][0]}."
            )
        return kinds[kind](**{n: value for n, value in given.items() if kind in owners[n]})

    return StructConstructorSpec(_sentences(make, info.type, fields), fields)


@functools.cache
def _options(
    kinds: tuple[tuple[str, type[Any]], ...],
) -> tuple[dict[str, StructFieldSpec], dict[str, list[str]]]:
    """Name -> option, and the kinds that have it."""
    options: dict[str, StructFieldSpec] = {}
    texts: dict[str, dict[str, list[str]]] = {}  # name -> explanation -> kinds
    for kind, cls in kinds:
        info = dataclasses.replace(StructTypeInfo.make(cls, MISSING, False), markers=(_ALONE,))
        spec = ConstructorRegistry.get_struct_spec(info)
        assert isinstance(spec, StructConstructorSpec)
        defaults = {f.name: f.default for f in dataclasses.fields(cls)}
        for option in spec.fields:
            own = dataclasses.replace(option, default=defaults[option.name])
            options.setdefault(option.name, own)
            text = option.helptext() if callable(option.helptext) else option.helptext
            texts.setdefault(option.name, {}).setdefault(text or "", []).append(kind)
    owners = {name: [kind for of in found.values() for kind in of] for name, found in texts.items()}
    for name, found in texts.items():
        if len(owners[name]) < len(kinds):
            text = "; ".join(f"{', '.join(of)}: {text}" for text, of in found.items())
            options[name] = dataclasses.replace(options[name], helptext=text)
    known: Any = Literal[tuple(kind for kind, _ in kinds)]
    options["kind"] = dataclasses.replace(options["kind"], type=known)
    return options, owners
