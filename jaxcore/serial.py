"""Dataclasses to JSON and back: types come from the annotations, nested, defaults fill in.

A class may say more by two classmethods:

* ``migrate(data: dict) -> dict`` brings the layout of an older file to today's;
* ``field_types(data: dict) -> dict[str, type]`` gives the type of a field that depends on others.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    Self,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from jaxcore.bounds import Bound, OneOf
from jaxcore.errors import UserError, readable

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
T = TypeVar("T")


class SettingsError(UserError):
    """Settings that cannot be, all of them; each half sentence begins with the path of a field."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Join half sentences to one."""
        super().__init__("; ".join(problems) + ".")
        self.problems = tuple(problems)


class Serial:
    """Base of dataclasses that are checked when they are made, and written to JSON.

    >>> from jaxcore.bounds import Count
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Sizes(Serial):
    ...     width: Count = 8
    ...     depths: tuple[int, int] = (1, 2)
    >>> Sizes.from_dict({"depths": [3, 4]})
    Sizes(width=8, depths=(3, 4))
    >>> Sizes(width=0)
    Traceback (most recent call last):
    jaxcore.serial.SettingsError: width must be a whole number of at least 1, found 0.
    """

    def __post_init__(self) -> None:
        check_types(self)
        problems = self.problems()
        if problems:
            raise SettingsError(problems)

    def problems(self) -> list[str]:
        """What is wrong although each field is of its type, as ``"field must be ..., found ..."``.

        It is asked for when the types are right; a subclass says what does not fit together.
        """
        return []

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types."""
        fields = to_json(self)
        assert isinstance(fields, dict)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; see `from_json`."""
        return from_json(cls, fields)


