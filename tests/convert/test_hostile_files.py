"""Files made to harm: nothing in them may run, and each is refused in one sentence."""

import builtins
import os
import pickle
import struct
import subprocess
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.convert import pickled, read_state_dict
from jaxcore.convert.rebuild import Opaque, Refused
from jaxcore.errors import UserError


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def ints(*values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key="0", numel=4, kind=b"ctorch\nFloatStorage\n"):
    return b"(" + text("storage") + kind + text(key) + text("cpu") + integer(numel) + b"tQ"


def tensor(offset=0, size=(4,), stride=(1,), **options):
    view = integer(offset) + ints(*size) + ints(*stride) + b"\x89" + b"}"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(**options) + view + b"tR"


def entry(value):
    """A state dict with one entry."""
    return b"\x80\x02}" + text("w") + value + b"s."


def archive(path, content, storages=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("a/data.pkl", content)
        for key, value in (storages or {"0": np.arange(4, dtype="<f4").tobytes()}).items():
            out.writestr(f"a/data/{key}", value)
    return path


@pytest.fixture
def no_calls(monkeypatch):
    """Fail the test at once if anything dangerous is called."""

    def forbidden(*args, **options):
        raise AssertionError("code of the file was run")

    for module, name in ((os, "system"), (subprocess, "Popen"), (builtins, "exec")):
        monkeypatch.setattr(module, name, forbidden)
    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, forbidden)


def test_the_helpers_write_readable_files(tmp_path):
    state = read_state_dict(archive(tmp_path / "a.pt", entry(tensor(1, (3,)))))
    np.testing.assert_array_equal(state.tensors["w"], [1, 2, 3])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"cos\nsystem\n" + text("ls") + b"\x85R", "os.system"),
        (b"cposix\nsystem\n" + text("ls") + b"\x85R", "posix.system"),
        (b"cnt\nsystem\n" + text("ls") + b"\x85R", "nt.system"),
        (b"c__builtin__\neval\n" + text("1") + b"\x85R", "builtins.eval"),
        (b"cbuiltins\nexec\n" + text("1") + b"\x85R", "builtins.exec"),
        (b"cbuiltins\ngetattr\n", "builtins.getattr"),
        (b"cbuiltins\n__import__\n", "builtins.__import__"),
        (b"csubprocess\nPopen\n" + text("ls") + b"\x85\x81", "subprocess.Popen"),
        (b"cfunctools\npartial\n", "functools.partial"),
        (b"coperator\nattrgetter\n", "operator.attrgetter"),
        (b"ctypes\nFunctionType\n", "types.FunctionType"),
        (b"cpickle\nloads\n", "pickle.loads"),
        (b"cimportlib.machinery\nSourceFileLoader\n", "SourceFileLoader"),
        (b"cwebbrowser\nopen\n", "webbrowser.open"),
        # Attributes of harmless names, by text and by the dotted names of protocol 4.
        (b"ccollections\nOrderedDict.__init__\n", "OrderedDict.__init__"),
        (text("builtins") + text("dict.__subclasses__") + b"\x93", "dict.__subclasses__"),
        (text("os") + text("system") + b"\x93", "os.system"),
        (integer(1) + text("system") + b"\x93", "something other than text"),
        # Functions outside the standard library.
        (b"ctorch.hub\nload\n" + text("x") + b"\x85R", "function torch.hub.load"),
        (b"cnumpy.testing\nrunstring\n)R", "function numpy.testing.runstring"),
        (b"ctorch\nload\n" + text("x") + b"\x85R", "function torch.load"),
        # Other ways to run or fetch something.
        (b"(ios\nsystem\n", "INST"),
        (b"(cargparse\nNamespace\no", "OBJ"),
        (b"\x82\x01", "EXT1"),
        (b"\x97", "NEXT_BUFFER"),
        (b"Pname\n", "PERSID"),
        (b"\x8b\x01\0\0\0\x01", "LONG4"),
        (text("f") + b")R", "not a name"),
        (b"}}b", None),
        (b"K\x01}b", "attributes of a plain value"),
        (text("storage") + b"\x85Q", "other than a tensor's storage"),
    ],
)
def test_hostile_pickles(tmp_path, no_calls, payload, message):
    path = archive(tmp_path / "hostile.pt", entry(payload))
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(path)
    assert "hostile.pt" in str(caught.value)


