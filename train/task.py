"""What the loop needs to know of a training problem: an abstract class to write one's own from."""

import abc
import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import jax
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from jaxcore.train.config import TrainConfig
from jaxcore.train.groups import trainable_leaves
from jaxcore.train.state import TrainState, create_state
from jaxcore.train.step import Frozen, Loss, Mean, Step, make_train_step
from jaxcore.typing import Batch, Key, Params

__all__ = ["BatchIterator", "Frozen", "GradientTask", "Loss", "Mean", "Step", "Task"]

# Names of methods (or of fields) as near as this are taken for misspelt: "evalute", "inner_step".
_ALIKE = 0.85


@runtime_checkable
class BatchIterator(Protocol):
    """A resumable stream of batches, such as a grain ``DatasetIterator``."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> Any:
        """JSON-able (or bytes) position in the stream, after the last batch given out."""
        ...

    def set_state(self, state: Any) -> None:
        """Go to a position from `get_state`."""
        ...


def _names(cls: type, methods: bool) -> set[str]:
    """Public methods, or public fields, that a class itself defines."""
    found = {name for name, value in vars(cls).items() if inspect.isfunction(value)}
    if not methods:
        found = set(inspect.get_annotations(cls)) - found
    return {name for name in found if not name.startswith("_")}


def _refuse_misspelt(cls: type) -> None:
    bases = [base for base in cls.__mro__[1:] if base.__module__ == __name__]
    for methods in (True, False):
        known = {name for base in bases for name in _names(base, methods)}
        for name in sorted(_names(cls, methods) - known):
            near = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
            if near:
                raise TypeError(
                    f"{cls.__name__}.{name} is nothing that a task has, found near {near[0]}: "
                    "mend the name, or choose one that is less alike."
                )


class Task(abc.ABC):
    """Anything that runs in steps: all that `jaxcore.train.fit` knows of it.

    Usually a frozen dataclass. Most tasks descend the gradient of a loss and derive from
    `GradientTask`; this class is for those that make their step themselves. Classes with a method
    or field that looks like a misspelt one of this class are refused when they are defined.
    """

    items_name: ClassVar[str] = "images"  # what rows of a batch are, for messages
    name: ClassVar[str]  # in `jaxcore.registry` and ``config.json``; default: that of the class
    inner_steps: int = 1  # updates on one batch, see `experience`
    rows_per_item: int = 1  # so many rows that follow each other stay in one micro-batch
    items_per_batch: int | None = None  # counted per second; None counts the rows
    # ``(regular expression, spec)`` for parameters and frozen trees on a mesh: the first one found
    # in the path of a leaf, such as "params/encoder/kernel" or "frozen/vgg/kernel", decides; other
    # leaves, if they are big, are split over the axis fsdp (`jaxcore.parallel.state_shardings`).
    sharding_rules: tuple[tuple[str, PartitionSpec], ...] = ()

    # Whether the first parameters are read from files: they are then no part of a compiled program.
    reads_start: ClassVar[bool] = False

    # Fields, dotted where nested, that evaluation alone reads: they may change in a run by request.
    changeable: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "name"):
            cls.name = cls.__name__
        _refuse_misspelt(cls)

    @abc.abstractmethod
    def init_state(self, key: Key, tx: optax.GradientTransformation) -> TrainState:
        """State before the first step, without a moving average, which the loop adds.

        Args:
          key: of the whole run.
          tx: the optimiser of the run's configuration.
        """

    @abc.abstractmethod
    def step(self, tx: optax.GradientTransformation, cfg: TrainConfig, mesh: Mesh | None) -> Step:
        """The pure function that is compiled and called for every batch.

        It must count ``state.step`` up by one, and returns scalars to log.
        """

    @abc.abstractmethod
    def batches(self, seed: int, start_step: int) -> BatchIterator:
        """The stream of batches, standing before batch ``start_step``.

        With several processes every process yields its own rows.
        """

    @abc.abstractmethod
    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """Metrics on held-out data, usually of ``state.eval_params``."""

    def brief(self) -> Self:
        """The same task with as short an evaluation as can be, for `jaxcore.train.dry_run`."""
        return self

    def evaluation_size(self) -> int:
        """How many items an evaluation looks at; the time of one is estimated from it."""
        return 1

    def frozen(self) -> Frozen:
        """A tree of arrays that no step changes, such as a network that does not learn, or None.

        It is placed by `sharding_rules`, passed to the step, the loss, `evaluate`, `pictures` and
        `experience`, and is in no checkpoint: it is asked for again when a run goes on.
        """
        return None

    def mesh_rules(self, mesh: Mesh) -> tuple[tuple[str, PartitionSpec], ...]:
        """`sharding_rules`, where they depend on how many devices an axis has."""
        return self.sharding_rules

    def experience(self, state: TrainState, batch: Batch, key: Key, frozen: Frozen) -> Batch | None:
        """A batch made by the network as it now is (rollouts, rewards), or None to use ``batch``.

        It is called before every step, outside of ``jit``: it may call compiled functions and plain
        Python, such as a reward that reads text. `inner_steps` updates follow on what it returns.
        A run that is resumed makes the same experience again, if nothing but the arguments is used.

        Args:
          state: before the step.
          batch: of `batches`, on the devices.
          key: a fresh one for every step.
          frozen: of `frozen`, on the devices.

        Returns:
          Arrays on the devices, or on the host the rows of this process.
        """
        return None

    def trainable(self, params: Params) -> Any:
        """Tree of bools: False leaves get neither update nor decay. None trains everything.

        Args:
          params: shapes, not values.
        """
        return None

    def metric_names(self) -> tuple[str, ...] | None:
        """Names of what `evaluate` returns, for ``best_metric`` to be checked before the start.

        None: not known; an evaluation before the first step tells them where one is asked for.
        """
        return None

    def finished(self, state: TrainState) -> bool:
        """Whether the run can end; asked whenever metrics are logged."""
        return False

    def pictures(self, state: TrainState, frozen: Frozen) -> dict[str, np.ndarray]:
        """Named pictures to look at, uint8 (height, width, 3)."""
        return {}

    def about(self) -> dict[str, Any]:
        """JSON-able facts besides the settings, for ``extra`` in ``config.json``."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description, enough to build the task again."""
        return dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}


