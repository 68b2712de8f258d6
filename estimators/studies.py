"""A simulation study as a task: each step runs some replications and stores them in the state."""

import contextlib
import dataclasses
import importlib
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxcore.bounds import Count
from jaxcore.errors import UserError
from jaxcore.estimators.monte_carlo import MonteCarlo, Study, replicate
from jaxcore.serial import Serial
from jaxcore.train import OptimConfig, ScheduleConfig, TrainConfig, fit
from jaxcore.train.logging import Reporter, default_reporter
from jaxcore.train.state import TrainState, create_state
from jaxcore.train.step import Frozen, Metrics, Step
from jaxcore.train.task import Task
from jaxcore.typing import Batch, Key

_STUDIES = {
    "deconfound": ("jaxcore.estimators.deconfound.studies", "deconfound_study"),
    "images": ("jaxcore.estimators.image_confounding.studies", "image_study"),
    "siv1": ("jaxcore.estimators.selective_iv.studies", "siv1_study"),
    "siv2": ("jaxcore.estimators.selective_iv.studies", "siv2_study"),
}


def build_study(name: str, n: int, options: dict[str, Any]) -> Study:
    """A study by name.

    Args:
      name: "deconfound" or "images" (`deconfound.studies`, `image_confounding.studies`), "siv1"
        or "siv2" (`selective_iv.studies`).
      n: units per sample.
      options: further arguments of the study.

    Raises:
      UserError: the name is unknown.
    """
    if name not in _STUDIES:
        raise UserError(f"Expected a study of {', '.join(_STUDIES)}, found {name!r}.")
    module, function = _STUDIES[name]
    return getattr(importlib.import_module(module), function)(n, **options)


class IndexBatches:
    """The numbers of the replications, a block at a time; the last block repeats its first."""

    def __init__(self, reps: int, block: int, start: int) -> None:
        self.reps, self.block, self.next = reps, block, start

    def __next__(self) -> Batch:
        first = self.next * self.block
        if first >= self.reps:
            raise StopIteration
        self.next += 1
        index = np.arange(first, first + self.block, dtype=np.int32)
        return {"index": np.where(index < self.reps, index, first).astype(np.int32)}

    def get_state(self) -> Any:
        """Blocks given out so far."""
        return {"next": self.next}

    def set_state(self, state: Any) -> None:
        """Go to a position from `get_state`."""
        self.next = int(state["next"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonteCarloTask(Serial, Task):
    """Replications of a study of `build_study`, `block` per step."""

    name: ClassVar[str] = "monte_carlo"
    study: str  # see `build_study`
    n: Count  # units per sample
    reps: Count
    block: Count = 10  # replications per step; a mesh must divide it
    at_once: Count = 1  # replications computed together on one device
    double: bool = True  # float64
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the study

    def build(self) -> Study:
        """The study."""
        return build_study(self.study, self.n, self.options)

    @property
    def steps(self) -> int:
        """Steps of the whole job."""
        return -(-self.reps // self.block)

    def init_state(self, key: Key, tx: optax.GradientTransformation) -> TrainState:
        """No parameters; results so far, NaN where a replication is still to be done."""
        study = self.build()
        shape = self.reps, len(study.names) + len(study.extras)

        def empty() -> jax.Array:  # two arrays: the step donates both
            return jnp.full(shape, jnp.nan, float)

        held = {"theta": empty(), "se": empty(), "done": jnp.zeros(self.reps, bool)}
        key = jax.random.fold_in(key, 1)
        return create_state({}, optax.identity(), key=key, collections=held)

    def step(self, tx: optax.GradientTransformation, cfg: TrainConfig, mesh: Mesh | None) -> Step:
        """Run a block of replications and write them into the collections."""
        draw = self.build().draw

        def step(
            state: TrainState, batch: Batch, frozen: Frozen = None, /
        ) -> tuple[TrainState, Metrics]:
            index = batch["index"]
            out = replicate(draw, state.rng, index, at_once=self.at_once, mesh=mesh)
            held = state.collections
            new = {
                "theta": held["theta"].at[index].set(out.theta),
                "se": held["se"].at[index].set(out.se),
                "done": held["done"].at[index].set(True),
            }
            state = dataclasses.replace(state, step=state.step + 1, collections=new)
            return state, {"done": jnp.sum(new["done"]).astype(jnp.float32)}

        return step

    def batches(self, seed: int, start_step: int) -> IndexBatches:
        """Blocks of replication numbers."""
        return IndexBatches(self.reps, self.block, start_step)

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """Nothing to measure before the end."""
        return {}

    @classmethod
    def migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Leave out the name of the task, which stood beside its fields."""
        return {name: value for name, value in data.items() if name != "name"}


def run_study(
    task: MonteCarloTask,
    run_dir: str | Path,
    *,
    seed: int = 0,
    save_every: int = 10,
    mesh: Mesh | None = None,
    reporter: Reporter | None = None,
) -> MonteCarlo | None:
    """Run a study in a run directory, or go on with it; the numbers do not depend on stops.

    Args:
      task: the study.
      run_dir: receives the checkpoints.
      seed: seed of the study.
      save_every: blocks between checkpoints.
      mesh: devices over which every block is split.
      reporter: receives the progress, as in `train.fit`.

    Returns:
      All replications, or None when the run was asked to stop before the end.
    """
    with jax.enable_x64(True) if task.double else contextlib.nullcontext():
        cfg = TrainConfig(
            steps=task.steps,
            seed=seed,
            save_every=save_every,
            log_every=max(1, save_every),
            tensorboard=False,
            optim=OptimConfig(schedule=ScheduleConfig(name="constant")),
        )
        reporter = reporter or default_reporter("replications")
        result = fit(task, cfg, run_dir, mesh=mesh, reporter=reporter)
        if result.interrupted:
            return None
        held = jax.device_get(result.state.collections)
    study = task.build()
    return MonteCarlo(
        names=study.names,
        extras=study.extras,
        truth=study.truth,
        theta=held["theta"],
        se=held["se"],
    )
