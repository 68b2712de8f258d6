import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.parallel import initialise
from jaxcore.train import load_params

_TESTS = Path(__file__).parents[1]


def test_a_single_process_needs_nothing():
    assert initialise() is False
    assert initialise() is False


@pytest.mark.parametrize(
    ("count", "index", "message"),
    [("", "0", "JAXCORE_NUM_PROCESSES"), ("2", "two", "JAXCORE_PROCESS_ID"), ("2", "2", "below")],
)
def test_wrong_variables_are_named(monkeypatch, count, index, message):
    monkeypatch.setenv("JAXCORE_COORDINATOR", "localhost:1")
    monkeypatch.setenv("JAXCORE_NUM_PROCESSES", count)
    monkeypatch.setenv("JAXCORE_PROCESS_ID", index)
    with pytest.raises(UserError, match=message):
        initialise()


_SCRIPT = """
import sys
from jaxcore import parallel
assert parallel.initialise() and parallel.initialise()
import os, signal
import jax, numpy as np
jax.config.update("jax_default_matmul_precision", "highest")
from tiny_task import TinyTask
from jaxcore.train import OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent

class Half(TinyTask):
    "Every process yields its own half of the rows."

    def batches(self, seed, start_step):
        inner = super().batches(seed, start_step)
        part = slice(jax.process_index() * 4, jax.process_index() * 4 + 4)
        stop_at = int(os.environ.get("STOP_AT", -1))

        class Stream:
            number = start_step

            def __next__(self):
                if self.number == stop_at and jax.process_index() == 1:
                    os.kill(os.getpid(), signal.SIGTERM)  # one of the two is told to stop
                self.number += 1
                return {k: v[part] for k, v in next(inner).items()}

            def get_state(self):
                return inner.get_state()

            def set_state(self, state):
                inner.set_state(state)

        return Stream()

cfg = TrainConfig(steps=40, optim=OptimConfig(learning_rate=1e-2),
                  save_every=3, log_every=2, tensorboard=False, max_in_flight=1)
result = fit(Half(), cfg, sys.argv[1], mesh=parallel.make_mesh(), reporter=Silent())
sums = [float(x.addressable_data(0).sum()) for x in jax.tree.leaves(result.state.params)]
print("INTERRUPTED" if result.interrupted else "DONE", int(result.state.step), *sums)
"""


def _two_processes(run_dir, **extra):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_TESTS.parent), str(_TESTS)]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_PLATFORMS": "cpu",
        "JAXCORE_COORDINATOR": f"localhost:{port}",
        "JAXCORE_NUM_PROCESSES": "2",
        **extra,
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_SCRIPT), str(run_dir)],
            env={**env, "JAXCORE_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = []
    for process in processes:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err[-3000:]
        outputs.append(next(x for x in out.splitlines() if x.startswith(("DONE", "INTERRUPTED"))))
    return outputs


@pytest.mark.slow
def test_two_processes_over_loopback_train_stop_and_resume_as_one(tmp_path):
    straight = _two_processes(tmp_path / "straight")
    assert straight[0] == straight[1] and straight[0].startswith("DONE 40")
    stopped = _two_processes(tmp_path / "run", STOP_AT="2")
    assert stopped[0] == stopped[1] and stopped[0].startswith("INTERRUPTED")
    assert 2 < int(stopped[0].split()[1]) < 40
    assert _two_processes(tmp_path / "run") == straight
    params = load_params(tmp_path / "run")  # by one process, on one device
    sums = [float(x.sum()) for x in jax.tree.leaves(params)]
    np.testing.assert_allclose(sums, [float(x) for x in straight[0].split()[2:]], rtol=1e-6)
