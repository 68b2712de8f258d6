"""A training problem of one's own: a small network learns a curve from noisy points.

python examples/own_task.py runs/curve        # called again, it goes on or has nothing to do
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.errors import UserError
from jaxcore.train import GradientTask, Loss, Mean, OptimConfig, TrainConfig, TrainState, fit


class Points:
    """Batches that can be resumed: the position is all there is to know of the stream."""

    def __init__(self, seed: int, position: int, rows: int) -> None:
        self._seed, self._position, self._rows = seed, position, rows

    def __next__(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self._seed, self._position))
        self._position += 1
        x = rng.uniform(-1, 1, (self._rows, 1)).astype(np.float32)
        noise = rng.normal(0, 0.1, x.shape).astype(np.float32)
        return {"x": x, "y": curve(x) + noise}

    def get_state(self) -> int:
        """What a checkpoint keeps: JSON, or bytes."""
        return self._position

    def set_state(self, state: int) -> None:
        """Go to a position from `get_state`."""
        self._position = state


def curve(x: np.ndarray) -> np.ndarray:
    """What is to be learned."""
    return np.sin(3 * x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve(GradientTask):
    """Fields are settings: they stand in ``config.json``, and a resumed run must have the same."""

    width: int = 32
    rows: int = 64

    def init_params(self, key: jax.Array) -> dict[str, Any]:
        """A nested dict of arrays."""
        first, second = jax.random.split(key)
        return {
            "hidden": {
                "kernel": 3 * jax.random.normal(first, (1, self.width)),
                "bias": jnp.linspace(-3, 3, self.width),
            },
            "out": {"kernel": 0.1 * jax.random.normal(second, (self.width, 1))},
        }

    def loss(
        self, variables: Mapping[str, Any], batch: Mapping[str, Any], key: jax.Array, frozen: Any
    ) -> Loss:
        """The sum of the errors and their number, so that parts of a batch can be added up."""
        error = apply(variables["params"], batch["x"]) - batch["y"]
        return Loss(*Mean.of(error**2), metrics={"mae": Mean.of(jnp.abs(error))})

    def batches(self, seed: int, start_step: int) -> Points:
        """The stream of batches, standing before batch ``start_step``."""
        return Points(seed, start_step, self.rows)

    def evaluate(self, state: TrainState, frozen: Any) -> dict[str, float]:
        """Numbers on data that are not trained on."""
        x = np.linspace(-1, 1, 101, dtype=np.float32)[:, None]
        error = apply(state.eval_params, x) - curve(x)
        return {"rmse": float(jnp.sqrt(jnp.mean(error**2)))}


def apply(params: Mapping[str, Any], x: Any) -> jax.Array:
    """The network: one hidden layer."""
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return hidden @ params["out"]["kernel"]


if __name__ == "__main__":
    run_dir = sys.argv[1] if len(sys.argv) > 1 else "runs/curve"
    cfg = TrainConfig(steps=500, optim=OptimConfig(learning_rate=0.01), log_every=100)
    try:
        result = fit(Curve(), cfg, run_dir)
    except UserError as error:  # a mistake that can be mended, in one sentence
        sys.exit(f"own_task: {error}")
    print(f"distance to the curve: {result.metrics['rmse']:.3f}")
