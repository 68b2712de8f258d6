"""Start the processes of a job over loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
_FLAGS = os.environ.get("XLA_FLAGS", "")  # optimisations as in the tests; the last of two counts
TRAINING = Path(__file__).with_name("tiny_job.py")
TOGETHER = Path(__file__).with_name("together.py")
EVALUATION = Path(__file__).with_name("evaluation.py")


class Job:
    """Processes of one job; leave it to end those that are left."""

    def __init__(self, count, *args, script=TRAINING, **extra):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(_TESTS.parent), str(_TESTS)]),
            "XLA_FLAGS": f"{_FLAGS} --xla_force_host_platform_device_count=1",
            "JAX_PLATFORMS": "cpu",
            "JAXCORE_COORDINATOR": f"localhost:{port}",
            "JAXCORE_NUM_PROCESSES": str(count),
            **extra,
        }
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(script), *map(str, args)],
                env={**env, "JAXCORE_PROCESS_ID": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    def await_line(self, start):
        """Wait until every process has printed a line that starts so."""
        for process in self.processes:
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                if line.startswith(start):
                    break
            else:
                raise AssertionError(process.stderr.read()[-3000:])

    def results(self, *, timeout=400):
        """Exit code, output and errors of every process."""
        found = [(p, *p.communicate(timeout=timeout)) for p in self.processes]
        return [(process.returncode, out, err) for process, out, err in found]


def outcomes(count, run_dir, **extra):
    """Run to the end; the last line of every process."""
    with Job(count, run_dir, **extra) as job:
        results = job.results()
    for code, _, err in results:
        assert code == 0, err[-3000:]
    return [out.splitlines()[-1] for _, out, _ in results]
