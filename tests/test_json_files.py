import json
import os
import time

import pytest

from jaxcore.errors import UserError
from jaxcore.json_files import MAX_BYTES, MAX_DEPTH, parse_json, read_json, read_json_lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 200_000, "nested more than 64 levels"),
        (b'{"a":' * 200_000, "nested more than 64 levels"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 levels"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"", "no JSON"),
        (b'{"a": 1', "no JSON"),
        (b"{'a': 1}", "no JSON"),
        (b"null", "null instead of an object with names"),
        (b"[1]", "a list instead of an object with names"),
        (b"3", "a number instead of"),
        (b'"x"', "a text instead of"),
        (b'{"a": NaN}', "a number that is not finite"),
        (b'{"a": [1e999]}', "a number that is not finite"),
        (b'{"a": 1' + b"0" * 400 + b"}", "beyond the range of floats"),
        (b'{"a": 1' + b"0" * 100_000 + b"}", "no JSON"),
        (b'{"a": 1, "\\u001b": 2, "\\u001b": 3}', r"the name '\\x1b' twice"),
        (b" " * MAX_BYTES + b"{}", "more than 16,777,216 bytes"),
    ],
)
def test_json_of_strangers_ends_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    began = time.process_time()
    with pytest.raises(UserError, match=message) as caught:
        read_json(path, what="settings")
    sentence = str(caught.value)
    assert sentence.startswith(f"Expected settings in {path}, found ")
    assert sentence.isprintable() and len(sentence) < 1000
    assert time.process_time() - began < 1


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"settings in .*none\.json, found no such file"):
        read_json(tmp_path / "none.json", what="settings")
    with pytest.raises(UserError, match="something other than a file"):
        read_json(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    with pytest.raises(UserError, match="something other than a file"):
        read_json(tmp_path / "pipe")


def test_whatever_is_within_the_bounds_is_read(tmp_path):
    nested = {"a": [1.5, -3, None, True, "ü"], "deep": []}
    inner = nested["deep"]
    for _ in range(MAX_DEPTH - 2):
        inner.append([])
        inner = inner[0]
    (tmp_path / "a.json").write_text(json.dumps(nested), encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == nested
    assert parse_json('{"best": -Infinity}', source="x", finite=False) == {"best": -float("inf")}
    assert parse_json("[1]", source="x", expect=(list, dict)) == [1]


def test_lines_are_read_up_to_a_torn_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step": 1}\n\n{"step": 2}\n{"step": 3, "\xff')
    assert list(read_json_lines(path, growing=True)) == [{"step": 1}, {"step": 2}]
    with pytest.raises(UserError, match=r"not UTF-8 in line 4\.$"):  # a file of data cut short
        list(read_json_lines(path))
    path.write_bytes(b'{"step": 1}\n{"step": \xff}\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"not UTF-8 in line 2\.$"):
        list(read_json_lines(path, growing=True))
    path.write_bytes(b'{"step": 1}\n' + b"[" * 3_000_000)
    with pytest.raises(UserError, match=r"more than 1,048,576 bytes in line 2\.$"):
        list(read_json_lines(path, growing=True))
