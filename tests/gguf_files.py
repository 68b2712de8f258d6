"""Small GGUF files, written from the description of the format."""

import struct

import numpy as np

SETTINGS = {
    "general.architecture": "llama",
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "a.float": 0.5,
    "a.flag": True,
    "some.texts": ["<s>", "ä", ""],
    "some.numbers": np.array([3, 1, 1], np.int32),
}


def blocks(kind, rng, shape):
    """Bytes of random blocks, and the numbers they stand for, one by one."""
    count = int(np.prod(shape)) // 32
    packed, numbers = b"", []
    for _ in range(count):
        d, m = rng.normal(size=2).astype(np.float16)
        codes = rng.integers(0, 256, 32 if kind == 8 else 16, np.uint8)
        if kind == 8:
            q, m = codes.view(np.int8).astype(np.float32), 0
        else:
            q = np.array([c & 15 for c in codes] + [c >> 4 for c in codes], np.float32)
            q, m = (q - 8, 0) if kind == 2 else (q, m)
        packed += d.tobytes() + (m.tobytes() if kind == 3 else b"") + codes.tobytes()
        numbers += [np.float32(d) * x + np.float32(m) for x in q]
    return packed, np.array(numbers, np.float32).reshape(shape)


def plain(kind, values):
    """Bytes of numbers of type 0 (float32), 1 (float16) or 30 (bfloat16)."""
    if kind == 30:
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype(np.float16 if kind else np.float32).tobytes()


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def setting(value):
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    assert value.dtype == np.int32
    return struct.pack("<IIQ", 9, 5, len(value)) + value.tobytes()


def gguf_bytes(tensors, settings, *, version=3, alignment=32):
    """A whole file of tensors: name -> (type, shape in PyTorch's order, bytes)."""
    if alignment != 32:
        settings = {**settings, "general.alignment": alignment}
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(settings))
    for name, value in settings.items():
        out += text(name) + setting(value)
    data = b""
    for name, (kind, shape, content) in tensors.items():
        data += bytes(-len(data) % alignment)
        out += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        out += struct.pack("<IQ", kind, len(data))
        data += content
    return out + bytes(-len(out) % alignment) + data


def small_tensors():
    """A tensor of every type that is read; the file's, and their numbers."""
    rng = np.random.default_rng(0)
    tensors, numbers = {}, {}
    for kind, shape in ((2, (2, 64)), (3, (4, 32)), (8, (2, 3, 32))):
        packed, values = blocks(kind, rng, shape)
        tensors[f"t{kind}"], numbers[f"t{kind}"] = (kind, shape, packed), values
    for kind in (0, 1, 30):
        values = rng.integers(-8, 8, (3, 5)) / np.float32(4)
        tensors[f"t{kind}"] = (kind, (3, 5), plain(kind, values))
        numbers[f"t{kind}"] = values
    return tensors, numbers


def write_gguf(path):
    path.write_bytes(gguf_bytes(small_tensors()[0], SETTINGS))
