"""A decoder learns from what its own completions earn: GRPO and relatives, RLOO, PPO."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcore.bounds import Count, Index
from jaxcore.data.images.pipeline import Stage
from jaxcore.data.prompts import Prompts, read_prompts
from jaxcore.data.stream import Draw, Stream, stream
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.train import policy_gradient
from jaxcore.train.losses.advantages import Rewards, combined, zero_variance
from jaxcore.train.losses.sequences import sequence_sum
from jaxcore.train.policy import Policy
from jaxcore.train.policy_gradient import PolicyGradient
from jaxcore.train.rewards import Completion, look_up, rewards_of
from jaxcore.train.rollouts import Rollout, Sampling, sample
from jaxcore.train.state import TrainState
from jaxcore.train.task import Frozen, Loss
from jaxcore.train.tasks.fine_tuning import FineTuningTask
from jaxcore.typing import Batch, Key, Params

VALUE = "value"
"""Name of the head of values among the parameters of PPO."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradientTask(FineTuningTask):
    """Completions are sampled from the policy as it is, scored, and learned from.

    A batch is so many prompts, each with ``sampling.group`` completions. ``patch`` of a stage is
    the longest prompt that is allowed. Lines of the data: see `jaxcore.data.prompts.read_prompts`.

    >>> task = PolicyGradientTask(base="smollm2", rewards=("brevity",))
    >>> PolicyGradientTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "policy_gradient"
    unit: ClassVar[str] = "prompts"
    changeable: ClassVar[tuple[str, ...]] = ("held_out", "eval_prompts")
    data: Path = Path("prompts.jsonl")  # JSON lines with a "prompt"
    rewards: tuple[str, ...] = ("match",)  # names of `jaxcore.train.rewards`
    reward_weights: tuple[float, ...] = ()  # of several rewards; (): all count once
    method: PolicyGradient = dataclasses.field(default_factory=PolicyGradient)
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    ends: tuple[Index, ...] = ()  # tokens that end a completion; (): those of the tokenizer
    resample: Index = 0  # how often prompts whose completions all earn the same are tried again
    inner_steps: Count = 1  # updates on the completions of a batch
    eval_prompts: Count = 256  # at most so many of the held-out prompts are judged by
    stages: tuple[Stage, ...] = (Stage(steps=None, patch=256, batch_size=32),)

    def problems(self) -> list[str]:
        """Groups of one, and weights that belong to no reward."""
        found = super().problems()
        if self.sampling.group < 2 and not self.method.valued:
            found.append("sampling.group must be at least 2, to be compared with, found 1")
        if not self.rewards:
            found.append("rewards must be at least one, found none")
        if self.reward_weights and len(self.reward_weights) != len(self.rewards):
            found.append(
                f"reward_weights must be as many as the {len(self.rewards)} rewards, found "
                f"{len(self.reward_weights)}"
            )
        return found

    @property
    def referred(self) -> bool:  # type: ignore[override]  # a constant there
        """Whether there is a reference."""
        return self.method.beta > 0

    @property
    def rows_per_item(self) -> int:  # type: ignore[override]  # a field there
        """The completions of a prompt stay together."""
        return self.sampling.group

    # --- data -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Read the prompts and look for the rewards before anything is written.

        Raises:
          UserError: something is missing or does not fit.
        """
        super().check()
        if jax.process_count() > 1:
            raise UserError(
                f"Expected one process, as rewards look at all completions, found "
                f"{jax.process_count()}."
            )
        for name in self.rewards:
            look_up(name)
        if not self.end_tokens() and self.method.truncated != "keep":
            raise UserError(
                "Expected tokens that end a completion (--ends), or --method.truncated keep, found "
                "no tokenizer that knows some."
            )
        for path in (self.data, self.held_out):
            prompts = self.prompts(path)
            length = prompts.tokens.shape[1] + self.sampling.max_new_tokens
            if length > self.network.max_positions:
                raise UserError(
                    f"Expected prompts and completions of at most {self.network.max_positions} "
                    f"tokens, found {length}: see --sampling.max-new-tokens."
                )

    def end_tokens(self) -> tuple[int, ...]:
        """Tokens that end a completion."""
        words = self.words()
        return self.ends or (() if words is None else tuple(words.eos))

    def prompts(self, path: Path | None = None) -> Prompts:
        """The prompts of a file; by default of the training."""
        return _prompts(self, path or self.data)

    def counts(self) -> list[tuple[str, int, int, int]]:
        """See `NetworkTask`; entries are prompts."""
        count = len(self.prompts().lines)
        return [("prompts", count, 1, count)]

    def batches(self, seed: int, start_step: int) -> Stream:
        """Prompts in random order."""
        prompts = self.prompts()

        def make(stage: Stage, draws: Sequence[Draw]) -> dict[str, np.ndarray]:
            entries = np.array([draw.entry for draw in draws], np.int32)
            tokens, valid = prompts.tokens[entries], prompts.valid[entries]
            return {"prompts": tokens, "valid": valid, "entries": entries}

        count = {"prompts": len(prompts.lines)}
        options: dict[str, Any] = {"start_step": start_step, "num_threads": 0}
        return stream(make, self.stages, entries=count, seed=seed, **options)

    # --- parameters -------------------------------------------------------------------------------

    def init_params(self, key: Key) -> Params:
        """Those of the policy, and of PPO a head of values, zero at first."""
        params = super().init_params(key)
        if self.method.valued:
            width = self.network.width
            params[VALUE] = {"kernel": jnp.zeros((width, 1)), "bias": jnp.zeros((1,))}
        return params

    # --- a step -----------------------------------------------------------------------------------

    def experience(self, state: TrainState, batch: Batch, key: Key, frozen: Frozen) -> Batch:
        """Completions of the prompts, their rewards, and what the loss compares with."""
        weights = _for_sampling(state.params, frozen, policy=self.policy)
        lines = [self.prompts().lines[entry] for entry in np.asarray(batch["entries"])]
        rollout, rewards = self._scored(weights, batch, lines, key, self.sampling)
        for again in range(1, self.resample + 1):
            stale = zero_variance(*(x.reshape(len(lines), -1) for x in rewards))
            if not bool(jnp.any(stale)):
                break
            other = self._scored(weights, batch, lines, jax.random.fold_in(key, again))
            rows = jnp.repeat(stale, self.sampling.group)
            rollout, rewards = _chosen(rows, other, (rollout, rewards))
        before: dict[str, Any] = {}
        if self.method.before_update or self.inner_steps > 1:
            before["old"], values = self._read(state.params, frozen, rollout)
            before["values"] = values
        if self.referred:
            before["reference"], _ = self._read({}, frozen, rollout, reference=True)
        made = policy_gradient.targets(
            rollout, rewards, self.method, group=self.sampling.group, **before
        )
        return {"texts": rollout.texts, "valid": rollout.valid, **made}

    def _scored(
        self,
        weights: Params,
        batch: Batch,
        lines: Sequence[Mapping[str, Any]],
        key: Key,
        sampling: Sampling | None = None,
    ) -> tuple[Rollout, Rewards]:
        """Completions and their rewards, added up."""
        words, sampling = self.words(), sampling or self.sampling
        ends, pad = self.end_tokens(), 0 if words is None else words.pad
        if words is not None and pad not in (*ends, *sampling.banned):
            sampling = dataclasses.replace(sampling, banned=(*sampling.banned, pad))
        tokens, valid = jnp.asarray(batch["prompts"]), jnp.asarray(batch["valid"])
        rollout = sample(weights, self.network, tokens, valid, key, sampling, eos=ends, pad=pad)
        completions = list(self._completions(rollout, lines, sampling.group))
        each = np.stack([rewards_of(name, completions) for name in self.rewards])
        parts = jnp.asarray(self.reward_weights) if self.reward_weights else None
        return rollout, combined(jnp.asarray(each), parts)

    def _completions(
        self, rollout: Rollout, lines: Sequence[Mapping[str, Any]], group: int
    ) -> Iterator[Completion]:
        words = self.words()
        lengths, ended = np.asarray(rollout.lengths), np.asarray(rollout.ended)
        for row, tokens in enumerate(np.asarray(rollout.tokens).tolist()):
            said = tokens[: lengths[row] - int(ended[row])]
            text = None if words is None else words.decode(said)
            yield Completion(text, said, bool(ended[row]), lines[row // group])

    def _read(
        self, params: Params, frozen: Frozen, rollout: Rollout, *, reference: bool = False
    ) -> tuple[Array, Array | None]:
        """Log-probabilities, and values, of the tokens of completions."""
        return _read(
            params,
            frozen,
            rollout.texts,
            rollout.valid,
            reference=reference,
            policy=self.policy,
            new=rollout.tokens.shape[1],
            chunk=self.chunk,
            temperature=self.sampling.temperature,
        )

    def loss(self, variables: Any, batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """See `jaxcore.train.policy_gradient.loss`."""
        params = variables["params"]
        new = batch["mask"].shape[1]
        logps, values = _log_probs(
            self.policy.weights(params, frozen),
            jnp.asarray(batch["texts"]),
            jnp.asarray(batch["valid"]),
            params.get(VALUE),
            policy=self.policy,
            new=new,
            chunk=self.chunk,
            temperature=self.sampling.temperature,
        )
        return policy_gradient.loss(logps, batch, self.method, values)

    # --- evaluation -------------------------------------------------------------------------------

    def metric_names(self) -> tuple[str, ...]:
        """Of completions: mean reward, tokens, share cut short, divergence from the reference."""
        return ("reward", "tokens", "truncated", *(("kl",) if self.referred else ()))

    def evaluation_size(self) -> int:
        """Prompts that are judged by."""
        return min(self.eval_prompts, len(self.prompts(self.held_out).lines))

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """One completion of each of the first held-out prompts, always by the same key."""
        prompts, count = self.prompts(self.held_out), self.evaluation_size()
        size, params = min(count, self.stages[0].batch_size), state.eval_params
        weights = _for_sampling(params, frozen, policy=self.policy)
        sampling = dataclasses.replace(self.sampling, group=1)
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.metric_names()}
        for first in range(0, count, size):
            # The last batch begins anew at the first prompt, so that one program serves all.
            which = [(first + i) % count for i in range(size)]
            rows = {"prompts": prompts.tokens[which], "valid": prompts.valid[which]}
            key = jax.random.fold_in(jax.random.key(0), first)
            lines = [prompts.lines[entry] for entry in which]
            rollout, rewards = self._scored(weights, rows, lines, key, sampling)
            kept = slice(None, min(size, count - first))
            missing = jnp.where(rewards.valid, rewards.total, jnp.nan)
            found["reward"].append(np.asarray(missing)[kept])
            found["tokens"].append(np.asarray(rollout.lengths)[kept])
            found["truncated"].append(1 - np.asarray(rollout.ended)[kept])
            if self.referred:
                own, _ = self._read(params, frozen, rollout)
                reference, _ = self._read({}, frozen, rollout, reference=True)
                found["kl"].append(np.asarray(sequence_sum(own - reference, rollout.mask))[kept])
        return {name: _mean(np.concatenate(each)) for name, each in found.items()}


def _mean(values: np.ndarray) -> float:
    """Mean of what is there; 0 of nothing."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else 0.0


def _chosen(rows: Array, new: Any, old: Any) -> Any:
    def either(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(either, new, old)


@functools.partial(jax.jit, static_argnames="policy")
def _for_sampling(params: Params, frozen: Frozen, *, policy: Policy) -> Params:
    """Weights of the policy, on a CPU apart for every layer, which is faster token by token."""
    weights = policy.weights(params, frozen)
    alone = jax.default_backend() == "cpu" and jax.device_count() == 1
    return llama.unstacked(weights) if alone else weights


def _log_probs(
    weights: Params,
    texts: Int[Array, "b tn"],
    valid: Array,
    head: Params | None,
    *,
    policy: Policy,
    new: int,
    chunk: int,
    temperature: float,
) -> tuple[Float[Array, "b n"], Float[Array, "b n"] | None]:
    """Log-probabilities of the last ``new`` tokens of rows, and values before each."""
    cfg = policy.cfg
    hidden = llama.apply(weights, texts, cfg, valid=valid, logits="none").hidden
    hidden, tokens = hidden[:, -new - 1 :], texts[:, -new - 1 :]
    cooled = hidden if temperature == 1 else hidden / jnp.asarray(temperature, hidden.dtype)
    logps = llama.token_log_probs(weights, cooled, tokens, cfg, chunk=chunk)[:, 1:]
    if head is None:
        return logps, None
    before = hidden[:, :-1].astype(jnp.float32)
    return logps, (before @ head["kernel"] + head["bias"][None, None])[..., 0]


@functools.partial(jax.jit, static_argnames=("policy", "new", "chunk", "temperature", "reference"))
def _read(
    params: Params,
    frozen: Frozen,
    texts: Array,
    valid: Array,
    *,
    reference: bool,
    policy: Policy,
    new: int,
    chunk: int,
    temperature: float,
) -> tuple[Array, Array | None]:
    weights = policy.reference(frozen) if reference else policy.weights(params, frozen)
    sizes: dict[str, Any] = {"new": new, "chunk": chunk, "temperature": temperature}
    return _log_probs(weights, texts, valid, params.get(VALUE), policy=policy, **sizes)


@functools.lru_cache(maxsize=4)
def _prompts(task: PolicyGradientTask, path: Path) -> Prompts:
    return read_prompts(path, task.encoder(), max(stage.patch for stage in task.stages))