def test_hostile_pickles_in_the_older_format(tmp_path, no_calls):
    path = tmp_path / "hostile.pth"
    path.write_bytes(b"\x80\x02cos\nsystem\n" + text("ls") + b"\x85R.")
    with pytest.raises(UserError, match=r"asks for os\.system"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        # Nesting beyond recursion, as a value and as a key (hashing recurses in C).
        (b")" + b"\x85" * 300_000, "no named tensors"),
        (b"}" + b")" + b"\x85" * 300_000 + b"K\x01s", "container as a dictionary key"),
        # Memo tricks: a list in itself, an entry that is not there, a dict that doubles.
        (b"]q\x01h\x01a", "no named tensors"),
        (b"h\x07", "damaged"),
        (b"]q\x01" + b"0(h\x01h\x01lq\x01" * 200, "no named tensors"),
        (b"}]K\x01s", "container as a dictionary key"),
        # Bytes and opcodes that are not there.
        (b"\x8e" + struct.pack("<Q", 2**60), "damaged or cut off"),
        (b"0000", "damaged"),
        (b"t", "damaged"),
        (b"(K\x01u", "damaged"),
    ],
)
def test_pickles_made_to_exhaust(tmp_path, payload, message):
    path = archive(tmp_path / "bomb.pt", entry(payload))
    with pytest.raises(UserError, match=message):
        read_state_dict(path)


def legacy(*pickles):
    magic = b"\x8a\x0a" + bytes.fromhex("6cfc9c46f9206aa85019")
    parts = (b"\x80\x02" + part + b"." for part in (magic, b"M\xe9\x03", b"}", *pickles))
    return b"".join(parts)


def nested(levels):
    """A list that holds the one before twice, and so on: 2**levels parts when written out."""
    return b"]q\x00" + b"0(h\x00h\x00lq\x00" * levels


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (legacy(b"}", nested(40)), "list of storages is damaged"),  # the keys
        (legacy(b"}", b"(" + nested(40) + b"l"), "list of storages is damaged"),
        (legacy(b"}", b"(" + b"]" * 100_000 + b"a" * 99_999 + b"l"), "list of storages is damaged"),
        (legacy(nested(40), b"]"), "no named tensors"),  # the object
        (nested(40) + b".", "not one of PyTorch"),
        (b"c__builtin__\ndict\n" + nested(40) + b"\x85R.", "container as a dictionary key"),
    ],
)
def test_what_refers_to_itself_at_every_level_takes_no_time(tmp_path, payload, message):
    path = tmp_path / "bomb.pth"
    path.write_bytes(payload if payload[:1] == b"\x80" else b"\x80\x02" + payload)
    began = time.process_time()
    with pytest.raises(UserError, match=message):
        read_state_dict(path)
    assert time.process_time() - began < 5


def test_a_name_that_holds_such_an_object_is_not_written_out(tmp_path):
    key = b"cmy.own\nThing\n" + nested(40) + b"\x85\x81"
    path = archive(tmp_path / "key.pt", b"\x80\x02}" + key + b"K\x01s.")
    with pytest.raises(UserError, match=r"no 'net' in the file: .* it has Opaque") as caught:
        read_state_dict(path, at="net")
    assert len(str(caught.value)) < 500


def test_long_names_that_are_repeated_by_reference_are_not_joined(tmp_path):
    """1,000 sets of weights, each eight names of 60,000 characters deep."""
    long = b"X" + struct.pack("<I", 60_000) + b"x" * 60_000 + b"q\x07"
    level, deep = b"", b"}" + text("w") + tensor() + b"s"
    for _ in range(7):
        deep = b"}h\x07" + deep + b"s"
    for i in range(1000):
        level += text(str(i)) + deep
    path = archive(tmp_path / "a.pt", b"\x80\x02" + long + b"0}(" + level + b"u.")
    tracemalloc.start()
    with pytest.raises(UserError, match="1000 sets of weights"):
        read_state_dict(path)
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def test_long_names_are_no_keys(tmp_path):
    name = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
    path = archive(tmp_path / "a.pt", b"\x80\x02}" + name + b"K\x01s.")
    with pytest.raises(UserError, match="more than 65536 characters"):
        read_state_dict(path)


def test_messages_cannot_carry_control_characters(tmp_path):
    path = archive(tmp_path / "t.pt", entry(b"cos\n\x1b[2Jsystem" + b"x" * 10_000 + b"\n"))
    with pytest.raises(UserError, match=r"asks for os\.\\x1b\[2Jsystem") as caught:
        read_state_dict(path)
    assert len(str(caught.value)) < 500