class GradientTask(Task):
    """A task that descends the gradient of a loss.

    >>> import dataclasses, tempfile
    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from jaxcore.train import GradientTask, Loss, Mean, OptimConfig, TrainConfig, fit
    >>> from jaxcore.train.logging import Silent
    >>> class Numbers:
    ...     "Batches that can be resumed: the position is all there is to know."
    ...     def __init__(self, position):
    ...         self.position = position
    ...     def __next__(self):
    ...         x = np.random.default_rng(self.position).normal(size=(4, 1))
    ...         self.position += 1
    ...         return {"x": x.astype(np.float32), "y": 3 * x.astype(np.float32)}
    ...     def get_state(self):
    ...         return self.position
    ...     def set_state(self, state):
    ...         self.position = state
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Slope(GradientTask):
    ...     start: float = 0.0
    ...     def init_params(self, key):
    ...         return {"slope": jnp.float32(self.start)}
    ...     def loss(self, variables, batch, key, frozen):
    ...         error = variables["params"]["slope"] * batch["x"] - batch["y"]
    ...         return Loss(*Mean.of(error**2), metrics={"mae": Mean.of(jnp.abs(error))})
    ...     def batches(self, seed, start_step):
    ...         return Numbers(start_step)
    ...     def evaluate(self, state, frozen):
    ...         return {"slope": float(state.eval_params["slope"])}
    >>> cfg = TrainConfig(steps=60, optim=OptimConfig(learning_rate=0.2), tensorboard=False)
    >>> with tempfile.TemporaryDirectory() as run_dir:
    ...     round(fit(Slope(), cfg, run_dir, reporter=Silent()).metrics["slope"], 1)
    3.0
    """

    @abc.abstractmethod
    def init_params(self, key: Key) -> Params:
        """Fresh parameters: a nested dict of arrays."""

    @abc.abstractmethod
    def loss(self, variables: Mapping[str, Any], batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Sum of the loss over a part of a batch, and its weight; see `Loss`.

        It is called for micro-batches and, under ``pmap``, for the rows of one device: gradient and
        metrics are those of the sum of all totals over the sum of all weights.

        Args:
          variables: ``{"params": ..., **collections}``; returned collections are stored.
          batch: rows.
          key: a fresh one for every call.
          frozen: of `frozen`.
        """

    def init_collections(self, key: Key) -> dict[str, Any]:
        """Arrays the state carries besides parameters, such as running statistics."""
        return {}

    def init_state(self, key: Key, tx: optax.GradientTransformation) -> TrainState:
        """Parameters from one key, the steps from another."""
        first = jax.random.fold_in(key, 0)
        return create_state(
            self.init_params(first),
            tx,
            key=jax.random.fold_in(key, 1),
            collections=self.init_collections(first),
        )

    def step(self, tx: optax.GradientTransformation, cfg: TrainConfig, mesh: Mesh | None) -> Step:
        """The gradient step of the loss."""
        return make_train_step(
            self.loss,
            tx,
            accum_steps=cfg.accum_steps,
            inner_steps=self.inner_steps,
            rows_per_item=self.rows_per_item,
            ema=cfg.ema,
            skip_nonfinite=cfg.skip_nonfinite,
            remat=cfg.remat,
            trainable=lambda params: trainable_leaves(
                cfg.optim.groups, self.trainable(params), params
            ),
        )
