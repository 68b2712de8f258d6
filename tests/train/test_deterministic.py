"""The flag for a GPU that gives the same bits again: what can be seen of it without one."""

import os
import subprocess
import sys

import jax
import pytest
from tiny_task import TinyTask

from jaxcore.errors import UserError
from jaxcore.train import TrainConfig, fit
from jaxcore.train.deterministic import ask_for_determinism, check_determinism
from jaxcore.train.logging import Silent

_FLAG = "--xla_gpu_deterministic_ops=true"
_CFG = TrainConfig(steps=2, deterministic=True, save_every=0, tensorboard=False)


def test_the_flag_joins_those_that_are_there_once(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    ask_for_determinism()
    ask_for_determinism()
    assert os.environ["XLA_FLAGS"] == f"--xla_dump_to=x {_FLAG}"


def test_on_a_gpu_it_has_to_be_there_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(UserError, match=f"Expected {_FLAG} in XLA_FLAGS before JAX starts"):
        fit(TinyTask(), _CFG, tmp_path / "run", reporter=Silent())
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("XLA_FLAGS", _FLAG)
    check_determinism()


def test_a_cpu_needs_no_flag(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    check_determinism()


def test_xla_knows_the_flag():
    code = (
        "from jaxcore.train.deterministic import ask_for_determinism as ask; ask(); "
        "import jax; print(int(jax.numpy.ones(3).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "3", done.stderr
