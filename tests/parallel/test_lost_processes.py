"""A process of a job dies: the others end soon, with one sentence, and the run can go on."""

import re
import time

import jax
import numpy as np
import pytest

from jaxcore.parallel import EXIT_PROCESS_GONE
from jaxcore.train import load_params
from tests.parallel.jobs import TOGETHER, Job, outcomes

_ABORT = ("terminate called", "what():")


def _sums(line):
    return [float(word) for word in line.split()[2:]]


def _check_survivors(job, victim, began):
    results = job.results(timeout=60)
    assert time.monotonic() - began < 30
    for index, (code, _, err) in enumerate(results):
        if index != victim:
            assert code == EXIT_PROCESS_GONE, err
            *before, last = err.splitlines()
            assert re.match(f"jaxcore: process {victim} of {len(results)} is gone, .*go on", last)
            # Gloo may have begun to abort, with two lines of its own.
            assert all(line.strip().startswith(_ABORT) for line in before if line.strip()), err


def _kill(job, victim, line):
    job.await_line(line)
    if line == "COMPILING":
        time.sleep(1)
    began = time.monotonic()
    job.processes[victim].kill()
    _check_survivors(job, victim, began)


def test_the_other_process_ends_with_a_sentence():
    with Job(2, script=TOGETHER) as job:
        _kill(job, 1, "STEP 5")


def test_an_abort_waits_for_the_news_that_explains_it():
    with Job(2, script=TOGETHER, ABORT_AT="5") as job:
        job.await_line("STEP 4")
        began = time.monotonic()
        job.processes[0].kill()
        _check_survivors(job, 0, began)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["STEP 5", "COMPILING"])
@pytest.mark.parametrize(("count", "victim"), [(2, 0), (2, 1), (4, 0), (4, 3)])
def test_any_process_at_any_moment(tmp_path, count, victim, moment):
    straight = outcomes(count, tmp_path / "straight")
    extra = {"LAYERS": "1500"} if moment == "COMPILING" else {"PACE": "0.1"}
    with Job(count, tmp_path / "run", **extra) as job:
        _kill(job, victim, moment)
    if moment == "COMPILING":  # nothing is saved yet
        assert outcomes(count, tmp_path / "run") == straight
        return
    for other in (1, 2 if count == 4 else 4):
        with Job(count, tmp_path / str(other), **extra) as job:
            _kill(job, victim, moment)
        np.testing.assert_allclose(
            _sums(outcomes(other, tmp_path / str(other))[0]), _sums(straight[0]), rtol=1e-5
        )
    assert outcomes(count, tmp_path / "run") == straight  # to the last bit
    sums = [float(x.sum()) for x in jax.tree.leaves(load_params(tmp_path / "run"))]
    np.testing.assert_allclose(sums, _sums(straight[0]), rtol=1e-6)


@pytest.mark.slow
def test_an_exception_in_one_process_ends_all(tmp_path):
    with Job(2, tmp_path / "run", FAIL_AT="7") as job:
        job.await_line("STEP 6")
        began = time.monotonic()
        results = job.results(timeout=60)
    assert time.monotonic() - began < 30
    assert [code for code, *_ in results] == [EXIT_PROCESS_GONE, 1]
    assert "the data are gone" in results[1][2]
    assert len(results[0][2].splitlines()) == 1
    assert outcomes(2, tmp_path / "run")[0].startswith("DONE 40")


@pytest.mark.slow
def test_who_is_slow_paused_or_first_to_leave_is_not_taken_for_dead(tmp_path):
    with Job(2, tmp_path / "run", LAYERS="1500", STEPS="8") as job:
        job.await_line("COMPILING")
        job.processes[1].send_signal(19)  # SIGSTOP
        time.sleep(35)
        job.processes[1].send_signal(18)  # SIGCONT
        results = job.results()
    assert [code for code, *_ in results] == [0, 0], results