def test_copying_is_limited():
    long = b"c_codecs\nencode\nq\x01" + text("x" * 1_000_000) + text("latin1") + b"\x86q\x02"
    again = b"h\x01h\x02R"
    with pytest.raises(Refused, match="more than weights need"):
        pickled.load(b"\x80\x02(" + long + again * 100 + b"t.", lambda _: None)


def test_length_is_limited(monkeypatch):
    monkeypatch.setattr(pickled, "_MAX_OPCODES", 100)
    with pytest.raises(Refused, match="longer than 100"):
        pickled.load(b"\x80\x02" + b"N0" * 100 + b"N.", lambda _: None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(size=(5,)), "beyond its storage"),
        (tensor(offset=1), "beyond its storage"),
        (tensor(offset=-1), "negative"),
        (tensor(offset=2**70, size=(0,)), "beyond its storage"),
        (tensor(size=(2**2000,) * 30, stride=(0,) * 30), "beyond its storage"),
        (tensor(size=(4,), stride=(2**2000,)), "beyond its storage"),
        (tensor(size=(2**62,) * 30, stride=(0,) * 30), "far more than the file"),
        (tensor(numel=2**2000), "impossible storage"),
        (tensor(stride=(-1,)), "negative"),
        (tensor(size=(-4,)), "negative"),
        (tensor(stride=(2**62,)), "beyond its storage"),
        (tensor(size=(2, 2)), "impossible shape"),
        (tensor(size=(0, 2**62, 2**62), stride=(1, 1, 1)), "impossible shape"),
        (tensor(size=(1,) * 40, stride=(1,) * 40), "impossible shape"),
        (tensor(size=(2**40,), stride=(0,)), "far more than the file"),
        (tensor(size=(2**40, 2**40), stride=(0, 0)), "far more than the file"),
        (tensor(numel=2**50, size=(2**50,)), "far more than the file"),
        (tensor(numel=8, size=(8,)), "16 bytes instead of 32"),
        (tensor(numel=-1), "impossible storage"),
        (tensor(key="../../secret"), "is absent"),
        (tensor(key="/etc/passwd"), "is absent"),
        (tensor(kind=b"cos\nFloatStorage\n"), "asks for os.FloatStorage"),
        (tensor(kind=b"cother\nFloatStorage\n"), "impossible storage"),
        (tensor(kind=b"ctorch\nQInt8Storage\n"), "QInt8Storage"),
        (tensor(kind=b"ctorch.storage\nUntypedStorage\n"), "no dtype"),
    ],
)
def test_tensors_outside_their_storage(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        read_state_dict(archive(tmp_path / "t.pt", entry(value)))


def test_compressed_archives_are_refused(tmp_path):
    zeros = {"0": bytes(10_000_000)}
    value = tensor(numel=2_500_000, size=(2_500_000,))
    path = archive(tmp_path / "bomb.pt", entry(value), zeros, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_ambiguous_archives_are_refused(tmp_path):
    path = archive(tmp_path / "twice.pt", entry(tensor()))
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("a/data.pkl", entry(tensor()))
    with pytest.raises(UserError, match="twice"):
        read_state_dict(path)


def test_names_that_leave_the_folder_touch_nothing(tmp_path):
    path = archive(tmp_path / "t.pt", entry(tensor(key="../../evil")), {"../../evil": bytes(16)})
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(read_state_dict(path).tensors["w"], np.zeros(4))
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_classes_stay_records(tmp_path):
    """Arguments of a training script must not make its weights unreadable."""
    made = b"cmy.project\nOptions\n" + text("x") + b"\x85\x81}" + text("lr") + b"K\x01sb"
    content = b"\x80\x02}(" + text("args") + made + text("net") + entry(tensor())[2:-1] + b"u."
    assert read_state_dict(archive(tmp_path / "t.pt", content)).where == "net"
    record = pickled.load(b"\x80\x02" + made + b".", lambda _: None)
    assert isinstance(record, Opaque)
    assert (str(record.symbol), record.args, record.state) == (
        "my.project.Options",
        ("x",),
        {"lr": 1},
    )


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=4)
        | st.sets(st.integers(0, 9), max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(value=PLAIN, protocol=st.integers(2, 5))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    assert pickled.load(pickle.dumps(value, protocol), lambda _: None) == value


@settings(deadline=None, max_examples=200)
@given(noise=st.binary(max_size=60))
def test_noise_is_refused_or_harmless(noise):
    try:
        pickled.load(b"\x80\x02" + noise + b".", lambda _: None)
    except Refused:
        pass
