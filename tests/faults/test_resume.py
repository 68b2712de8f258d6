"""A run that was stopped, killed or damaged goes on as if nothing had happened, or says why not."""

import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.train import (
    Checkpointer,
    EMAConfig,
    OptimConfig,
    TrainConfig,
    create_state,
    fit,
    load_params,
    make_optimiser,
)
from jaxcore.train.logging import Silent
from jaxcore.train.records import read_metrics_file

_TASK = TinyTask(hidden=500)  # arrays large enough for files of their own
_CFG = TrainConfig(
    steps=12,
    optim=OptimConfig(learning_rate=1e-2),
    ema=EMAConfig(decay=0.9),
    log_every=3,
    save_every=4,
    tensorboard=False,
    prefetch=0,  # what happens before a batch is read shall happen between its step and the last
)


class _Watched(TinyTask):
    """Calls ``event`` before batch number ``at`` is read (counted from 0 over the whole run)."""

    at: int = -1

    @staticmethod
    def event() -> None: ...

    def batches(self, seed, start_step):
        inner, task = super().batches(seed, start_step), self

        class Stream:
            number = start_step

            def __next__(self):
                if self.number == task.at:
                    task.event()
                self.number += 1
                return next(inner)

            def get_state(self):
                return inner.get_state()

            def set_state(self, state):
                inner.set_state(state)

        return Stream()


def _watched(number, action):
    return type("_Event", (_Watched,), {"at": number, "event": staticmethod(action)})(hidden=500)


def _same(a, b):
    """Equal to the last bit: parameters, moments, average, counters and key."""
    a, b = (dataclasses.replace(s, rng=jax.random.key_data(s.rng)) for s in (a, b))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _records(run_dir):
    clocks = ("items_per_second", "seconds_left")
    records = read_metrics_file(run_dir / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k not in clocks} for record in records]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    where = tmp_path_factory.mktemp("straight") / "run"
    return where, fit(_TASK, _CFG, where, reporter=Silent()).state


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_resumed_run_is_the_same_to_the_last_bit(straight, tmp_path, number):
    """The stop falls between two records and two checkpoints."""
    before = signal.getsignal(number)
    task = _watched(4, lambda: os.kill(os.getpid(), number))
    result = fit(task, _CFG, tmp_path / "run", reporter=Silent())
    assert result.interrupted and int(result.state.step) == 5
    assert signal.getsignal(number) is before
    result = fit(_TASK, _CFG, tmp_path / "run", resume=True, reporter=Silent())
    assert not result.interrupted
    _same(result.state, straight[1])
    assert _records(tmp_path / "run") == _records(straight[0])


