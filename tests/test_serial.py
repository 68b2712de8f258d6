"""Dataclasses to JSON and back."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from jaxcore.bounds import Above, AtLeast, AtMost, Below, Count, Index, Positive
from jaxcore.errors import UserError
from jaxcore.serial import Serial, check_types, from_json, to_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Serial):
    width: Count
    rate: Positive = 0.5
    form: Literal["train", "deploy"] = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Serial):
    inner: Inner = Inner(width=3)
    parts: tuple[Inner, ...] = ()
    named: dict[str, Inner] = dataclasses.field(default_factory=dict)
    maybe: Inner | None = None
    sizes: tuple[int, int] = (1, 2)
    window: Count | None = None
    flag: bool = True
    folder: Path = Path("runs")
    words: tuple[str, ...] = ()
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    anything: Any = None


FULL = Outer(
    inner=Inner(width=4, form="deploy"),
    parts=(Inner(width=1), Inner(width=2, rate=1)),
    named={"a": Inner(width=9)},
    maybe=Inner(width=5),
    sizes=(3, 4),
    window=7,
    flag=False,
    folder=Path("a/b"),
    words=("x", "y"),
    shares={"left": 0.25, "right": 1},
    anything=[1, {"k": None}],
)


def found(cls: type, data: Any, where: str = "") -> str:
    with pytest.raises(UserError) as error:
        from_json(cls, data, where=where)
    return str(error.value)


@pytest.mark.parametrize("value", [FULL, Outer()])
def test_what_was_written_is_read_back_equal(value):
    assert Outer.from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_fields_that_are_missing_take_their_default_also_inside():
    assert Outer.from_dict({}) == Outer()
    assert Outer.from_dict({"inner": {"width": 8}}).inner == Inner(width=8)


def test_all_mistakes_are_named_at_once_by_their_path():
    sentence = found(
        Outer,
        {
            "inner": {"width": 0, "colour": 1},
            "parts": [{"width": 1}, {"rate": -1}],
            "named": {"a": {"width": "x"}},
            "maybe": 3,
            "sizes": [1, 2, 3],
            "flag": 1,
            "depth": 2,
        },
        where="task",
    )
    assert sentence.split("; ") == [
        "task.depth is not a field of Outer",
        "task.inner.colour is not a field of Inner",
        "task.inner.width must be a whole number of at least 1, found 0",
        "task.parts.1.width of Inner is missing",
        "task.parts.1.rate must be a number above 0, found -1",
        "task.named.a.width must be a whole number of at least 1, found 'x'",
        "task.maybe must be a Inner or None, found 3",
        "task.sizes must be 2 values, each a whole number, found [1, 2, 3]",
        "task.flag must be true or false, found 1.",
    ]


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_something_else_than_fields_is_refused(data):
    assert "must be fields of Outer" in found(Outer, data)


@pytest.mark.parametrize(
    ("kind", "fits", "wrong"),
    [
        (int, [0, -3], [True, 1.0, "1", None]),
        (float, [0, -3, 0.5], [True, "1", None]),
        (bool, [True, False], [0, 1, None, "true"]),
        (str, ["", "a"], [1, None]),
        (Literal[1, 2], [1, 2], [True, 3, 1.0]),
        (int | None, [None, 1], [True, "x"]),
        (int | str, [1, "x"], [None, 1.5]),
        (tuple[int, str], [(1, "a")], [("a", 1), (1,), 1]),
        (tuple[int, ...], [(), (1, 2)], [(1, "a"), "ab"]),
        (list[int], [[], [1]], [[None], (1, 2)]),
        (dict[str, int], [{}, {"a": 1}], [{"a": None}, {1: 1}, []]),
        (Index, [0, 4], [-1, True]),
        (Annotated[float, AtLeast(0), Below(1)], [0, 0.5], [1, -1, float("nan")]),
        (Annotated[float, Above(0), AtMost(1)], [1], [0, 2]),
    ],
)
def test_values_are_checked_by_their_annotation(kind, fits, wrong):
    cls = dataclasses.make_dataclass(
        "Made", [("x", kind)], namespace={"__post_init__": lambda self: check_types(self)}
    )
    for value in fits:
        assert cls(value).x == value
        assert from_json(cls, json.loads(json.dumps(to_json(cls(value))))) == cls(value)
    for value in wrong:
        with pytest.raises(UserError, match="x must be"):
            cls(value)


def test_lists_are_no_tuples_except_in_json():
    assert from_json(Outer, {"sizes": [5, 6]}).sizes == (5, 6)
    with pytest.raises(UserError, match="sizes must be 2 values"):
        Outer(sizes=[5, 6])  # type: ignore[arg-type]  # the mistake under test


def test_mistakes_that_a_class_finds_itself_carry_their_path():
    @dataclasses.dataclass(frozen=True)
    class Even(Serial):
        n: int

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.n % 2:
                raise UserError(f"n must be even, found {self.n}.")

    cls = dataclasses.make_dataclass("Pair", [("a", Even), ("b", Even)])
    assert found(cls, {"a": {"n": 1}, "b": {"n": 3}}) == (
        "a: n must be even, found 1; b: n must be even, found 3."
    )


def test_older_layouts_are_brought_to_todays():
    @dataclasses.dataclass(frozen=True)
    class Moved(Serial):
        inner: Inner

        @classmethod
        def migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
            return data if "inner" in data else {"inner": {"width": data.pop("width"), **data}}

    old = {"width": 4, "rate": 0.25}
    assert Moved.from_dict(old) == Moved(Inner(width=4, rate=0.25))
    assert old == {"width": 4, "rate": 0.25}
    assert Moved.from_dict({"inner": {"width": 4}}) == Moved(Inner(width=4))


def test_the_type_of_a_field_may_depend_on_another():
    @dataclasses.dataclass(frozen=True)
    class Chosen(Serial):
        model: str
        network: Any

        @classmethod
        def field_types(cls, data: dict[str, Any]) -> dict[str, Any]:
            if data["model"] != "inner":
                raise UserError(f"Unknown model {data['model']!r}.")
            return {"network": Inner}

    assert Chosen.from_dict({"model": "inner", "network": {"width": 2}}).network == Inner(width=2)
    assert "network.width must be" in found(Chosen, {"model": "inner", "network": {"width": 0}})
    assert found(Chosen, {"model": "x", "network": {}}) == "Unknown model 'x'."


def test_one_of_several_dataclasses_is_chosen_by_its_kind():
    @dataclasses.dataclass(frozen=True)
    class Pairs(Serial):
        root: str
        kind: Literal["pairs"] = "pairs"

    @dataclasses.dataclass(frozen=True)
    class Toy(Serial):
        kind: Literal["toy"] = "toy"

    cls = dataclasses.make_dataclass("Holder", [("data", Pairs | Toy | None)])
    for value in (cls(Pairs("here")), cls(Toy()), cls(None)):
        assert from_json(cls, to_json(value)) == value
    assert found(cls, {"data": {"kind": "pairs"}}) == "data.root of Pairs is missing."
    assert "data must be a Pairs or a Toy or None" in found(cls, {"data": {"kind": "x"}})


def test_what_has_no_json_form_is_a_programming_error():
    with pytest.raises(TypeError, match="no JSON form"):
        to_json({"a": object()})
    with pytest.raises(TypeError, match="no JSON form"):
        to_json({1: 2})


def test_the_module_is_a_foundation():
    code = "import sys, jaxcore.serial; print([m for m in sys.modules if m.startswith('jax')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "'jax'" not in loaded and "jaxcore.models" not in loaded
