"""A decoder learns from outcomes of texts that others wrote: weighted by how likely it finds them.

Causal preference optimisation of Lin, Ben-Michael and Morency (2024): the value of a policy is
estimated from logs, by importance weights alone or doubly robust, and raised.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from jaxcore.bounds import Above
from jaxcore.data.scored import Scored, read_scored
from jaxcore.errors import UserError
from jaxcore.places import read_once
from jaxcore.train.config import TrainConfig
from jaxcore.train.losses.off_policy import effective_size, ipw_value, weights
from jaxcore.train.losses.sequences import sequence_sum
from jaxcore.train.policy import Policy
from jaxcore.train.state import TrainState
from jaxcore.train.step import Step
from jaxcore.train.task import Frozen, Loss, Mean
from jaxcore.train.tasks.fine_tuning import OfflineTask, token_log_probs
from jaxcore.typing import Batch, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class OffPolicyTask(OfflineTask):
    """Raise the importance-weighted value of logged completions.

    The writer of the logs is taken to be the model that the training starts from: train it on the
    logged texts first (``lm-sft``). Outcomes are standardised. Lines of the data: see
    `jaxcore.data.scored`.

    >>> task = OffPolicyTask(base="smollm2", largest=3.0)
    >>> OffPolicyTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "lm_ipw"
    referred: ClassVar[bool] = True
    items_name: ClassVar[str] = "completions"
    outcome: str = "reward"  # name of the outcome in the lines
    # ipw: weighted mean; self_normalised: divided by the weights of the batch, which varies less
    objective: Literal["ipw", "self_normalised"] = "self_normalised"
    # logarithms of weights are clipped at plus and minus this, and learn no further beyond
    largest: Annotated[float, Above(0)] = 5.0

    def check(self) -> None:
        """Read the data before anything is written.

        Raises:
          UserError: see `OfflineTask.check` and `read_scored`.
        """
        super().check()
        for path in (self.data, self.held_out):
            self.scored(path)

    def notes(self) -> tuple[str, ...]:
        """Texts that are too long."""
        return self.cut_note(self.scored().completions)

    def scored(self, path: Path | None = None) -> Scored:
        """Completions with outcomes; by default of the training."""
        return _scored(self, path or self.data)

    def counts(self) -> list[tuple[str, int, int, int]]:
        """See `NetworkTask`; entries are completions."""
        count = len(self.scored().outcome)
        return [("completions", count, 1, count)]

    def step(self, tx: optax.GradientTransformation, cfg: TrainConfig, mesh: Mesh | None) -> Step:
        """The gradient step of the loss.

        Raises:
          UserError: micro-batches for weights that are divided by those of the whole batch.
        """
        if cfg.accum_steps > 1 and self.objective == "self_normalised":
            raise UserError(
                f"Expected whole batches with the objective self_normalised, found "
                f"{cfg.accum_steps} micro-batches (--train.accum-steps)."
            )
        return super().step(tx, cfg, mesh)

    def batch(
        self, which: Sequence[int] | np.ndarray, length: int, path: Path | None = None
    ) -> dict[str, np.ndarray]:
        """Rows of the data, with outcomes standardised as in the training.

        Args:
          which: numbers of completions.
          length: of a row, at most.
          path: of the data; by default those of the training.
        """
        scored, own = self.scored(path), self.scored().outcome
        outcome = (scored.outcome[np.asarray(which)] - own.mean()) / own.std()
        length = scored.completions.fitting(length)
        rows = scored.completions.rows(np.asarray(which), length)._asdict()
        return {**rows, "outcome": outcome.astype(np.float32)}

    def loss(self, variables: Any, batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Minus the value; metrics: the value in deviations, and the share of rows that weighs."""
        return _loss(variables["params"], frozen, batch, task=self._stripped())

    def _stripped(self) -> "_Objective":
        normalised = self.objective == "self_normalised"
        return _Objective(self.policy, self.chunk, normalised, self.largest)

    def metric_names(self) -> tuple[str, ...]:
        """Of held-out logs: value in units of the outcome, how much it gains, effective size."""
        return ("value", "gain", "effective_share")

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """Self-normalised over held-out data; the gain is that over their mean outcome."""
        stage, scored = self.stages[0], self.scored(self.held_out)
        judged, found = self.judged(len(scored.outcome)), []
        count, outcome = len(judged), scored.outcome[judged]
        for first in range(0, count, stage.batch_size):
            which = np.minimum(np.arange(first, first + stage.batch_size), count - 1)
            rows = self.batch(judged[which], stage.patch, self.held_out)
            found.append(_log_ratios(state.eval_params, frozen, rows, task=self._stripped()))
        log_ratio = jnp.asarray(np.concatenate(found)[:count])
        w = np.asarray(weights(log_ratio, largest=self.largest), np.float64)
        value = float(np.average(outcome, weights=w))
        share = float(effective_size(jnp.asarray(w, jnp.float32))) / count
        gain = value - float(outcome.mean())
        return {"value": value, "gain": gain, "effective_share": share}


@dataclasses.dataclass(frozen=True)
class _Objective:
    """What of the task a compiled program depends on."""

    policy: Policy
    chunk: int
    normalised: bool
    largest: float


def _log_ratio(params: Any, frozen: Frozen, batch: Batch, task: _Objective) -> Array:
    """Log-probability of each completion by the policy less that by the writer."""
    tokens, valid, mask = (jnp.asarray(batch[name]) for name in ("tokens", "valid", "mask"))
    policy = task.policy
    own, writer = (
        sequence_sum(token_log_probs(which, tokens, valid, policy.cfg, task.chunk), mask)
        for which in (
            policy.weights(params, frozen),
            jax.lax.stop_gradient(policy.reference(frozen)),
        )
    )
    return own - writer


_log_ratios = functools.partial(jax.jit, static_argnames="task")(_log_ratio)


def _loss(params: Any, frozen: Frozen, batch: Batch, task: _Objective) -> Loss:
    log_ratio = _log_ratio(params, frozen, batch, task)
    outcome = jnp.asarray(batch["outcome"])
    value = ipw_value(log_ratio, outcome, normalised=task.normalised, largest=task.largest)
    w = jax.lax.stop_gradient(weights(log_ratio, largest=task.largest))
    one = jnp.ones(())
    metrics = {
        "value": jax.lax.stop_gradient(value),
        "effective_share": Mean(effective_size(w) / len(w), one),
        "clipped": Mean.of((jnp.abs(log_ratio) >= task.largest).astype(jnp.float32)),
    }
    return Loss(-jnp.asarray(value.total), value.weight, metrics=metrics)


@read_once(4)
def _scored(task: OffPolicyTask, path: Path) -> Scored:
    return read_scored(path, task.encoder(), outcome=task.outcome)