@pytest.mark.newest
def test_a_killed_run_goes_on_from_its_last_save_to_the_same_last_bit(straight, tmp_path):
    run_dir = tmp_path / "run"
    script = textwrap.dedent(
        f"""
        import os, signal
        import test_resume as here
        from jaxcore.train.logging import Silent
        task = here._watched(9, lambda: os.kill(os.getpid(), signal.SIGKILL))
        here.fit(task, here._CFG, {str(run_dir)!r}, reporter=Silent())
        """
    )
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests.parent), str(tests), str(tests / "faults")])
    done = subprocess.run(
        [sys.executable, "-c", "import conftest\n" + script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # a torn line, as a kill may leave
    result = fit(_TASK, _CFG, run_dir, resume=True, reporter=Silent())
    _same(result.state, straight[1])
    assert _records(run_dir) == _records(straight[0])


def _damage(folder, how):
    arrays = folder.glob("ocdbt.process_0/d/*")
    biggest = max(arrays, key=lambda p: p.stat().st_size)
    data = bytearray(biggest.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0xFF
    biggest.write_bytes(bytes(data))


class _Heard(Silent):
    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


@pytest.mark.parametrize("how", ["truncated", "one byte flipped"])
@pytest.mark.parametrize("item", ["params", "state"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(straight, tmp_path, how, item):
    run_dir = tmp_path / "run"
    shutil.copytree(straight[0], run_dir)
    _damage(run_dir / "checkpoints" / "12" / item, how)
    heard = _Heard()
    if item == "params":
        with pytest.raises(UserError, match=r"found a damaged one .* has the steps 4, 8, 12"):
            load_params(run_dir, "last", ema=False)
    result = fit(_TASK, _CFG, run_dir, reporter=heard)
    assert "12 is damaged" in heard.messages[0] and "at step 8" in heard.messages[1]
    _same(result.state, straight[1])
    assert _records(run_dir) == _records(straight[0])


def test_when_all_checkpoints_are_damaged_it_says_so(straight, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(straight[0], run_dir)
    for step in (4, 8, 12):
        _damage(run_dir / "checkpoints" / str(step) / "params", "truncated")
    with pytest.raises(UserError, match=r"Expected a whole checkpoint in .*only damaged ones: 12"):
        fit(_TASK, _CFG, run_dir, reporter=Silent())


def test_a_half_written_checkpoint_does_not_count_and_is_cleared_away(straight, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(straight[0], run_dir)
    half = run_dir / "checkpoints" / "16.orbax-checkpoint-tmp"
    shutil.move(run_dir / "checkpoints" / "12", half)
    load_params(run_dir, "last")
    assert int(fit(_TASK, _CFG, run_dir, reporter=Silent()).state.step) == 12
    assert not half.exists()


def test_a_full_disk_ends_in_one_sentence_and_leaves_the_older_checkpoints(tmp_path):
    """A limit on the size of files stands for a full disk: writes fail in the same places."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk():
        while not (tmp_path / "run" / "checkpoints" / "4").exists():
            time.sleep(0.01)  # the save before is still being written
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))

    task = dataclasses.replace(_watched(5, fill_the_disk), hidden=20_000)
    try:
        with pytest.raises(UserError, match=r"No space is left to write .*checkpoints/8"):
            fit(task, _CFG, tmp_path / "run", reporter=Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    load_params(tmp_path / "run", 4)
    with pytest.raises(UserError, match="found 4"):
        load_params(tmp_path / "run", 8)
    result = fit(TinyTask(hidden=20_000), _CFG, tmp_path / "run", reporter=Silent())
    assert int(result.state.step) == 12


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for place in (Path("/sys/run"), in_the_way, in_the_way / "run"):  # nobody may write to /sys
        with pytest.raises(UserError, match=f"Expected a folder that can be written, .*{place}"):
            fit(_TASK, _CFG, place, reporter=Silent())


def test_what_is_not_a_run_directory_is_named(tmp_path):
    with pytest.raises(UserError, match="Expected a run directory with checkpoints"):
        load_params(tmp_path / "nothing")
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Expected a run directory with config\.json"):
        fit(_TASK, _CFG, tmp_path, reporter=Silent())


def test_a_foreign_checkpoint_is_named_leaf_by_leaf(straight, tmp_path):
    other = jax.eval_shape(TinyTask(hidden=5).init_params, jax.random.key(0))
    with pytest.raises(UserError) as caught:
        load_params(straight[0], expected=other)
    text = str(caught.value)
    assert "first/kernel expected (6, 5), found (6, 500)" in text
    assert "second/kernel expected (5, 2), found (500, 2)" in text
    with pytest.raises(UserError, match=r"alien expected \(3,\), found nothing"):
        load_params(straight[0], expected={"alien": jnp.ones(3)})

    tx = make_optimiser(_CFG.optim, 12)
    state = jax.eval_shape(
        lambda: create_state({"alien": jnp.ones(3)}, tx, key=jax.random.key(0), ema=True)
    )
    folder = tmp_path / "checkpoints"
    shutil.copytree(straight[0] / "checkpoints", folder)
    with (
        Checkpointer(folder) as checkpointer,
        pytest.raises(UserError, match="does not fit this network"),
    ):
        checkpointer.restore(state)
