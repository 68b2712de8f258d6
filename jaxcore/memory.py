"""How much memory there is, and about how much a function needs."""

import math
import os
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def free_memory() -> int | None:
    """Bytes that the default device can still give; None where it does not tell.

    Of a CPU that of the machine, or of the container where that has less.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else limit - stats.get("bytes_in_use", 0)
    found = [_of_machine(), *map(_of_container, _LIMITS, _USED)]
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=None)


def on_host() -> AbstractContextManager[Any]:
    """A context in which new arrays lie in the host's memory, where JAX has a CPU beside others."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return nullcontext()


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _of_container(limit: str, used: str) -> int | None:
    try:
        return max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))
    except (OSError, ValueError):  # no limit, or none that is told
        return None


def working_bytes(function: Callable[..., Any], *args: Any) -> int:
    """About how many bytes a function has alive at once besides its arguments.

    Found by tracing: what is computed is alive from there to its last use. Sums, products and the
    like of which one operation reads the result take none, as compilers join them with it.

    Args:
      function: of arrays.
      *args: arrays, or shapes of arrays.

    >>> square = jax.ShapeDtypeStruct((10, 10), "f4")
    >>> working_bytes(lambda x: jnp.tanh(x @ x) + 1, square)  # the product and the result
    800
    """
    return peak_bytes(jax.make_jaxpr(function)(*args).jaxpr)


def _size(value: Any) -> int:
    shape, dtype = getattr(value.aval, "shape", ()), getattr(value.aval, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):  # keys of random numbers
        return 0
    return math.prod(shape) * jnp.dtype(dtype).itemsize


_JOINED = frozenset(
    "add sub mul div neg abs exp log tanh logistic sqrt rsqrt square integer_pow pow max min sign "
    "select_n convert_element_type broadcast_in_dim reshape squeeze expand_dims copy erf clamp "
    "gt ge lt le eq ne and or not stop_gradient slice".split()
)


def peak_bytes(jaxpr: Any) -> int:
    """`working_bytes` of a traced function: most bytes of results that are alive at once.

    Args:
      jaxpr: ``jax.make_jaxpr(function)(*args).jaxpr``.
    """
    equations, end = jaxpr.eqns, len(jaxpr.eqns)
    uses = Counter(id(value) for equation in equations for value in equation.invars)
    kept = {id(value) for value in jaxpr.outvars}
    roots: dict[int, frozenset[int]] = {}  # value -> results that are alive while it is needed
    sizes: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, equation in enumerate(equations):
        needed = frozenset().union(*(roots.get(id(v), frozenset()) for v in equation.invars))
        last |= dict.fromkeys(needed, place)
        for value in equation.outvars:
            name = id(value)
            joined = equation.primitive.name in _JOINED and uses[name] == 1 and name not in kept
            roots[name] = needed if joined else frozenset((name,))
            if not joined:
                sizes[name], last[name] = _size(value), place
    for value in jaxpr.outvars:
        last |= dict.fromkeys(roots.get(id(value), ()), end)
    ends: dict[int, list[int]] = {}
    for name, place in last.items():
        ends.setdefault(place, []).append(name)
    alive = peak = 0
    for place, equation in enumerate(equations):
        inner = max((peak_bytes(part) for part in _parts(equation.params)), default=0)
        new = sum(sizes.get(id(value), 0) for value in equation.outvars)
        peak = max(peak, alive + max(new, inner))
        alive += new - sum(sizes[name] for name in ends.get(place, ()))
    return peak


def _parts(params: dict[str, Any]) -> list[Any]:
    """The programs inside an equation: of loops, branches and calls."""
    found = []
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                found.append(inner)
    return found
