"""PyTorch files of nested dicts, as trainings save them, without PyTorch."""

import pickle
import struct
import zipfile

import numpy as np

_KINDS = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def _text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integers(values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def _tensor(array, storages):
    key = str(len(storages))
    storages[key] = array.tobytes()
    strides = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides]
    kind = _KINDS[array.dtype.name]
    reference = _text("storage") + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu")
    reference += b"J" + struct.pack("<i", array.size)
    view = b"K\0" + _integers(array.shape) + _integers(strides) + b"\x89" + b"ccollections\n"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + reference + b"tQ" + view + b"OrderedDict\n)RtR"
    )


def _object(value, storages):
    if isinstance(value, np.ndarray):
        return _tensor(value, storages)
    if type(value) is dict:
        pairs = b"".join(_text(key) + _object(part, storages) for key, part in value.items())
        return b"}(" + pairs + b"u"
    return pickle.dumps(value, 2)[2:-1]  # without its header and its end


def write_nested(path, tree):
    """Write nested dicts of arrays and anything else that pickles."""
    storages = {}
    content = b"\x80\x02" + _object(tree, storages) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
        archive.writestr("archive/version", "3\n")
