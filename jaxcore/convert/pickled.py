"""A reader of pickles that cannot run code: an interpreter of its own for the opcodes.

Unpickling normally imports and calls whatever the file names. Here the opcodes only move values
about; what a named object or a call stands for is decided by `jaxcore.convert.rebuild`.
"""

import pickletools
from collections.abc import Callable
from typing import Any

from jaxcore.convert.rebuild import (
    Opaque,
    Refused,
    call,
    checked_dict,
    checked_key,
    named,
    set_state,
)

_MAX_OPCODES = 5_000_000  # a training checkpoint of 10,000 tensors has about 500,000
_MAX_COPIED = 50_000_000  # values and characters passed to calls, some of which copy them


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple | dict | set | str | bytes) else 1


class _Machine:
    """Stack, marks and memo; every opcode is one method, named in `_OPCODES`."""

    def __init__(self, persistent_load: Callable[[Any], Any]) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0
        self.persistent_load = persistent_load

    def _pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise Refused("its pickle is damaged")
        return self.stack.pop()

    def _pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _call(self, args: Any, by_class: bool) -> None:
        function = self._pop()
        self.copied += _size(args) + sum(map(_size, args if isinstance(args, tuple) else ()))
        if self.copied > _MAX_COPIED:
            raise Refused("its pickle builds more than weights need")
        self.stack.append(call(function, args, by_class=by_class))

    def _add_pairs(self, items: list[Any]) -> None:
        target = self.stack[-1]
        pairs = checked_dict(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, dict):
            target.update(pairs)
        elif not isinstance(target, Opaque):
            raise Refused("its pickle is damaged")

    def _add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(checked_key(item) for item in items)
        elif not isinstance(target, Opaque):
            raise Refused("its pickle is damaged")

    def ignore(self, arg: Any) -> None:
        pass

    def constant(self, arg: Any) -> None:
        self.stack.append(arg)

    def none(self, arg: Any) -> None:
        self.stack.append(None)

    def true(self, arg: Any) -> None:
        self.stack.append(True)

    def false(self, arg: Any) -> None:
        self.stack.append(False)

    def mark(self, arg: Any) -> None:
        self.marks.append(len(self.stack))

    def pop(self, arg: Any) -> None:
        self._pop()

    def pop_mark(self, arg: Any) -> None:
        self._pop_mark()

    def put(self, arg: Any) -> None:
        self.memo[arg] = self.stack[-1]

    def memoize(self, arg: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, arg: Any) -> None:
        self.stack.append(self.memo[arg])

    def empty_tuple(self, arg: Any) -> None:
        self.stack.append(())

    def empty_list(self, arg: Any) -> None:
        self.stack.append([])

    def empty_dict(self, arg: Any) -> None:
        self.stack.append({})

    def empty_set(self, arg: Any) -> None:
        self.stack.append(set())

    def tuple1(self, arg: Any) -> None:
        self.stack.append((self._pop(),))

    def tuple2(self, arg: Any) -> None:
        second, first = self._pop(), self._pop()
        self.stack.append((first, second))

    def tuple3(self, arg: Any) -> None:
        third, second, first = self._pop(), self._pop(), self._pop()
        self.stack.append((first, second, third))

    def mark_tuple(self, arg: Any) -> None:
        items = self._pop_mark()
        self.stack.append(tuple(items))

    def mark_list(self, arg: Any) -> None:
        items = self._pop_mark()
        self.stack.append(items)

    def mark_dict(self, arg: Any) -> None:
        items = self._pop_mark()
        self.stack.append(checked_dict(zip(items[::2], items[1::2], strict=True)))

    def mark_set(self, arg: Any) -> None:
        items = self._pop_mark()
        self.stack.append({checked_key(item) for item in items})

    def append(self, arg: Any) -> None:
        self._add_items([self._pop()])

    def appends(self, arg: Any) -> None:
        self._add_items(self._pop_mark())

    def setitem(self, arg: Any) -> None:
        value, key = self._pop(), self._pop()
        self._add_pairs([key, value])

    def setitems(self, arg: Any) -> None:
        self._add_pairs(self._pop_mark())

    def global_(self, arg: Any) -> None:
        self.stack.append(named(*arg.split(" ", 1)))

    def stack_global(self, arg: Any) -> None:
        name, module = self._pop(), self._pop()
        self.stack.append(named(module, name))

    def reduce(self, arg: Any) -> None:
        self._call(self._pop(), by_class=False)

    def newobj(self, arg: Any) -> None:
        self._call(self._pop(), by_class=True)

    def newobj_ex(self, arg: Any) -> None:
        keywords, args = self._pop(), self._pop()
        self._call((args, keywords), by_class=True)  # recorded: nothing rebuilt has keywords

    def build(self, arg: Any) -> None:
        state = self._pop()
        set_state(self.stack[-1], state)

    def persistent(self, arg: Any) -> None:
        self.stack.append(self.persistent_load(self._pop()))


# Protocols 2 to 5, without text forms, extension registry, old-style objects and outside buffers.
_OPCODES: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _Machine.ignore),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _Machine.constant),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _Machine.constant),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), _Machine.constant),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _Machine.constant),
    "NONE": _Machine.none,
    "NEWTRUE": _Machine.true,
    "NEWFALSE": _Machine.false,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "EMPTY_TUPLE": _Machine.empty_tuple,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "EMPTY_SET": _Machine.empty_set,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "TUPLE": _Machine.mark_tuple,
    "LIST": _Machine.mark_list,
    "DICT": _Machine.mark_dict,
    "FROZENSET": _Machine.mark_set,
    "APPEND": _Machine.append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _Machine.appends),
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.newobj,
    "NEWOBJ_EX": _Machine.newobj_ex,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}


def load(stream: Any, persistent_load: Callable[[Any], Any]) -> Any:
    r"""Read one pickle from where ``stream`` stands, and stop right behind it.

    Args:
      stream: bytes, or anything with ``read``, ``readline`` and ``tell`` whose ``read(n)`` does not
        reserve ``n`` bytes in advance: a memory map, not an open file.
      persistent_load: makes a storage of a persistent identifier.

    Returns:
      Plain containers and values, with ``Tensor``, ``Symbol`` and ``Opaque`` among them.

    Raises:
      Refused: the pickle is damaged, hostile or too long.

    >>> load(b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", lambda _: None)
    {'a': 1}
    """
    machine = _Machine(persistent_load)
    try:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                break
            if count >= _MAX_OPCODES:
                raise Refused(f"its pickle is longer than {_MAX_OPCODES} operations")
            if opcode.name not in _OPCODES:
                raise Refused(
                    f"its pickle uses the operation {opcode.name}, which weights do not need"
                )
            _OPCODES[opcode.name](machine, arg)
        (result,) = machine.stack
        return result
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise Refused("its pickle is damaged or cut off") from None
