"""Messages in the wire format of protocol buffers: as little of it as TFRecord files need.

Readers take one pass over the bytes, never look beyond their end and make no copies; what is
damaged raises `ValueError` with a few words.
"""

import itertools
from collections.abc import Iterator

import numpy as np

DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
}
"""TensorFlow's numbers of the types that images may have."""

STRING = 7
VARINT, BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_MOST_DIMENSIONS = 8
_MOST_FEATURES = 100


def varint(value: int) -> bytes:
    """A number of seven bits a byte, the lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes | int) -> bytes:
    """One field: a number, or bytes with their length before them.

    >>> field(1, 19).hex(), field(2, b"ab").hex()
    ('0813', '12026162')
    """
    if isinstance(content, int):
        return varint(number << 3 | VARINT) + varint(content)
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends.

    Raises:
      ValueError: it has no end, or more than 64 bits.
    """
    value = 0
    for i in range(10):
        if at + i >= len(data):
            raise ValueError("a number that is cut off")
        value |= (data[at + i] & 127) << (7 * i)
        if data[at + i] < 128:
            return value & (2**64 - 1), at + i + 1
    raise ValueError("a number of more than 64 bits")


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    r"""Number and content of each field of a message.

    >>> [(number, bytes(part)) for number, part in fields(memoryview(b"\x12\x01a"))]
    [(2, b'a')]

    Raises:
      ValueError: a field reaches beyond the end, or is of no known kind.
    """
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == VARINT:
            content, at = read_varint(data, at)
            yield tag >> 3, content
            continue
        if kind == BYTES:
            size, at = read_varint(data, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if size > len(data) - at:
            raise ValueError(f"a field of {size} bytes where {len(data) - at} are left")
        yield tag >> 3, data[at : at + size]
        at += size


def part(content: int | memoryview) -> memoryview:
    """The bytes of a field.

    Raises:
      ValueError: it is a number.
    """
    if isinstance(content, int):
        raise ValueError("a number where a message belongs")
    return content


# --- examples -----------------------------------------------------------------------------------


def example(features: dict[str, bytes | int]) -> bytes:
    """A `tf.train.Example` of whole numbers and bytes, in the order given.

    >>> example({"a": 1}).hex()
    '0a0c0a0a0a016112051a030a0101'
    """
    entries = b""
    for name, value in features.items():
        if isinstance(value, int):
            feature = field(3, field(1, varint(value)))
        else:
            feature = field(1, field(1, value))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def read_example(data: memoryview) -> dict[str, memoryview | int]:
    """Features of an example: the bytes, or the whole number, of each.

    Features of floating-point numbers and of several values are passed over.

    >>> read_example(memoryview(example({"a": 300})))
    {'a': 300}

    Raises:
      ValueError: it is damaged.
    """
    out: dict[str, memoryview | int] = {}
    for number, features in fields(data):
        for inner, entry in fields(part(features)) if number == 1 else ():
            if inner == 1:
                name, value = _entry(part(entry))
                if value is not None:
                    out[name] = value
                if len(out) > _MOST_FEATURES:
                    raise ValueError(f"more than {_MOST_FEATURES} features")
    return out


def _entry(data: memoryview) -> tuple[str, memoryview | int | None]:
    name, value = "", None
    for number, content in fields(data):
        if number == 1:
            name = bytes(part(content)[:200]).decode("utf-8", "replace")
        elif number == 2:
            value = _feature(part(content))
    return name, value


def _feature(data: memoryview) -> memoryview | int | None:
    for kind, values in fields(data):
        found = list(itertools.islice(fields(part(values)), 2)) if kind in (1, 3) else []
        if len(found) != 1 or found[0][0] != 1:
            continue
        content = found[0][1]
        if kind == 1:
            return part(content)
        if isinstance(content, int):
            return content
        value, end = read_varint(content, 0)
        return value if end == len(content) else None
    return None


# --- tensors ------------------------------------------------------------------------------------


def tensor(array: np.ndarray) -> bytes:
    """A serialised `TensorProto` of numbers.

    >>> tensor(np.zeros(1, np.uint8)).hex()
    '0804120412020801220100'
    """
    dtype = array.dtype.newbyteorder("<")
    codes = [code for code, known in DTYPES.items() if known == dtype]
    if not codes:
        raise ValueError(f"numbers of type {array.dtype}")
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    content = np.ascontiguousarray(array, dtype).tobytes()
    return field(1, codes[0]) + field(2, shape) + field(4, content)


def text_tensor(text: str) -> bytes:
    """A serialised `TensorProto` of one text.

    >>> text_tensor("k").hex()
    '0807120042016b'
    """
    return field(1, STRING) + field(2, b"") + field(8, text.encode())


def read_tensor(data: memoryview) -> np.ndarray | str:
    """A tensor of numbers, a view of its bytes; or a text.

    >>> read_tensor(memoryview(text_tensor("k"))), read_tensor(memoryview(tensor(np.ones(2))))
    ('k', array([1., 1.]))

    Raises:
      ValueError: it is damaged, of another type, or its size is not that of its shape.
    """
    code, shape, content, text = 0, (), memoryview(b""), ""
    for number, value in fields(data):
        if number == 1 and isinstance(value, int):
            code = value
        elif number == 2:
            shape = _shape(part(value))
        elif number == 4:
            content = part(value)
        elif number == 8:
            text = bytes(part(value)).decode("utf-8", "replace")
    if code == STRING:
        return text
    if code not in DTYPES:
        raise ValueError(f"numbers of the type with number {code}")
    size = DTYPES[code].itemsize
    for length in shape:
        size *= length
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes of a tensor of shape {shape}, which takes {size}")
    return np.frombuffer(content, DTYPES[code]).reshape(shape)


def _shape(data: memoryview) -> tuple[int, ...]:
    out = []
    for number, dim in fields(data):
        if number != 2:
            continue
        sizes = [size for inner, size in fields(part(dim)) if inner == 1]
        if len(sizes) != 1 or not isinstance(sizes[0], int) or sizes[0] >= 2**31:
            raise ValueError("a dimension without a size, or too large")
        out.append(sizes[0])
        if len(out) > _MOST_DIMENSIONS:
            raise ValueError(f"a tensor of more than {_MOST_DIMENSIONS} dimensions")
    return tuple(out)
