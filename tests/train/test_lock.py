"""One run at a time in a run directory."""

import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading

import pytest
from plain_task import CFG, PlainTask, eventful

from jaxcore.errors import UserError
from jaxcore.train import fit, lock
from jaxcore.train.lock import LOCK, locked
from jaxcore.train.logging import Silent

_REFUSED = (
    rf"Expected a run directory that no other run uses, found .* in use "
    rf"\(host {socket.gethostname()}, process {os.getpid()}, since 20..-..-.. "
)


def test_a_second_run_in_the_same_directory_is_refused_and_the_first_goes_on(tmp_path):
    here, go = threading.Event(), threading.Event()

    def wait():
        here.set()
        go.wait(60)

    found = []
    first = threading.Thread(
        target=lambda: found.append(
            fit(eventful(wait, "data", 1), CFG, tmp_path, reporter=Silent())
        )
    )
    first.start()
    assert here.wait(60)
    before = sorted(tmp_path.rglob("*"))
    try:
        with pytest.raises(UserError, match=_REFUSED):
            fit(PlainTask(), CFG, tmp_path, reporter=Silent())
        assert sorted(tmp_path.rglob("*")) == before
    finally:
        go.set()
        first.join()
    assert int(found[0].state.step) == 6
    assert not (tmp_path / LOCK).exists()


def _without_flock(monkeypatch, code=errno.ENOTSUP):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock.fcntl, "flock", flock)


def test_where_the_file_system_has_no_lock_the_owner_that_is_written_down_counts(
    tmp_path, monkeypatch
):
    _without_flock(monkeypatch)
    with locked(tmp_path):
        with pytest.raises(UserError, match=_REFUSED + ".* if that process has ended, remove"):
            with locked(tmp_path):
                raise AssertionError
    assert not (tmp_path / LOCK).exists()


def test_another_host_is_believed_where_nothing_else_is_known(tmp_path, monkeypatch):
    owner = {"host": "elsewhere", "process": 1, "born": None, "since": 1.7e9}
    (tmp_path / LOCK).write_text(json.dumps(owner))
    with locked(tmp_path):  # the file system says that nobody holds it
        pass
    (tmp_path / LOCK).write_text(json.dumps(owner))
    _without_flock(monkeypatch)
    with pytest.raises(UserError, match=rf"host elsewhere, process 1, .* remove .*{LOCK}"):
        with locked(tmp_path):
            raise AssertionError


@pytest.mark.parametrize("content", ["", "[]", "{", '{"host": 1}', "\x00\xff"])
def test_a_lock_that_nobody_can_read_is_taken_over(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


@pytest.mark.parametrize("flock", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, monkeypatch, flock):
    """Also where a child of it is left, which has the open file."""
    if not flock:
        _without_flock(monkeypatch)
    script = f"""
        import os, signal, subprocess, sys, time
        from pathlib import Path
        from jaxcore.train.lock import locked
        with locked(Path({str(tmp_path)!r})):
            child = os.fork()
            if child == 0:
                os.close(1), os.close(2)
                time.sleep(60)
                os._exit(0)
            print(child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    child = int(done.stdout)
    try:
        assert json.loads((tmp_path / LOCK).read_text())["process"] > 0
        with locked(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    finally:
        os.kill(child, 9)
    assert not (tmp_path / LOCK).exists()


def test_who_has_the_lock_removes_what_killed_writers_have_left(tmp_path):
    names = (".metrics.jsonl.0123abcd.tmp", "samples/.step_0000006_a.png.0123abcd.tmp")
    kept = ("metrics.jsonl", "notes.tmp", "samples/step_0000006_a.png")
    (tmp_path / "samples").mkdir()
    for name in (*names, *kept):
        (tmp_path / name).touch()
    with locked(tmp_path):
        found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {LOCK, *kept}
