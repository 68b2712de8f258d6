"""What a run is made of, before anything is read, written or trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxcore.parallel import compile_step, state_shardings
from jaxcore.train.config import TrainConfig
from jaxcore.train.contract import check_task
from jaxcore.train.deterministic import check_determinism
from jaxcore.train.optim import make_optimiser
from jaxcore.train.profile import profiled_steps
from jaxcore.train.schedules import Schedule, make_schedule
from jaxcore.train.state import TrainState
from jaxcore.train.step import Frozen, Step
from jaxcore.train.task import Task
from jaxcore.typing import Key, Params


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A task, its settings, and what follows from them."""

    task: Task
    cfg: TrainConfig
    mesh: Mesh | None
    tx: optax.GradientTransformation
    rate: Schedule  # of updates, of which a step makes `Task.inner_steps`
    abstract: TrainState  # shapes, types and places of all that the state holds
    frozen: Frozen  # on the devices
    step: Step  # compiled at its first call

    def initial_state(self, params: Params | None = None) -> TrainState:
        """State before the first step, where ``abstract`` says.

        Args:
          params: to start from, instead of fresh ones; they are copied.
        """
        create = functools.partial(_create, self.task, self.tx, self.cfg)
        key = jax.random.key(self.cfg.seed)
        places = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
        if self.mesh is None and params is None:  # without a compilation for numbers drawn once
            # Placed as a restored state is: one compiled step, also in a cache on disk, for both.
            return jax.device_put(create(key), places)
        # Born sharded: no device ever holds all of a big network. Fresh parameters are not
        # computed where others are given.
        return jax.jit(create, out_shardings=places)(key, params)


def prepare(task: Task, cfg: TrainConfig, mesh: Mesh | None = None) -> Prepared:
    """Work out optimiser, shapes, places and the step of a run.

    Args:
      task: what is trained.
      cfg: how.
      mesh: where; None is the default device.

    Raises:
      UserError: not a task or a wrong one, or settings that do not fit its parameters.
    """
    check_task(task)
    if cfg.deterministic:
        check_determinism()
    if cfg.profile is not None:
        profiled_steps(cfg.profile, cfg.steps)
    frozen, rules = task.frozen(), task.sharding_rules  # first: files may be missing
    key, updates = jax.random.key(cfg.seed), cfg.steps * task.inner_steps
    bare = jax.eval_shape(lambda k: task.init_state(k, optax.identity()), key)
    tx = make_optimiser(cfg.optim, updates, task.trainable(bare.params))
    abstract = jax.eval_shape(functools.partial(_create, task, tx, cfg), key)
    here = jnp.zeros(()).sharding
    if mesh is None:
        places = jax.tree.map(lambda _: here, abstract)
    else:
        places = state_shardings(abstract, mesh, rules)
    frozen_places = None
    if frozen is not None and mesh is not None:
        frozen_places = state_shardings({"frozen": frozen}, mesh, rules)["frozen"]
    step = compile_step(
        task.step(tx, cfg, mesh),
        mesh,
        state_sharding=None if mesh is None else places,
        frozen_sharding=frozen_places,
    )
    return Prepared(
        task=task,
        cfg=cfg,
        mesh=mesh,
        tx=tx,
        rate=make_schedule(cfg.optim.schedule, cfg.optim.learning_rate, updates),
        abstract=jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            abstract,
            places,
        ),
        frozen=jax.device_put(frozen, frozen_places),
        step=step,
    )


def _create(
    task: Task,
    tx: optax.GradientTransformation,
    cfg: TrainConfig,
    key: Key,
    params: Params | None = None,
) -> TrainState:
    state = task.init_state(key, tx)
    if params is not None:
        copied: Params = jax.tree.map(
            lambda own, given: jnp.array(given, own.dtype, copy=True), state.params, params
        )
        with jax.numpy_dtype_promotion("standard"):  # optax mixes floats and integer counts
            state = dataclasses.replace(state, params=copied, opt_state=tx.init(copied))
    if cfg.ema is None:
        return state
    # A copy of its own: the step donates both trees.
    return dataclasses.replace(state, ema_params=jax.tree.map(jnp.copy, state.params))
