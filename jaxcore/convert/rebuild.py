"""What the objects of a PyTorch pickle mean, without making any of them.

A global of the file becomes an inert `Symbol`. The few calls that weights need (rebuild a tensor,
make an ordered dict) are written out below; a call of any other class yields an `Opaque` record of
what was asked. Nothing is imported, looked up or called by name. Names that only an attacker needs
(all of the standard library but some plain containers, and functions in general) are refused.
"""

import dataclasses
import math
import sys
from typing import Any

import ml_dtypes
import numpy as np

_MAX_AXES = 32
_MAX_SIZE = 2**63  # of sizes, strides, offsets and counts: PyTorch keeps them in 64 bits
_MAX_KEY = 2**16  # characters of a dictionary's key: equal ones are compared again and again


class Refused(Exception):
    """The pickle is damaged, hostile or beyond this reader; the text says why."""


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A global named by the file; only its name is known."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(eq=False)
class Opaque:
    """An object of an unknown class: what the file wanted to make it from."""

    symbol: Symbol
    # Not in messages: what refers to itself twice at every level is written out in 2**levels parts.
    args: tuple[Any, ...] = dataclasses.field(default=(), repr=False)
    state: Any = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A run of numbers somewhere in the file; ``dtype`` is None for untyped bytes."""

    key: str
    dtype: np.dtype | None
    numel: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A checked view of a storage; offset and strides count elements."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes the tensor takes once it is an array of its own."""
        return math.prod(self.shape) * self.dtype.itemsize


#: PyTorch's dtype name -> (storage class, NumPy dtype). No storage class: stored untyped.
DTYPES: dict[str, tuple[str | None, np.dtype]] = {
    "float64": ("DoubleStorage", np.dtype(np.float64)),
    "float32": ("FloatStorage", np.dtype(np.float32)),
    "float16": ("HalfStorage", np.dtype(np.float16)),
    "bfloat16": ("BFloat16Storage", np.dtype(ml_dtypes.bfloat16)),
    "int64": ("LongStorage", np.dtype(np.int64)),
    "int32": ("IntStorage", np.dtype(np.int32)),
    "int16": ("ShortStorage", np.dtype(np.int16)),
    "int8": ("CharStorage", np.dtype(np.int8)),
    "uint8": ("ByteStorage", np.dtype(np.uint8)),
    "bool": ("BoolStorage", np.dtype(np.bool_)),
    "complex128": ("ComplexDoubleStorage", np.dtype(np.complex128)),
    "complex64": ("ComplexFloatStorage", np.dtype(np.complex64)),
    "uint16": (None, np.dtype(np.uint16)),
    "uint32": (None, np.dtype(np.uint32)),
    "uint64": (None, np.dtype(np.uint64)),
    "float8_e4m3fn": (None, np.dtype(ml_dtypes.float8_e4m3fn)),
    "float8_e5m2": (None, np.dtype(ml_dtypes.float8_e5m2)),
}
#: safetensors' name -> NumPy dtype.
SAFETENSORS: dict[str, np.dtype] = {
    **{f"F{n}": DTYPES[f"float{n}"][1] for n in (64, 32, 16)},
    "BF16": DTYPES["bfloat16"][1],
    **{f"I{n}": DTYPES[f"int{n}"][1] for n in (64, 32, 16, 8)},
    **{f"U{n}": DTYPES[f"uint{n}"][1] for n in (64, 32, 16, 8)},
    "BOOL": DTYPES["bool"][1],
    "C64": DTYPES["complex64"][1],
    "F8_E4M3": DTYPES["float8_e4m3fn"][1],
    "F8_E5M2": DTYPES["float8_e5m2"][1],
}
_KEYS = (str, bytes, int, float, type(None), Symbol, Opaque, Tensor)
_STORAGES = {storage: dtype for storage, dtype in DTYPES.values() if storage}

