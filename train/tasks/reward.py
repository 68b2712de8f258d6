"""A decoder learns to score completions: from outcomes, or from which of two is preferred."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxcore.bounds import Above, AtLeast
from jaxcore.data.scored import LENGTH, Preferred, Scored, read_preferred, read_scored
from jaxcore.errors import UserError
from jaxcore.json_files import read_json
from jaxcore.models import llama
from jaxcore.nn import Normal
from jaxcore.places import read_once
from jaxcore.train.config import TrainConfig
from jaxcore.train.losses.reward import (
    correlation,
    odin,
    reward_bt,
    reward_regression,
    reward_soft,
    soft_label,
)
from jaxcore.train.policy import Policy
from jaxcore.train.state import TrainState
from jaxcore.train.step import Step
from jaxcore.train.task import Frozen, Loss, Mean
from jaxcore.train.tasks.fine_tuning import OfflineTask
from jaxcore.typing import Batch, Key, Params

SCORE = "score"
_PAIRS = ("bt", "soft", "odin_pairs")
_TWO_HEADS = ("odin", "odin_pairs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardTask(OfflineTask):
    """A reward model: a linear head on the state of the last token.

    Lines of the data: see `jaxcore.data.scored`. A batch of the objectives "bt", "soft" and
    "odin_pairs" has ``batch_size`` pairs. Outcomes are standardised; their mean and deviation are
    kept beside the head, so that rewards are in the units of the outcome.

    >>> task = RewardTask(objective="bt", margin=True)
    >>> RewardTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "lm_reward"
    items_name: ClassVar[str] = "texts"
    # mse, huber: regression on outcomes; bt: Bradley and Terry on pairs; soft: the same with how
    # likely the better one is; odin, odin_pairs: two heads, one of which takes up a confounder
    objective: Literal["mse", "huber", "bt", "soft", "odin", "odin_pairs"] = "mse"
    outcome: str = "reward"  # name of the outcome in the lines
    least_gap: Annotated[float, AtLeast(0)] = 0.0  # outcomes of a pair differ by more
    within: str | None = None  # confounder or group that both of a pair made of outcomes share
    margin: bool = False  # bt: rewards of a pair are to differ by its margin, or gap of outcomes
    centering: Annotated[float, AtLeast(0)] = 0.0  # bt: keeps rewards around zero; 0.01 is usual
    temperature: Annotated[float, Above(0)] = 1.0  # soft: gap at which odds are e to 1
    delta: Annotated[float, Above(0)] = 1.0  # huber: where the loss becomes linear, in deviations
    confounder: str = LENGTH  # odin: length in tokens, or a name among the confounders
    ortho: Annotated[float, AtLeast(0)] = 1.0  # odin: weight of the cosine between the heads
    corr: Annotated[float, AtLeast(0)] = 1.0  # odin: weight of the correlations
    form: Literal["release", "plain"] = "release"  # odin: as released, or as its paper has it
    deconfounder: Path | None = None  # estimate.json of the report that the rewards come from

    @property
    def pairs(self) -> bool:
        """Whether batches are pairs."""
        return self.objective in _PAIRS

    def check(self) -> None:
        """Read the data before anything is written.

        Raises:
          UserError: see `OfflineTask.check`, and `read_scored` and `read_preferred`.
        """
        super().check()
        for path in (self.data, *([] if self.held_out is None else [self.held_out])):
            self._all(path)
            if self.objective in _TWO_HEADS:
                _confounder(self, path)
        if self.objective == "soft" and not self._preferred(self.data).margin.any():
            raise UserError(
                f"Expected outcomes or margins, which tell soft labels, in {self.data}, found none."
            )
        self.about()

    def about(self) -> dict[str, Any]:
        """What is known of the deconfounding that the rewards come from."""
        if self.deconfounder is None:
            return {}
        return {"deconfounder": read_json(self.deconfounder, what="the estimate of a report")}

    def notes(self) -> tuple[str, ...]:
        """See `FineTuningTask`; and texts that are too long."""
        return (*super().notes(), *self.cut_note(self._all(self.data).completions))

    def _all(self, path: Path) -> Scored:
        return self._preferred(path).scored if self.pairs else self._scored(path)

    def _scored(self, path: Path) -> Scored:
        return _scored(self, path)

    def _preferred(self, path: Path) -> Preferred:
        return _preferred(self, path)

    def counts(self) -> list[tuple[str, int, int, int]]:
        """See `NetworkTask`; entries are completions, or pairs."""
        if self.pairs:
            count = len(self._preferred(self.data).chosen)
            return [("pairs", count, 1, count)]
        count = len(self._scored(self.data).outcome)
        return [("completions", count, 1, count)]

    def init_params(self, key: Key) -> Params:
        """The decoder's, and heads with mean and deviation of the outcome."""
        heads = 2 if self.objective in _TWO_HEADS else 1
        mean, std = 0.0, 1.0
        if not self.pairs:
            outcome = self._scored(self.data).outcome
            mean, std = float(outcome.mean()), float(outcome.std())
        kernel = Normal(0.02)(jax.random.fold_in(key, 1), (heads, self.network.width), jnp.float32)
        own = {"kernel": kernel, "mean": jnp.float32(mean), "std": jnp.float32(std)}
        return {**super().init_params(key), SCORE: own}

    def trainable(self, params: Params) -> Any:
        """Everything but mean and deviation of the outcome."""
        learned = jax.tree.map(lambda _: True, params)
        return {**learned, SCORE: {"kernel": True, "mean": False, "std": False}}

    def step(self, tx: optax.GradientTransformation, cfg: TrainConfig, mesh: Mesh | None) -> Step:
        """The gradient step of the loss.

        Raises:
          UserError: micro-batches for ODIN, whose correlations are those of a whole batch.
        """
        if cfg.accum_steps > 1 and self.objective in _TWO_HEADS:
            raise UserError(
                f"Expected whole batches with the objective {self.objective}, found "
                f"{cfg.accum_steps} micro-batches (--train.accum-steps)."
            )
        return super().step(tx, cfg, mesh)

    def batch(
        self, which: Sequence[int] | np.ndarray, length: int, path: Path | None = None
    ) -> dict[str, np.ndarray]:
        """Rows of the data.

        Args:
          which: numbers of completions, or of pairs.
          length: of a row, at most.
          path: of the data; by default those of the training.
        """
        path, chosen = path or self.data, np.asarray(which)
        if self.pairs:
            preferred = self._preferred(path)
            scored = preferred.scored
            length = scored.completions.fitting(length)
            both = np.stack([preferred.chosen[chosen], preferred.rejected[chosen]], axis=1)
            rows = scored.completions.rows(both.reshape(-1), length)
            found = {
                "tokens": rows.tokens.reshape(*both.shape, length),
                "valid": rows.valid.reshape(*both.shape, length),
                "margin": preferred.margin[chosen].astype(np.float32),
            }
        else:
            scored, both = self._scored(path), chosen
            length = scored.completions.fitting(length)
            rows = scored.completions.rows(both, length)
            found = {
                "tokens": rows.tokens,
                "valid": rows.valid,
                "outcome": scored.outcome[both],  # as float64: what is large is not rounded yet
                "weight": scored.weight[both].astype(np.float32),
            }
            mean, std = _moments(self)
            found["outcome"] = ((found["outcome"] - mean) / std).astype(np.float32)
        if self.objective in _TWO_HEADS:
            found["confounder"] = _confounder(self, path)[both].astype(np.float32)
        return found

    def loss(self, variables: Any, batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """The objective, a mean over completions or pairs; that of ODIN is of the whole batch."""
        heads = variables["params"][SCORE]["kernel"]
        states = _states(self.weights(variables, frozen), batch, self.policy)
        if self.objective in _TWO_HEADS:
            return self._two_heads(states, heads, batch)
        scores = states @ heads[0]
        if not self.pairs:
            options: dict[str, Any] = {"weights": batch["weight"], "delta": self.delta}
            kind = "huber" if self.objective == "huber" else "mse"
            found = reward_regression(scores, batch["outcome"], loss=kind, **options)
            return Loss(*found)
        chosen, rejected = scores[::2], scores[1::2]
        hits = Mean.of((chosen > rejected).astype(jnp.float32))
        if self.objective == "soft":
            share = soft_label(batch["margin"], jnp.zeros_like(chosen), self.temperature)
            found = reward_soft(chosen, rejected, share)
        else:
            margin = batch["margin"] if self.margin else None
            found = reward_bt(chosen, rejected, margin=margin, centering=self.centering)
        return Loss(*found, metrics={"accuracy": hits})

    def _two_heads(self, states: Array, heads: Array, batch: Batch) -> Loss:
        confounder = batch["confounder"]
        scores = None if self.pairs else batch["outcome"]
        if self.pairs:  # all chosen ones, then all rejected ones
            states = jnp.concatenate([states[::2], states[1::2]])
            confounder = jnp.concatenate([confounder[:, 0], confounder[:, 1]])
        options: dict[str, Any] = {"ortho": self.ortho, "corr": self.corr, "form": self.form}
        found = odin(states, heads, confounder, scores=scores, **options)
        left = correlation(states @ heads[0], confounder)
        one = jnp.ones(())
        return Loss(found, one, metrics={"confounder_correlation": Mean(left, one)})

    def metric_names(self) -> tuple[str, ...]:
        """How well held-out outcomes or preferences are foreseen by the reward."""
        names = ("accuracy", "loss") if self.pairs else ("r2", "mse")
        return (*names, *(("confounder_correlation",) if self.objective in _TWO_HEADS else ()))

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """Of the reward alone, which is the first head, over held-out data.

        "r2" and "mse" are in the units of the outcome, "loss" is that of Bradley and Terry.
        """
        path = self.held_out or self.data
        if self.pairs:
            preferred = self._preferred(path)
            scored, judged = preferred.scored, self.judged(len(preferred.chosen))
            which = np.concatenate([preferred.chosen[judged], preferred.rejected[judged]])
        else:
            scored = self._scored(path)
            which = self.judged(len(scored.outcome))
        rewards = self._rewards(state.eval_params, frozen, scored, which)
        if self.pairs:
            ahead = rewards[: len(which) // 2] - rewards[len(which) // 2 :]
            found = {
                "accuracy": float(np.mean((ahead > 0) + 0.5 * (ahead == 0))),
                "loss": float(np.mean(np.logaddexp(0, -ahead))),
            }
        else:
            outcome, weight = scored.outcome[which], scored.weight[which]
            square, around = (
                float(np.average((outcome - guess) ** 2, weights=weight))
                for guess in (rewards, np.average(outcome, weights=weight))
            )
            found = {"r2": 1 - square / around if around else 0.0, "mse": square}
        if self.objective in _TWO_HEADS:
            confounder = _confounder(self, path)[which]
            varies = np.ptp(rewards) > 0 and np.ptp(confounder) > 0
            found["confounder_correlation"] = (
                float(np.corrcoef(rewards, confounder)[0, 1]) if varies else 0.0
            )
        return found

    def _rewards(
        self, params: Params, frozen: Frozen, scored: Scored, which: np.ndarray
    ) -> Float[np.ndarray, " n"]:
        """Rewards of some completions, in batches of one size."""
        stage, parts = self.stages[0], []
        length = scored.completions.fitting(stage.patch)
        for first in range(0, len(which), stage.batch_size):
            places = np.arange(first, first + stage.batch_size)
            some = which[np.minimum(places, len(which) - 1)]
            rows = scored.completions.rows(some, length)
            found = _rewards(params, frozen, rows.tokens, rows.valid, policy=self.policy)
            parts.append(np.asarray(found, np.float64))
        return np.concatenate(parts)[: len(which)]


def rewards_of(
    params: Mapping[str, Any], frozen: Frozen, tokens: Array, valid: Array, policy: Policy
) -> Float[Array, " b"]:
    """Rewards of texts by a reward model, in the units of its outcome.

    Args:
      params: of a `RewardTask`.
      frozen: of the task.
      tokens: of prompts and completions, padded on either side.
      valid: False for padding.
      policy: of the task.
    """
    own = params[SCORE]
    weights = policy.weights(params, frozen)
    found = llama.score(weights, own["kernel"][:1], tokens, policy.cfg, valid=valid)[:, 0]
    return own["mean"] + own["std"] * found


_rewards = functools.partial(jax.jit, static_argnames="policy")(rewards_of)


def _states(weights: Params, batch: Batch, policy: Policy) -> Array:
    """State of the last token of each completion; those of a pair follow each other."""
    length = batch["tokens"].shape[-1]
    tokens = jnp.asarray(batch["tokens"]).reshape(-1, length)
    valid = jnp.asarray(batch["valid"]).reshape(-1, length)
    hidden = llama.apply(weights, tokens, policy.cfg, valid=valid, logits="none").hidden
    return llama.last_states(hidden, valid)


@read_once(4)
def _scored(task: RewardTask, path: Path) -> Scored:
    return read_scored(path, task.encoder(), outcome=task.outcome)


@read_once(4)
def _preferred(task: RewardTask, path: Path) -> Preferred:
    options: dict[str, Any] = {"least_gap": task.least_gap, "within": task.within}
    return read_preferred(path, task.encoder(), outcome=task.outcome, **options)


@read_once(4)
def _confounder(task: RewardTask, path: Path) -> Float[np.ndarray, " n"]:
    scored = _preferred(task, path).scored if task.pairs else _scored(task, path)
    return scored.numbers(task.confounder)


def _moments(task: RewardTask) -> tuple[float, float]:
    """Mean and deviation of the outcomes of the training."""
    outcome = _scored(task, task.data).outcome
    return float(outcome.mean()), float(outcome.std())
