"""Only what is proved to be damaged is set aside, and nothing is deleted for it."""

import asyncio
import errno
import json
import os
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcore.errors import UserError
from jaxcore.train import Checkpointer, checkpoint, create_state
from jaxcore.train.steps import complete_steps


def _state(step):
    state = create_state({"w": jnp.full(4, 1.0 * step)}, optax.identity(), key=jax.random.key(0))
    return state.replace(step=jnp.array(step, jnp.int32))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1, 2 and 3, and what to restore them onto."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpointer(folder) as checkpointer:
        for step in (1, 2, 3):
            window = {"sums": {"loss": 2.5}, "counts": {"loss": 2}}
            checkpointer.save(
                _state(step),
                config={"a": [1, 0.1]},
                data_iter={"next": step},
                window=window,
                metrics={"psnr": 1.0 / step},
            )
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _state(0)
    )
    return folder, abstract


def content(folder):
    """Every file below a folder with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def _in_record(step, **fields):
    path = step / "loop" / "metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _older(step, **fields):
    """As it was written before records had checksums."""
    path = step / "loop" / "metadata"
    record = json.loads(path.read_text())
    for name in ("record_crc32", "config_crc32", "left"):
        record.pop(name, None)
    path.write_text(json.dumps({**record, **fields}))


def _replace(step, make):
    shutil.move(step, step.parent / "moved")
    make(step)


DAMAGE = {
    "another position": (lambda s: _in_record(s, data_iter={"next": 9}), "has changed since"),
    "no position": (lambda s: _in_record(s, data_iter=7), "has changed since"),
    "other means": (lambda s: _in_record(s, window=None), "has changed since"),
    "other metrics": (lambda s: _in_record(s, metrics={"psnr": 9.0}), "has changed since"),
    "other settings": (lambda s: (s / "config/metadata").write_text("{}"), "settings have changed"),
    "settings that are no JSON": (lambda s: (s / "config/metadata").write_text("{"), "no JSON"),
    "nothing in the record": (lambda s: (s / "loop/metadata").write_text("{}"), "has no "),
    "an older record half": (lambda s: _older(s, left=[]), "has no "),
    "a list for the record": (lambda s: (s / "loop/metadata").write_text("[]"), "a list"),
    "a deep record": (lambda s: (s / "loop/metadata").write_text("[" * 200_000), "nested"),
    "older, means of text": (
        lambda s: _older(s, window={"sums": {"loss": "x"}, "counts": {"loss": 2}}),
        "window in the record",
    ),
    "older, metrics a list": (lambda s: _older(s, metrics=[1]), "metrics in the record"),
    "no record": (lambda s: shutil.rmtree(s / "loop"), ""),
    "no state": (lambda s: shutil.rmtree(s / "state"), ""),
    "no parameters": (lambda s: shutil.rmtree(s / "params"), ""),
    "metadata of arrays": (lambda s: (s / "params/_METADATA").write_text("{"), ""),
    "an empty manifest": (lambda s: (s / "state/manifest.ocdbt").write_text(""), ""),
    "an empty folder": (lambda s: _replace(s, lambda p: p.mkdir()), ""),
    "a file": (lambda s: _replace(s, lambda p: p.write_text("3")), "something else than a folder"),
    "a symbolic link": (
        lambda s: _replace(s, lambda p: p.symlink_to(p.parent / "moved")),
        "something else than a folder",
    ),
    "a link to nothing": (
        lambda s: _replace(s, lambda p: p.symlink_to("nothing")),
        "something else than a folder",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_step_is_set_aside_by_its_name_alone(saved, tmp_path, case):
    damage, sentence = DAMAGE[case]
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved[0], folder)
    damage(folder / "3")
    before, heard = content(folder), []
    with Checkpointer(folder, warn=heard.append) as checkpointer:
        state, record = checkpointer.restore(saved[1])
        assert checkpointer.steps == [1, 2]
    assert int(state.step) == 2 and record["data_iter"] == {"next": 2}
    assert len(heard) == 1 and "set aside as 3.damaged" in heard[0] and sentence in heard[0]
    after = {name.replace("3.damaged", "3"): data for name, data in content(folder).items()}
    assert after == before and complete_steps(folder) == [1, 2]


def test_older_steps_without_these_checksums_are_read(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "checkpoints")
    _older(tmp_path / "checkpoints" / "3")
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        state, record = checkpointer.restore(saved[1])
    assert int(state.step) == 3 and record["data_iter"] == {"next": 3}


PASSING = {
    "memory": MemoryError("cannot allocate"),
    "disk": OSError(errno.EIO, os.strerror(errno.EIO)),
    "server": OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
    "time": TimeoutError("too late"),
    "cancelled": asyncio.CancelledError(),
    "array library": ValueError("UNKNOWN: Failed to read: Input/output error [os_error_code='5']"),
    "accelerator": RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_is_waited_for_and_proves_nothing(saved, tmp_path, monkeypatch, case):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved[0], folder)
    before, read, left, pauses = content(folder), checkpoint.read_record, [], []

    def fail(where):
        if where.name == "3" and left:
            left.pop()
            raise PASSING[case]
        return read(where)

    monkeypatch.setattr(checkpoint, "read_record", fail)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with Checkpointer(folder) as checkpointer:
        left[:] = [0, 0]
        assert int(checkpointer.restore(saved[1])[0].step) == 3
        left[:] = [0] * 99
        with pytest.raises(UserError, match=r"checkpoints/3 could not be read .*nothing was chang"):
            checkpointer.restore(saved[1])
    assert content(folder) == before and 0 < sum(pauses) < 10


def test_a_folder_that_is_only_read_is_left_as_it_is(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved[0], folder)
    (folder / "4.orbax-checkpoint-tmp").mkdir()
    (folder / "5").write_text("")
    _in_record(folder / "3", data_iter=0)
    before = content(folder)
    with Checkpointer(folder, read_only=True) as checkpointer:
        assert int(checkpointer.restore(saved[1])[0].step) == 2
    assert content(folder) == before


def test_multiples_stay_beside_the_newest_and_the_best(tmp_path):
    scores = {1: 1.0, 2: 9.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 1.0, 7: 1.0}
    options = {"keep_last": 1, "keep_every": 3, "best_metric": "psnr"}
    with Checkpointer(tmp_path, **options) as checkpointer:
        for step, score in scores.items():
            checkpointer.save(_state(step), config={}, metrics={"psnr": score})
    assert complete_steps(tmp_path) == [2, 3, 6, 7]


def test_the_record_of_a_step_can_be_written_anew(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "checkpoints")
    with Checkpointer(tmp_path / "checkpoints", best_metric="psnr") as checkpointer:
        assert checkpointer.best_step == 1
        checkpointer.save(_state(3), config={}, data_iter=[3], metrics={"psnr": 2.0})
        assert checkpointer.best_step == 3
        state, record = checkpointer.restore(saved[1])
    assert record["data_iter"] == [3] and record["metrics"] == {"psnr": 2.0}
    np.testing.assert_array_equal(state.params["w"], 3.0)
