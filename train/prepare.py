"""What a run is made of, before anything is read, written or trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxcore.errors import UserError
from jaxcore.memory import on_host
from jaxcore.parallel import compile_step, state_shardings
from jaxcore.train.config import TrainConfig
from jaxcore.train.contract import check_task
from jaxcore.train.deterministic import check_determinism
from jaxcore.train.groups import summary
from jaxcore.train.optim import make_optimiser, rates
from jaxcore.train.profile import profiled_steps
from jaxcore.train.schedules import Schedule
from jaxcore.train.state import TrainState, start_average
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
    # of updates, of which a step makes `Task.inner_steps`, by their names in the records
    rates: dict[str, Schedule]
    groups: str  # a sentence on the optimiser groups; empty without any
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
        if params is None and self.task.reads_start:
            with on_host():
                params = jax.device_get(self.task.init_state(key, optax.identity()).params)
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
    frozen = task.frozen()  # first: files may be missing
    key, updates = jax.random.key(cfg.seed), cfg.steps * task.inner_steps
    bare = jax.eval_shape(lambda k: task.init_state(k, optax.identity()), key)
    tx = make_optimiser(cfg.optim, updates, task.trainable(bare.params))
    abstract = _abstract(task, cfg, tx, mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    frozen_places = None
    if frozen is not None and mesh is not None:
        rules = task.mesh_rules(mesh)
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
        rates=rates(cfg.optim, updates),
        groups=summary(
            cfg.optim.groups, bare.params, cfg.optim.learning_rate, cfg.optim.weight_decay
        ),
        abstract=abstract,
        frozen=jax.device_put(frozen, frozen_places),
        step=step,
    )


def _abstract(
    task: Task, cfg: TrainConfig, tx: optax.GradientTransformation, mesh: Mesh | None
) -> TrainState:
    """Shapes, types and places of the state."""
    key = jax.random.key(cfg.seed)
    shapes = jax.eval_shape(functools.partial(_create, task, tx, cfg), key)
    if mesh is None:
        here = jnp.zeros(()).sharding
        places = jax.tree.map(lambda _: here, shapes)
    else:
        places = state_shardings(shapes, mesh, task.mesh_rules(mesh))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        places,
    )


def as_stored(ready: Prepared, stored: TrainConfig) -> TrainState:
    """What the state of a run looks like that was begun with other settings.

    Optimisers differ in how their states are nested, not in what they hold.

    Args:
      ready: the run as it goes on.
      stored: its settings so far.

    Raises:
      UserError: the states differ in what they hold.
    """
    task, updates = ready.task, stored.steps * ready.task.inner_steps
    tx = make_optimiser(stored.optim, updates, task.trainable(ready.abstract.params))
    before = _abstract(task, stored, tx, ready.mesh)
    states = before.opt_state, ready.abstract.opt_state
    kept = [[leaf.shape for leaf in jax.tree.leaves(state)] for state in states]
    nested = {jax.tree.structure(state) for state in states}
    muon = "muon" in (stored.optim.name, *(group.name for group in stored.optim.groups))
    if kept[0] != kept[1] or (muon and len(nested) > 1):  # with a decay its parts are others
        raise UserError(
            "Expected settings under which the optimiser keeps what it has in the checkpoint, "
            "found others: choose the old settings or another directory."
        )
    return before


def as_wanted(state: TrainState, ready: Prepared) -> TrainState:
    """The optimiser's state of `as_stored`, nested as the run needs it from now on."""
    wanted = jax.tree.structure(ready.abstract.opt_state)
    opt_state = jax.tree.unflatten(wanted, jax.tree.leaves(state.opt_state))
    return dataclasses.replace(state, opt_state=opt_state)


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
    return dataclasses.replace(state, ema_params=start_average(state.params))
