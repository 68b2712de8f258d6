"""The folder ``checkpoints`` of a run: its steps, and the record of the loop in each.

The item ``loop`` of a step is one JSON object: ``data_iter`` (position in the data), ``window``
(running means), ``metrics`` (evaluation after this step), ``left`` (what was due after this step
and is still to be done), and the checksums of all parts: ``crc32`` (arrays), ``config_crc32`` and
``record_crc32`` (the object itself without this field). Older steps have not all of these fields.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxcore.atomic import whole_file
from jaxcore.errors import UserError
from jaxcore.json_files import parse_json
from jaxcore.places import is_remote, remove_folder
from jaxcore.train.integrity import Damaged, read_surely

CHECKPOINTS = "checkpoints"
_COMMITTED = "commit_success.txt"  # Orbax ends a checkpoint in a bucket with it
_MAX_RECORD = 2**28  # bytes; one checksum for every part of 10,000 arrays on 500 devices
_OWN_SUM, _CONFIG_SUM = "record_crc32", "config_crc32"
_LATER = {"left", _OWN_SUM, _CONFIG_SUM}  # older steps have none of these
_FIELDS = {"data_iter", "metrics", *_LATER}


def _is_step(path: Path) -> bool:
    return path.name.isdecimal() and path.name == str(int(path.name))


def complete_steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints in a ``checkpoints`` folder, ascending."""
    if not directory.is_dir():
        return []
    named = (p for p in directory.iterdir() if _is_step(p) and p.is_dir())
    whole = (
        p for p in named if ((p / _COMMITTED).exists() if is_remote(p) else not p.is_symlink())
    )
    return sorted(int(p.name) for p in whole)


def strangers(directory: Path) -> list[Path]:
    """What has the name of a step and is something else: a file, a symbolic link."""
    if is_remote(directory) or not directory.is_dir():  # in a bucket: of a save that was cut off
        return []
    steps = {str(step) for step in complete_steps(directory)}
    return sorted(p for p in directory.iterdir() if _is_step(p) and p.name not in steps)


def clear_left_overs(directory: Path) -> None:
    """Remove what saves that were cut off have left; by one process, since all share the folder."""
    if jax.process_index() == 0:
        for half in directory.glob("*.orbax-checkpoint-tmp*"):
            remove_folder(half)


def set_aside(path: Path) -> Path:
    """Rename a damaged step, so that it is no step any more and nothing of it is lost.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for _ in range(2):
    ...         (Path(folder) / "12").mkdir()
    ...         print(set_aside(Path(folder) / "12").name)
    12.damaged
    12.damaged.2
    """
    new, number = path.with_name(f"{path.name}.damaged"), 2
    while new.exists() or os.path.lexists(new):
        new, number = path.with_name(f"{path.name}.damaged.{number}"), number + 1
    path.rename(new)
    return new


def make_record(
    config: Mapping[str, Any], crc32: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a new step, as JSON reads it back, with its checksums."""
    plain = json.loads(json.dumps(config))
    return _sealed({**fields, "crc32": crc32, _CONFIG_SUM: _crc(plain)})


def amend_record(step_directory: Path, fields: Mapping[str, Any]) -> None:
    """Put other fields into the record of a step, at once."""
    record = {**read_record(step_directory), **fields}
    with whole_file(_record_file(step_directory), overwrite=True) as temporary:
        temporary.write_text(json.dumps(_sealed(record)))


def read_record(step_directory: Path) -> dict[str, Any]:
    """The record of a step.

    Raises:
      Damaged: it is not what was written.
      OSError: it cannot be read.
    """
    record = _read(_record_file(step_directory))
    missing = {name for name in _FIELDS if name not in record}
    if missing - _LATER or (missing and missing != _LATER):
        raise Damaged(f"the record of the loop has no {min(missing)}")
    if not missing and _crc(_without_sum(record)) != record[_OWN_SUM]:
        raise Damaged("the record of the loop has changed since it was written")
    _check(record)
    return record


def check_config(step_directory: Path, record: Mapping[str, Any]) -> None:
    """Compare the settings stored with a step with their checksum.

    Raises:
      Damaged: they are not what was written.
      OSError: they cannot be read.
    """
    if _CONFIG_SUM in record:
        if _crc(_read(step_directory / "config" / "metadata")) != record[_CONFIG_SUM]:
            raise Damaged("the settings have changed since they were written")


def read_metrics(step_directory: Path) -> dict[str, Any]:
    """Evaluation stored with one step; empty when there is none or it is damaged.

    Raises:
      UserError: it cannot be read now, so that nobody knows which step is the best.
    """
    what = f"The checkpoint {step_directory}"
    try:
        return read_surely(lambda: read_record(step_directory), what=what).get("metrics") or {}
    except Damaged:
        return {}


def _record_file(step_directory: Path) -> Path:
    return step_directory / "loop" / "metadata"


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content = file.read(_MAX_RECORD + 1)
    try:
        return parse_json(content, source="an object", max_bytes=_MAX_RECORD, finite=False)
    except UserError as error:
        raise Damaged(f"{path.parent.name}: {error}".removesuffix(".")) from None


def _check(record: Mapping[str, Any]) -> None:
    """Refuse a record of an older step in which something is not what a loop would have written."""
    window = record.get("window") or {}
    number, count = int | float, int
    fits = {
        "metrics": _maps_to(record.get("metrics") or {}, number | None),
        "window": isinstance(window, dict)
        and _maps_to(window.get("sums", {}), number)
        and _maps_to(window.get("counts", {}), count)
        and window.get("sums", {}).keys() == window.get("counts", {}).keys(),
        "crc32": _maps_to(record.get("crc32", {}), dict),
        "left": isinstance(record.get("left", []), list),
    }
    for name, good in fits.items():
        if not good:
            raise Damaged(f"{name} in the record of the loop is not what a loop writes")


def _maps_to(value: Any, kinds: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(v, kinds) and not isinstance(v, bool) for v in value.values()
    )


def _sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(_without_sum(record)))
    return {**plain, _OWN_SUM: _crc(plain)}


def _without_sum(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != _OWN_SUM}


def _crc(value: Any) -> int:
    """CRC-32 of JSON, whatever the order of its names."""
    return zlib.crc32(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
