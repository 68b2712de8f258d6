"""Looking at values inside a network, and changing them, without touching its code.

A layer names a value with one line, ``x = tap(self, "latent", x)``. Its full name is the path of
the layer in the network and that name, joined by "/": ``encoder_level1/attn/weights``. `capture`
and `intervene` turn a function that applies the network into another one. They cost nothing where
they are not used.

>>> import flax.linen as nn
>>> class Double(nn.Module):
...     @nn.compact
...     def __call__(self, x):
...         return 1 + tap(self, "doubled", 2 * x)
>>> net = Double()
>>> y, values = jax.jit(capture(net.apply, "doubled"))({}, jnp.ones(2))
>>> y, values
(Array([3., 3.], dtype=float32), {'doubled': Array([2., 2.], dtype=float32)})
>>> intervene(net.apply, {"doubled": lambda value, layer: -value})({}, jnp.ones(2))
Array([-1., -1.], dtype=float32)
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcore.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

Layer = Array | np.ndarray
"""Index within a stack of blocks, a scalar; 0 outside of stacks."""

Edit = Callable[[Array, Layer], Array]
"""``edit(value, layer)`` returns what takes the place of ``value``, of its shape and type."""


def tap(owner: nn.Module, name: str, value: Array, *, editable: bool = True) -> Array:
    """Name a value inside a module's method; to be used in its place from there on.

    Args:
      owner: the module.
      name: within the module; every name is met once in a pass.
      value: an array.
      editable: False for a value from which nothing is computed, so that an edit would be lost.
    """
    requests = _requests.get()
    if not requests or owner.is_initializing():
        return value
    place = "/".join((*owner.path, name))
    frame = _frame.get()
    for request in reversed(requests):  # the innermost first
        value = request.edited(place, value, frame.layer, editable)
    if any(request.captures(place) for request in requests):
        frame.add({place: value})
    return value


def capture(fn: Callable[P, R], *names: str) -> Callable[P, tuple[R, dict[str, Array]]]:
    """The function ``fn`` with the named values as a second result.

    Compile, map or differentiate what this returns, as in ``jax.jit(capture(apply, "latent"))``:
    values cannot get out of a function that JAX has transformed before.

    Args:
      fn: applies a network, directly (``adair.apply``, ``module.apply``) or among other things.
      *names: full names, in which "*" stands for anything; none for all there are.

    Returns:
      A function of the same arguments, returning what ``fn`` returns and a dict from full name to
      value, after any edits. Those from a stack of blocks have a leading axis of layers.

    Raises:
      UserError: (when called) no value has such a name, or one is out of reach.
    """
    patterns = names or ("*",)

    @functools.wraps(fn)
    def captured(*args: P.args, **kwargs: P.kwargs) -> tuple[R, dict[str, Array]]:
        request = _Request(patterns=patterns)
        with _asked(request), nested() as found:
            out = fn(*args, **kwargs)
        request.check()
        if any(outer.captures(place) for outer in _requests.get() for place in found):
            add(found)
        return out, {place: v for place, v in found.items() if request.captures(place)}

    return captured


def intervene(fn: Callable[P, R], edits: Mapping[str, Edit]) -> Callable[P, R]:
    """The function ``fn`` with values inside the network replaced.

    Args:
      fn: applies a network. It may be compiled, mapped or differentiated already.
      edits: full name, in which "*" stands for anything, to an `Edit`. Where several fit, each
        gets the result of the one before.

    Raises:
      UserError: (when called) no value has such a name, a value cannot be edited, or an edit
        returns another shape or type.

    Zero one layer of a stack: ``{"latent/out": lambda v, layer: jnp.where(layer == 2, 0 * v, v)}``.
    """
    request = _Request(edits=dict(edits))

    @functools.wraps(fn)
    def edited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _asked(request):
            out = fn(*args, **kwargs)
        request.check()
        return out

    return edited


@dataclasses.dataclass(eq=False)
class _Request:
    """What one call of `capture`, or one `intervene`, asks for, and the names met so far."""

    patterns: tuple[str, ...] = ()
    edits: dict[str, Edit] = dataclasses.field(default_factory=dict)
    names: set[str] = dataclasses.field(default_factory=set)

    def captures(self, place: str) -> bool:
        return any(fnmatchcase(place, pattern) for pattern in self.patterns)

    def edited(self, place: str, value: Array, layer: Layer, editable: bool) -> Array:
        self.names.add(place)
        for pattern, edit in self.edits.items():
            if not fnmatchcase(place, pattern):
                continue
            if not editable:
                raise UserError(
                    f"The value {place!r} can be captured but not edited: nothing is computed "
                    "from it."
                )
            new = jnp.asarray(edit(value, layer))
            if (new.shape, new.dtype) != (value.shape, value.dtype):
                raise UserError(
                    f"The edit of {place!r} must return shape {value.shape} and type "
                    f"{value.dtype}, found {new.shape} and {new.dtype}."
                )
            value = new
        return value

    def check(self) -> None:
        for pattern in (*self.patterns, *self.edits):
            if not any(fnmatchcase(name, pattern) for name in self.names):
                there = ", ".join(sorted(self.names)) or "none at all"
                raise UserError(
                    f"No value inside the network is named {pattern!r}; there are: {there}."
                )


class _Frame:
    """The values met under one level of JAX's transformations."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.level = _level()
        self.values: dict[str, Array] = {}

    def add(self, values: dict[str, Array]) -> None:
        for place in values:
            if self.level != _level():
                raise UserError(
                    f"The value {place!r} is computed inside a function transformed by JAX (jit, "
                    "grad, vmap, remat) and cannot get out of it. Put capture inside, around the "
                    "function that applies the network."
                )
            if place in self.values:
                raise UserError(
                    f"The value {place!r} is computed more than once. Put capture around a single "
                    "pass through the network."
                )
        self.values |= values


_requests: contextvars.ContextVar[tuple[_Request, ...]] = contextvars.ContextVar(
    "requests", default=()
)
_frame: contextvars.ContextVar[_Frame] = contextvars.ContextVar("frame")
# Part of the key of JAX's caches: a function that was compiled without taps is traced again.
_compiled_for: Any = jax.make_user_context(())


def _level() -> Any:
    return jax.extend.core.get_opaque_trace_state(convention="flax")


@contextlib.contextmanager
def _asked(request: _Request) -> Iterator[None]:
    requests = (*_requests.get(), request)
    token = _requests.set(requests)
    try:
        # Captures of the same names share compiled programs, interventions only with themselves.
        key = tuple(r if r.edits else r.patterns for r in requests)
        with _compiled_for(key), contextlib.ExitStack() as stack:
            if len(requests) == 1:
                stack.enter_context(nested())
            yield
    finally:
        _requests.reset(token)


def active() -> bool:
    """Whether a `capture` or `intervene` is at work."""
    return bool(_requests.get())


@contextlib.contextmanager
def nested(layer: Array | None = None) -> Iterator[dict[str, Array]]:
    """For layers that transform a block (scan, remat): collects the values met inside.

    The transformed function must return them, and its caller pass them to :func:`add`.
    """
    if not active():
        yield {}
        return
    # NumPy's zero belongs to no trace, so that compiled functions may keep it.
    frame = _Frame(np.zeros((), np.int32) if layer is None else layer)
    token = _frame.set(frame)
    try:
        yield frame.values
    finally:
        _frame.reset(token)


def add(values: dict[str, Array]) -> None:
    """Hand values of a transformed block to the enclosing level; see :func:`nested`."""
    if values:
        _frame.get().add(values)
