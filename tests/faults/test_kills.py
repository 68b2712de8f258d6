"""Killed at any time, a run goes on to the same last bit: a few kills by default, 50 on demand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def _kill(name, kills):
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    command = [sys.executable, str(tests / "faults" / "kills.py"), name, str(kills)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills and found["equal"] == found["ends"] > 0, found


def test_five_kills_at_random_times_change_nothing():
    _kill("toy", 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kills"), [("toy", 20), ("restoration", 10), ("diffusion", 10), ("study", 10)]
)
def test_fifty_kills_over_all_tasks_change_nothing(name, kills):
    _kill(name, kills)