# Plain values and containers of the standard library; Python 2 had other names for two modules.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_RENAMED_TYPES = {  # those of Python 2, which protocol 2 writes
    ("builtins", "long"): "int",
    ("builtins", "unicode"): "str",
    ("builtins", "xrange"): "range",
}
_HARMLESS = {
    "argparse": {"Namespace"},
    "builtins": {
        "Ellipsis",
        "NotImplemented",
        "bool",
        "bytearray",
        "bytes",
        "complex",
        "dict",
        "float",
        "frozenset",
        "int",
        "list",
        "object",
        "range",
        "set",
        "slice",
        "str",
        "tuple",
    },
    "_codecs": {"encode"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"date", "datetime", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "types": {"SimpleNamespace"},
    "typing": {"Any"},
    "uuid": {"UUID"},
}
# Functions that appear in honest files; recorded, never run.
_INERT_FUNCTIONS = {
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy": {"dtype", "ndarray"},
    "numpy.random._pickle": {
        "__bit_generator_ctor",
        "__generator_ctor",
        "__randomstate_ctor",
    },
    "torch": {"device"},
    "torch.serialization": {"_get_layout"},
}


def named(module: Any, name: Any) -> Symbol:
    """Admit a global that the file names."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise Refused("it names a global by something other than text")
    module = _RENAMED.get(module, module)
    name = _RENAMED_TYPES.get((module, name), name)
    if module.split(".")[0] in sys.stdlib_module_names and name not in _HARMLESS.get(module, ()):
        raise Refused(f"it asks for {module}.{name}, which is code and not weights")
    return Symbol(module, name)


def checked_key(value: Any) -> Any:
    """Admit a dict key or set member: hashing it must be cheap and flat."""
    if isinstance(value, str | bytes) and len(value) > _MAX_KEY:
        raise Refused(f"it uses a dictionary key of more than {_MAX_KEY} characters")
    if type(value) is str:
        return value
    parts = value if isinstance(value, tuple) and len(value) <= _MAX_AXES else (value,)
    if not all(isinstance(part, _KEYS) for part in parts):
        raise Refused("it uses a container as a dictionary key")
    return value


def checked_dict(pairs: Any) -> dict[Any, Any]:
    """Make a dict of admitted keys."""
    return {checked_key(key): value for key, value in pairs}


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > _MAX_AXES:
        raise Refused("a tensor has an impossible shape")
    if any(type(n) is not int or n < 0 for n in value):
        raise Refused("a tensor has a negative or non-integer size or stride")
    if any(n >= _MAX_SIZE for n in value):
        raise Refused("a tensor reaches beyond its storage, and any file")
    return tuple(value)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> Tensor:
    """Describe a view of a storage, after checking that it lies inside."""
    if not isinstance(storage, Storage):
        raise Refused("a tensor has no storage")
    shape, strides = _sizes(size), _sizes(stride)
    (offset,) = _sizes((offset,))
    if len(shape) != len(strides):
        raise Refused("a tensor has an impossible shape")
    kind, numel = storage.dtype, storage.numel
    if dtype is not None:
        if storage.dtype is not None or not isinstance(dtype, Symbol) or dtype.module != "torch":
            raise Refused("a tensor has an unknown dtype")
        if dtype.name not in DTYPES:
            raise Refused(f"it holds a tensor of dtype {dtype.name}, which is not supported")
        kind = DTYPES[dtype.name][1]
        numel = storage.numel // kind.itemsize
    if kind is None:
        raise Refused("a tensor has no dtype")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if last >= numel if all(shape) else offset > numel:
        raise Refused(f"a tensor of shape {shape} reaches beyond its storage of {numel} numbers")
    return Tensor(storage, kind, offset, shape, strides)


def _rebuild(name: str, args: tuple[Any, ...]) -> Any:
    """The functions of ``torch._utils`` and ``torch._tensor`` that make tensors."""
    match name, args:
        case "_rebuild_tensor", (storage, offset, size, stride):
            return _tensor(storage, offset, size, stride)
        case "_rebuild_tensor_v2", (storage, offset, size, stride, _, _, *rest):
            if rest and isinstance(rest[0], dict) and any(rest[0].values()):
                raise Refused("it holds a lazily conjugated or negated tensor")
            return _tensor(storage, offset, size, stride)
        case "_rebuild_tensor_v3", (storage, offset, size, stride, _, _, dtype, *_):
            return _tensor(storage, offset, size, stride, dtype)
        case ("_rebuild_parameter", (Tensor() as data, _, _)) | (
            "_rebuild_parameter_with_state",
            (Tensor() as data, _, _, _),
        ):
            return data
        case "_rebuild_from_type_v2", (Symbol() as function, _, tuple() as inner, _):
            return call(function, inner)
    # Sparse, quantised, meta ... tensors: kept as a record, refused if they are asked for.
    return Opaque(Symbol("torch._utils", name), args)


def call(function: Any, args: Any, *, by_class: bool = False) -> Any:
    """What the file asks to be called: done here if it makes plain data, else recorded.

    Args:
      function: the global that would be called.
      args: tuple of arguments.
      by_class: the file says that it is a class (whatever the spelling of its name).
    """
    if not isinstance(function, Symbol) or not isinstance(args, tuple):
        raise Refused("it calls something that is not a name")
    name, module = str(function), function.module
    if module in ("torch._utils", "torch._tensor") and function.name.startswith("_rebuild"):
        return _rebuild(function.name, args)
    match name, args:
        case "collections.OrderedDict" | "collections.Counter" | "builtins.dict", ():
            return {}
        case "collections.OrderedDict" | "collections.Counter" | "builtins.dict", (pairs,):
            return checked_dict(pairs.items() if isinstance(pairs, dict) else pairs)
        case "collections.defaultdict", ():
            return {}
        case "collections.defaultdict", (Symbol() | None,):
            return {}
        case "builtins.set" | "builtins.frozenset", (list() as items,):
            return {checked_key(item) for item in items}
        case "torch.Size", (list() | tuple() as sizes,):
            return tuple(sizes)
        case "builtins.bytes", ():
            return b""
        case "_codecs.encode", (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")
    last = function.name.rpartition(".")[2].lstrip("_")
    inert = function.name in _INERT_FUNCTIONS.get(module, ())
    if not (by_class or inert or last[:1].isupper() or module in _HARMLESS):
        raise Refused(f"it calls the function {name}, which weights do not need")
    return Opaque(function, args)


def set_state(target: Any, state: Any) -> None:
    """Record an object's state. Attributes of dicts and tensors are of no use here."""
    if isinstance(target, Opaque):
        target.state = state
    elif not isinstance(target, dict | Tensor):
        raise Refused("it sets the attributes of a plain value")


def storage(identifier: Any) -> Storage:
    """Describe the storage behind a persistent identifier of ``torch.save``."""
    match identifier:
        case ("storage", Symbol() as kind, str() as key, _, int() as numel, *view):
            pass
        case _:
            raise Refused("it refers to something other than a tensor's storage")
    if any(part is not None for part in view):
        raise Refused("it uses storage views of PyTorch before 0.4; save it again with a newer one")
    if not 0 <= numel < _MAX_SIZE or kind.module.split(".")[0] != "torch":
        raise Refused("a tensor has an impossible storage")
    if kind.name == "UntypedStorage":
        return Storage(key, None, numel)
    if kind.name not in _STORAGES:
        raise Refused(f"it holds a {kind.name}, which is not supported")
    return Storage(key, _STORAGES[kind.name], numel)
