"""A task for tests of what surrounds a step: no gradient, so that a run takes part of a second."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcore.serial import Serial
from jaxcore.train import OptimConfig, Task, TrainConfig, create_state
from jaxcore.train.logging import Silent
from jaxcore.train.records import read_metrics_file

CFG = TrainConfig(
    steps=6,
    optim=OptimConfig(name="sgd"),
    log_every=2,
    eval_every=3,
    sample_every=3,
    save_every=0,
    best_metric="mse",
    best_mode="min",
    tensorboard=False,
)


class _Stream:
    """Batch ``n`` depends on ``n`` alone."""

    def __init__(self, task: Any, start: int) -> None:
        self._task, self._position = task, {"next": start}

    def __next__(self) -> dict[str, np.ndarray]:
        number = self._position["next"]
        self._position["next"] += 1  # ahead of what was given out, when it fails
        self._task.event("data", number)
        x = np.random.default_rng(number).normal(size=(4, self._task.size)).astype(np.float32)
        return {"x": x * np.float32(np.nan) if number in self._task.poison else x}

    def get_state(self) -> Any:
        return self._position

    def set_state(self, state: Any) -> None:
        self._position = {"next": int(state["next"])}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainTask(Serial, Task):
    """A decaying sum of batches and random numbers."""

    name: ClassVar[str] = "plain"
    size: int = 8
    poison: tuple[int, ...] = ()  # batches that hold NaN

    def event(self, where: str, number: int) -> None:
        """Called before a batch, an evaluation or a picture; see `eventful`."""

    def init_state(self, key: Any, tx: Any) -> Any:
        return create_state({"w": jnp.ones(self.size)}, optax.identity(), key=key)

    def step(self, tx: Any, cfg: Any, mesh: Any) -> Any:
        def step(state: Any, batch: Any, frozen: Any = None, /) -> Any:
            noise = jax.random.uniform(jax.random.fold_in(state.rng, state.step), (self.size,))
            w = 0.9 * state.params["w"] + batch["x"].mean(0) + 0.01 * noise
            new = dataclasses.replace(state, step=state.step + 1, params={"w": w})
            return new, {"loss": jnp.mean(w**2)}

        return step

    def batches(self, seed: int, start_step: int) -> Any:
        return _Stream(self, start_step)

    def evaluate(self, state: Any, frozen: Any) -> dict[str, float]:
        self.event("evaluate", int(state.step))
        return {"mse": float(np.mean(np.asarray(state.params["w"]) ** 2))}

    def pictures(self, state: Any, frozen: Any) -> dict[str, np.ndarray]:
        self.event("pictures", int(state.step))
        grey = np.asarray(state.params["w"] > 0)[None, :, None]
        return {"signs": np.repeat(255 * grey.astype(np.uint8), 3, -1)}


def eventful(action: Callable[[], Any], where: str, number: int, **fields: Any) -> PlainTask:
    """A plain task in which something happens once, before a batch, an evaluation or a picture."""
    when, over = (where, number), [False]

    class Eventful(PlainTask):
        def event(self, where: str, number: int) -> None:
            if (where, number) == when and not over[0]:
                over[0] = True
                action()

    return Eventful(**fields)


class Heard(Silent):
    """A reporter that keeps the sentences."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def same(a: Any, b: Any) -> None:
    """Two train states are equal to the last bit."""
    a, b = (dataclasses.replace(s, rng=jax.random.key_data(s.rng)) for s in (a, b))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def records(run_dir: Any) -> list[dict[str, Any]]:
    """The metrics file without what clocks say."""
    clocks = ("items_per_second", "seconds_left")
    found = read_metrics_file(run_dir / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k not in clocks} for record in found]
