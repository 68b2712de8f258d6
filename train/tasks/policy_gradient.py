"""A decoder learns from what its own completions earn: GRPO and relatives, RLOO, PPO."""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

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
from jaxcore.places import read_once
from jaxcore.train import policy_gradient
from jaxcore.train import rewards as reward_functions
from jaxcore.train.losses.advantages import Rewards, combined, zero_variance
from jaxcore.train.losses.sequences import sequence_sum
from jaxcore.train.policy import Policy
from jaxcore.train.policy_gradient import PolicyGradient
from jaxcore.train.rewards import Completion, given, names
from jaxcore.train.rollouts import Rollout, Sampling, check_ends, sample, weights_for_sampling
from jaxcore.train.state import TrainState
from jaxcore.train.task import Frozen, Loss
from jaxcore.train.tasks.fine_tuning import FineTuningTask
from jaxcore.typing import Batch, Key, Params
from jaxcore.weights.rewards import RewardModel, load_reward

VALUE = "value"
"""Name of the head of values among the parameters of PPO."""
SCORING = "scoring"
"""Name of the reward models in what is frozen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradientTask(FineTuningTask):
    """Completions are sampled from the policy as it is, scored, and learned from.

    A batch is so many prompts, each with ``sampling.group`` completions. ``patch`` of a stage is
    the longest prompt that is allowed. Lines of the data: see `jaxcore.data.prompts.read_prompts`.

    >>> task = PolicyGradientTask(base="smollm2", rewards=("brevity",))
    >>> PolicyGradientTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "lm_grpo"
    items_name: ClassVar[str] = "prompts"
    changeable: ClassVar[tuple[str, ...]] = ("held_out", "eval_prompts")
    data: Path = Path("prompts.jsonl")  # JSON lines with a "prompt"
    rewards: tuple[str, ...] = ()  # names of `jaxcore.train.rewards`: match, contains, brevity
    reward_models: tuple[Path, ...] = ()  # runs of lm-reward
    reward_weights: tuple[float, ...] = ()  # of all rewards in this order; (): all count once
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
        count = len(self.rewards) + len(self.reward_models)
        if self.reward_weights and len(self.reward_weights) != count:
            found.append(
                f"reward_weights must be as many as the {count} rewards, found "
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
        if not self.rewards and not self.reward_models:
            raise UserError(
                f"Expected something to reward (--rewards {' '.join(names())} or --reward-models "
                "RUN), found nothing."
            )
        for name in self.rewards:
            for path in (self.data, self.held_out):
                reward_functions.check(
                    name, self.prompts(path).lines, texts=self.words() is not None
                )
        for run in self.reward_models:
            self._check_words(run)
        if not self.end_tokens() and self.method.truncated != "keep":
            raise UserError(
                "Expected tokens that end a completion (--ends), or --method.truncated keep, found "
                "no tokenizer that knows some."
            )
        check_ends(self.end_tokens(), self.sampling)
        for path in (self.data, self.held_out):
            prompts = self.prompts(path)
            length = prompts.tokens.shape[1] + self.sampling.max_new_tokens
            if length > self.network.max_positions:
                raise UserError(
                    f"Expected prompts and completions of at most {self.network.max_positions} "
                    f"tokens, found {length}: see --sampling.max-new-tokens."
                )

    def _check_words(self, run: Path) -> None:
        """Refuse a reward model that reads other tokens."""
        model, ours = _reward_model(run), self.words()
        theirs = model.tokenizer
        same = model.policy.cfg.vocab_size >= self.network.vocab_size
        if theirs is not None and ours is not None:
            same = same and theirs.fingerprint == ours.fingerprint
        if not same or (theirs is None) != (ours is None):
            raise UserError(
                f"Expected a reward model with the tokenizer of the language model, found another "
                f"one in {run}."
            )

    def notes(self) -> tuple[str, ...]:
        """Reward models of which it is not known what their rewards are free of."""
        return tuple(
            f"the rewards of {run} are not known to be free of what confounders did: they were "
            "trained without --deconfounder"
            for run in self.reward_models
            if _reward_model(run).deconfounder is None
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

    def frozen(self) -> Frozen:
        """The base, where it stays or is the reference, and the reward models."""
        models = [_reward_model(run) for run in self.reward_models]
        scoring = [{"params": model.params, "frozen": model.frozen} for model in models]
        own = super().frozen()
        return {**(own or {}), SCORING: scoring} if scoring else own

    # --- a step -----------------------------------------------------------------------------------

    def experience(self, state: TrainState, batch: Batch, key: Key, frozen: Frozen) -> Batch:
        """Completions of the prompts, their rewards, and what the loss compares with."""
        weights = weights_for_sampling(state.params, frozen, self.policy)
        lines = [self.prompts().lines[entry] for entry in np.asarray(batch["entries"])]
        rollout, rewards = self._scored(weights, frozen, batch, lines, key)
        for again in range(1, self.resample + 1):
            stale = zero_variance(*(x.reshape(len(lines), -1) for x in rewards))
            if not bool(jnp.any(stale)):
                break
            other = self._scored(weights, frozen, batch, lines, jax.random.fold_in(key, again))
            rows = jnp.repeat(stale, self.sampling.group)
            rollout, rewards = _chosen(rows, other, (rollout, rewards))
        before: dict[str, Any] = {}
        if self.method.before_update or self.inner_steps > 1:
            before["old"], values = self._read(state.params, frozen, rollout)
            before["values"] = values
        if self.referred:
            before["reference"], _ = self._read({}, frozen, rollout, reference=True)
        made = _targets(rollout, rewards, self.method, group=self.sampling.group, **before)
        return {"texts": rollout.texts, "valid": rollout.valid, **made}

    def _scored(
        self,
        weights: Params,
        frozen: Frozen,
        batch: Batch,
        lines: Sequence[Mapping[str, Any]],
        key: Key,
        *,
        group: int | None = None,
    ) -> tuple[Rollout, Rewards]:
        """Completions and their rewards, added up."""
        words = self.words()
        sampling = dataclasses.replace(self.sampling, group=group or self.sampling.group)
        ends, pad = self.end_tokens(), 0 if words is None else words.pad
        if words is not None and pad not in (*ends, *sampling.banned):
            sampling = dataclasses.replace(sampling, banned=(*sampling.banned, pad))
        tokens, valid = jnp.asarray(batch["prompts"]), jnp.asarray(batch["valid"])
        options: dict[str, Any] = {"eos": ends, "pad": pad, "logps": False}
        rollout = sample(weights, self.network, tokens, valid, key, sampling, **options)
        completions = list(self._completions(rollout, lines, sampling.group))
        each = [jnp.asarray(given(name, completions)) for name in self.rewards]
        for run, model in zip(self.reward_models, (frozen or {}).get(SCORING, ()), strict=True):
            placed = dataclasses.replace(_reward_model(run), **model)
            each.append(placed.rewards(rollout.texts, rollout.valid))
        parts = jnp.asarray(self.reward_weights) if self.reward_weights else None
        return rollout, combined(jnp.stack(each), parts)

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

    def brief(self) -> Self:
        """With two prompts to judge by."""
        return dataclasses.replace(self, eval_prompts=2)

    def evaluation_size(self) -> int:
        """Prompts that are judged by."""
        return min(self.eval_prompts, len(self.prompts(self.held_out).lines))

    def evaluate(self, state: TrainState, frozen: Frozen) -> dict[str, float]:
        """One completion of each of the first held-out prompts, always by the same key."""
        prompts, count = self.prompts(self.held_out), self.evaluation_size()
        size, params = min(count, self.stages[0].batch_size), state.eval_params
        weights = weights_for_sampling(params, frozen, self.policy)
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.metric_names()}
        for first in range(0, count, size):
            # The last batch begins anew at the first prompt, so that one program serves all.
            which = [(first + i) % count for i in range(size)]
            rows = {"prompts": prompts.tokens[which], "valid": prompts.valid[which]}
            key = jax.random.fold_in(jax.random.key(0), first)
            lines = [prompts.lines[entry] for entry in which]
            rollout, rewards = self._scored(weights, frozen, rows, lines, key, group=1)
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


_targets = jax.jit(policy_gradient.targets, static_argnames=("settings", "group"))


def _mean(values: np.ndarray) -> float:
    """Mean of what is there; 0 of nothing."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else 0.0


def _chosen(rows: Array, new: Any, old: Any) -> Any:
    def either(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(either, new, old)


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


@read_once(4)
def _reward_model(run: Path) -> RewardModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `notes` says it
        return load_reward(run)


@read_once(4)
def _prompts(task: PolicyGradientTask, path: Path) -> Prompts:
    return read_prompts(path, task.encoder(), max(stage.patch for stage in task.stages))
