"""One process of a job that trains the tiny task; each yields its share of the rows."""

import os
import signal
import sys
import time

from jaxcore import parallel

if __name__ == "__main__":  # before anything touches a device
    parallel.initialise()

import jax
import jax.numpy as jnp
from tiny_task import TinyTask

from jaxcore.train import OptimConfig, TrainConfig, fit
from jaxcore.train.logging import Silent

_STOP_AT = int(os.environ.get("STOP_AT", -1))  # the second process is told to stop
_STOP_WITH = getattr(signal, os.environ.get("STOP_WITH", "SIGTERM"))
_FAIL_AT = int(os.environ.get("FAIL_AT", -1))  # the second process raises
_ALL_FAIL_AT = int(os.environ.get("ALL_FAIL_AT", -1))  # every process raises
_PACE = float(os.environ.get("PACE", 0))  # seconds per batch
_LAYERS = int(os.environ.get("LAYERS", 0))  # to compile


class Share:
    """The rows of this process."""

    def __init__(self, inner, start):
        self._inner, self._number = inner, start

    def __next__(self):
        if jax.process_index() == 1:
            if self._number == _STOP_AT:
                os.kill(os.getpid(), _STOP_WITH)
            if self._number == _FAIL_AT:
                raise RuntimeError("the data are gone")
        if self._number == _ALL_FAIL_AT:
            raise RuntimeError("the data are gone")
        time.sleep(_PACE)
        self._number += 1
        batch = next(self._inner)
        rows = len(batch["x"]) // jax.process_count()
        first = jax.process_index() * rows
        return {name: value[first : first + rows] for name, value in batch.items()}

    def get_state(self):
        return self._inner.get_state()

    def set_state(self, state):
        self._inner.set_state(state)


class Shared(TinyTask):
    """The tiny task on the rows of this process."""

    def batches(self, seed, start_step):
        return Share(super().batches(seed, start_step), start_step)

    def loss(self, variables, batch, key, frozen):
        if _LAYERS:
            print("COMPILING", flush=True)
        found = super().loss(variables, batch, key, frozen)
        square = jnp.outer(*[variables["params"]["second"]["kernel"][:, 0]] * 2)
        for _ in range(_LAYERS):
            square = jnp.tanh(square @ square)
        return found._replace(total=found.total + 0 * jnp.sum(square))


class Steps(Silent):
    """Says which step has been made."""

    def advance(self, step):
        print(f"STEP {step}", flush=True)


def main(run_dir):
    """Train, and print where it ended."""
    jax.config.update("jax_default_matmul_precision", "highest")
    cfg = TrainConfig(
        steps=int(os.environ.get("STEPS", 40)),
        optim=OptimConfig(learning_rate=1e-2),
        save_every=3,
        log_every=2,
        tensorboard=False,
        max_in_flight=1,
    )
    mesh = parallel.make_mesh()
    result = fit(Shared(), cfg, run_dir, mesh=mesh, reporter=Steps())
    sums = [float(x.addressable_data(0).sum()) for x in jax.tree.leaves(result.state.params)]
    print("INTERRUPTED" if result.interrupted else "DONE", int(result.state.step), *sums)


if __name__ == "__main__":
    main(sys.argv[1])
