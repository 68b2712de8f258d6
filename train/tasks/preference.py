"""A decoder learns to prefer one of two completions: DPO and its relatives."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from jaxcore.bounds import AtLeast
from jaxcore.data.scored import Preferred, read_preferred
from jaxcore.errors import UserError
from jaxcore.places import read_once
from jaxcore.train.config import TrainConfig
from jaxcore.train.losses.preference import Preference, preference_loss
from jaxcore.train.policy import Policy
from jaxcore.train.state import TrainState
from jaxcore.train.step import Step
from jaxcore.train.task import Frozen, Loss, Mean
from jaxcore.train.tasks.fine_tuning import OfflineTask, token_log_probs
from jaxcore.typing import Batch, Key

_WHOLE = ("aot", "aot_unpaired", "sft")
"""Losses that sort, or divide by, what a whole batch has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceTask(OfflineTask):
    """Direct optimisation of preferences against the model that the training starts from.

    Lines of the data: see `jaxcore.data.scored`; pairs are made of outcomes where lines hold these.
    A batch has ``batch_size`` pairs.

    >>> task = PreferenceTask(base="smollm2", preference=Preference(loss=("sigmoid", "sft")))
    >>> PreferenceTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "lm_dpo"
    referred: ClassVar[bool] = True
    items_name: ClassVar[str] = "pairs"
    preference: Preference = dataclasses.field(default_factory=Preference)
    outcome: str = "reward"  # name of the outcome in the lines, where they are no pairs
    least_gap: Annotated[float, AtLeast(0)] = 0.0  # outcomes of a pair differ by more
    within: str | None = None  # confounder or group that both of a pair made of outcomes share

    def check(self) -> None:
        """Read the pairs before anything is written.

        Raises:
          UserError: see `OfflineTask.check` and `read_preferred`.
        """
        super().check()
        self._pairs(self.data)
        if self.held_out is not None:
            self._pairs(self.held_out)

    def notes(self) -> tuple[str, ...]:
        """See `FineTuningTask`; and texts that are too long."""
        return (*super().notes(), *self.cut_note(self._pairs(self.data).scored.completions))

    def _pairs(self, path: Path) -> Preferred:
        return _pairs(self, path)

    def counts(self) -> list[tuple[str, int, int, int]]:
        """See `NetworkTask`; entries are pairs."""
        count = len(self._pairs(self.data).chosen)
        return [("pairs", count, 1, count)]

    def step(self, tx: optax.GradientTransformation, cfg: TrainConfig, mesh: Mesh | None) -> Step:
        """The gradient step of the loss.

        Raises:
          UserError: micro-batches for a loss that is no mean over pairs.
        """
        whole = [name for name in self.preference.names if name in _WHOLE]
        if cfg.accum_steps > 1 and whole:
            raise UserError(
                f"Expected whole batches with the loss {whole[0]}, found {cfg.accum_steps} "
                "micro-batches (--train.accum-steps)."
            )
        return super().step(tx, cfg, mesh)

    def batch(
        self, which: Sequence[int] | np.ndarray, length: int, path: Path | None = None
    ) -> dict[str, np.ndarray]:
        """Arrays (pairs, 2, length): the chosen completion and the rejected one.

        Args:
          which: numbers of pairs.
          length: of a row, at most.
          path: of the data; by default those of the training.
        """
        pairs, chosen = self._pairs(path or self.data), np.asarray(which)
        length = pairs.scored.completions.fitting(length)
        both = np.stack([pairs.chosen[chosen], pairs.rejected[chosen]], axis=1)
        rows = pairs.scored.completions.rows(both.reshape(-1), length)
        return {name: x.reshape(*both.shape, length) for name, x in rows._asdict().items()}

    def loss(self, variables: Any, batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Mean over pairs; metrics are the implicit rewards and how often they are right."""
        params = variables["params"]
        return _loss(params, frozen, batch, self.policy, self.preference, self.chunk)

    def metric_names(self) -> tuple[str, ...]:
        """The loss, how often the implicit reward is right, and how far apart it is."""
        return ("loss", "accuracy", "margin")

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """Means over held-out pairs, batch by batch; a last part of a batch is left out."""
        stage, path = self.stages[0], self.held_out or self.data
        judged = self.judged(len(self._pairs(path).chosen))
        count, size = len(judged), min(stage.batch_size, len(judged))
        sums: dict[str, float] = dict.fromkeys(self.metric_names(), 0.0)
        for first in range(0, count - size + 1, size):
            batch = self.batch(judged[first : first + size], stage.patch, path)
            found = _evaluated(
                state.eval_params,
                frozen,
                batch,
                policy=self.policy,
                settings=self.preference,
                chunk=self.chunk,
            )
            sums = {name: sums[name] + float(found[name]) for name in sums}
        return {name: total / (count // size) for name, total in sums.items()}


def _loss(
    params: Any, frozen: Frozen, batch: Batch, policy: Policy, settings: Preference, chunk: int
) -> Loss:
    length = batch["tokens"].shape[-1]
    tokens, valid, mask = (
        jnp.asarray(batch[name]).reshape(-1, length) for name in ("tokens", "valid", "mask")
    )
    own, reference = (
        token_log_probs(weights, tokens, valid, policy.cfg, chunk)
        for weights in (
            policy.weights(params, frozen),
            jax.lax.stop_gradient(policy.reference(frozen)),
        )
    )

    def apart(x: Array) -> Array:  # all chosen ones, then all rejected ones
        return jnp.concatenate([x[::2], x[1::2]])

    found = preference_loss(apart(own), apart(reference), apart(mask), settings)
    chosen, rejected = found.chosen_reward, found.rejected_reward
    metrics = {
        "accuracy": found.accuracy,
        "margin": Mean.of(chosen - rejected),
        "chosen_reward": Mean.of(chosen),
        "rejected_reward": Mean.of(rejected),
    }
    return Loss(*found.mean, metrics=metrics)


@functools.partial(jax.jit, static_argnames=("policy", "settings", "chunk"))
def _evaluated(
    params: Any,
    frozen: Frozen,
    batch: Batch,
    *,
    policy: Policy,
    settings: Preference,
    chunk: int,
) -> dict[str, Array]:
    found = _loss(params, frozen, batch, policy, settings, chunk)
    means = {**found.metrics, "loss": Mean(found.total, found.weight)}
    return {name: mean.value() for name, mean in means.items()}


@read_once(4)
def _pairs(task: PreferenceTask, path: Path) -> Preferred:
    options: dict[str, Any] = {"least_gap": task.least_gap, "within": task.within}
    return read_preferred(path, task.encoder(), outcome=task.outcome, **options)