def to_json(value: Any) -> JSON:
    """JSON types of a (nested) dataclass, tuple, list, dict with text keys, path or plain value.

    Raises:
      TypeError: something has no JSON form.

    >>> to_json({"folder": Path("runs"), "sizes": (1, 2.5, None)})
    {'folder': 'runs', 'sizes': [1, 2.5, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in _fields(type(value))}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} has no JSON form: {value!r}")


def from_json(cls: type[T], data: Any, *, where: str = "") -> T:
    """A dataclass from what `to_json` made of it, or an older version of the class.

    A field that is missing takes its default. Whole numbers stand for floats, true and false do
    not stand for numbers. Among several dataclasses (a union) the one is taken whose fields of one
    possible value (``kind: Literal["pairs"]``) agree.

    Args:
      cls: the class.
      data: JSON types.
      where: what stands before the names of fields in messages, as in ``where.field``.

    Raises:
      UserError: fields that are unknown, missing, or of a wrong type, all in one sentence.
    """
    problems: list[str] = []
    out = _from_object(cls, data, where, problems)
    if out is None or problems:
        raise SettingsError(problems)
    return out


def check_types(instance: Any) -> None:
    """Refuse values that do not fit the annotations of a dataclass; for ``__post_init__``.

    Raises:
      UserError: names every field that does not fit, and what was expected.
    """
    problems: list[str] = []
    kinds = _hints(type(instance))
    for field in _fields(type(instance)):
        value = getattr(instance, field.name)
        _convert(kinds[field.name], value, field.name, problems, stored=False)
    if problems:
        raise SettingsError(problems)


class _Misfit(Exception):
    """A value that is not of the kind."""


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


@functools.cache
def _fields(cls: type) -> tuple["dataclasses.Field[Any]", ...]:
    return tuple(f for f in dataclasses.fields(cls) if f.init)


def _from_object(cls: type[T], data: Any, path: str, problems: list[str]) -> T | None:
    """A dataclass; None, and problems, where something does not fit."""
    before = len(problems)
    prefix = f"{path}." if path else ""
    if not isinstance(data, Mapping):
        problems.append(
            f"{path or 'the whole'} must be fields of {cls.__name__}, found {readable(repr(data))}"
        )
        return None
    try:
        data = getattr(cls, "migrate", dict)(dict(data))
        kinds = _hints(cls) | getattr(cls, "field_types", lambda _: {})(data)
    except UserError as error:
        problems += clauses(error, path)
        return None
    known = {field.name: field for field in _fields(cls)}
    for name in data:
        if name not in known:
            problems.append(f"{prefix}{name} is not a field of {cls.__name__}")
    values = {}
    for name, field in known.items():
        if name in data:
            values[name] = _convert(kinds[name], data[name], prefix + name, problems, stored=True)
        elif field.default is field.default_factory is dataclasses.MISSING:
            problems.append(f"{prefix}{name} of {cls.__name__} is missing")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except UserError as error:
        problems += clauses(error, path)
        return None


def clauses(error: UserError, path: str) -> list[str]:
    """What an error says of a part, as half sentences on the whole.

    Args:
      error: of the part.
      path: of the part in the whole; "" for the whole itself.

    >>> clauses(SettingsError(["width must be 1, found 2"]), "task.network")
    ['task.network.width must be 1, found 2']
    """
    if isinstance(error, SettingsError):
        return [f"{path}.{problem}" if path else problem for problem in error.problems]
    sentence = str(error).removesuffix(".")
    return [f"{path}: {sentence}" if path else sentence]


def _convert(kind: Any, value: Any, path: str, problems: list[str], *, stored: bool) -> Any:
    """The value as ``kind``; what does not fit is added to ``problems``.

    Args:
      kind: an annotation.
      value: JSON types where ``stored``, else a value of the kind.
      path: of the field.
      problems: receives half sentences.
      stored: whether values are still to be made from JSON.
    """
    if stored and _has_dataclass(kind):
        return _convert_nested(kind, value, path, problems)
    try:
        return _leaf(kind, value, stored)
    except _Misfit:
        problems.append(f"{path} must be {_words(kind)}, found {readable(repr(value))}")


def _convert_nested(kind: Any, value: Any, path: str, problems: list[str]) -> Any:
    """`_convert` of JSON types to something with dataclasses in it."""
    origin, arguments = get_origin(kind), get_args(kind)
    cls = origin or kind
    if _is_dataclass(kind):
        return _from_object(cls, value, path, problems)
    if origin is Annotated:
        return _convert(arguments[0], value, path, problems, stored=True)
    if _is_union(origin):
        if value is None and types.NoneType in arguments:
            return None
        members = _agreeing(arguments, value)
        if len(members) == 1:
            return _convert(members[0], value, path, problems, stored=True)
    if origin in (tuple, list) and isinstance(value, list | tuple):
        kinds = _element_kinds(arguments, len(value)) if origin is tuple else arguments * len(value)
        if len(kinds) == len(value):
            return origin(
                _convert(member, item, f"{path}.{i}", problems, stored=True)
                for i, (member, item) in enumerate(zip(kinds, value, strict=True))
            )
    if cls in _MAPPINGS and isinstance(value, Mapping):
        return {
            key: _convert(arguments[1], item, f"{path}.{key}", problems, stored=True)
            for key, item in value.items()
        }
    problems.append(f"{path} must be {_words(kind)}, found {readable(repr(value))}")
    return None


_MAPPINGS = (dict, Mapping)


def _agreeing(members: tuple[Any, ...], value: Any) -> list[Any]:
    """Members of a union that a value from JSON can stand for."""
    if not isinstance(value, Mapping):
        return [m for m in members if m is not types.NoneType and not _is_dataclass(m)]
    found = [m for m in members if _is_dataclass(m)]
    if len(found) < 2:
        return found
    tags = [
        {name: get_args(kind)[0] for name, kind in _hints(member).items() if _is_tag(kind)}
        for member in found
    ]
    return [m for m, tag in zip(found, tags, strict=True) if tag and tag.items() <= value.items()]


def _is_tag(kind: Any) -> bool:
    return get_origin(kind) is Literal and len(get_args(kind)) == 1


def _is_union(origin: Any) -> bool:
    return origin is Union or origin is types.UnionType


def _has_dataclass(kind: Any) -> bool:
    if _is_dataclass(kind):
        return True
    return get_origin(kind) is not Literal and any(map(_has_dataclass, get_args(kind)))


def _is_dataclass(kind: Any) -> bool:
    cls = get_origin(kind) or kind
    return isinstance(cls, type) and dataclasses.is_dataclass(cls)


def _element_kinds(arguments: tuple[Any, ...], length: int) -> tuple[Any, ...]:
    """Kind of each element of a tuple of some length."""
    if len(arguments) == 2 and arguments[1] is ...:
        return arguments[:1] * length
    return arguments


def _leaf(kind: Any, value: Any, stored: bool) -> Any:
    """The value as ``kind``, in which nothing is named by a path of its own.

    Raises:
      _Misfit: the value is not of that kind.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or isinstance(kind, TypeVar):
        return value
    if origin is Annotated:
        out = _leaf(arguments[0], value, stored)
        marks = [mark for mark in arguments[1:] if isinstance(mark, Bound | OneOf)]
        return _when(out is None or all(mark.holds(out) for mark in marks), out)
    if _is_union(origin):
        for member in arguments:
            try:
                return _leaf(member, value, stored)
            except _Misfit:
                continue
        raise _Misfit
    if origin is Literal:
        return _when(any(type(value) is type(one) and value == one for one in arguments), value)
    if origin is tuple:
        _when(isinstance(value, (tuple, list) if stored else tuple), value)
        kinds = _element_kinds(arguments, len(value))
        _when(len(kinds) == len(value), value)
        return tuple(_leaf(k, item, stored) for k, item in zip(kinds, value, strict=True))
    if origin is list:
        _when(isinstance(value, list), value)
        return [_leaf(arguments[0], item, stored) for item in value]
    if origin in _MAPPINGS:
        _when(isinstance(value, Mapping), value)
        pairs = value.items()
        return {_leaf(arguments[0], k, stored): _leaf(arguments[1], v, stored) for k, v in pairs}
    if kind in (int, float):
        number = int | float if kind is float else int
        _when(isinstance(value, number) and not isinstance(value, bool), value)
        return _when(not isinstance(value, float) or math.isfinite(value), value)
    if kind is Path and stored and isinstance(value, str):
        return Path(value)
    if kind is None:
        return _when(value is None, value)
    cls = origin or kind
    if stored and cls not in _WORDS and cls not in (dict, list):
        raise TypeError(f"a {kind} cannot be read from JSON")
    return _when(not isinstance(cls, type) or isinstance(value, cls), value)


def _when(fits: bool, value: T) -> T:
    if not fits:
        raise _Misfit
    return value


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    types.NoneType: "None",
}


def _words(kind: Any) -> str:
    """What is expected, as the end of a sentence."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        for mark in arguments[1:]:
            if isinstance(mark, OneOf):
                return f"one of {', '.join(mark.table)}"
        bounds = [f"{m.phrase} {m.limit}" for m in arguments[1:] if isinstance(m, Bound)]
        return " ".join([_words(arguments[0]), " and ".join(bounds)]).rstrip()
    if _is_union(origin):
        return " or ".join(map(_words, sorted(arguments, key=lambda k: k is types.NoneType)))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if arguments[1:] else str(arguments[0])
    if origin is tuple and arguments[-1] is ...:
        return f"a list of values, each {_words(arguments[0])}"
    if origin is tuple:
        different = dict.fromkeys(map(_words, arguments))
        each = f"each {next(iter(different))}" if len(different) == 1 else ", ".join(different)
        return f"{len(arguments)} values, {each}"
    if origin is list:
        return f"a list of values, each {_words(arguments[0])}"
    cls = origin or kind
    return _WORDS.get(cls, f"a {getattr(cls, '__name__', cls)}")
