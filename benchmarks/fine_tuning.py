"""How fast are language models fine-tuned here, and next to TRL on this processor?

A step of DPO, a step of GRPO (completions, rewards, reference and update) and completions alone, in
float32, against the trainers of TRL and the `generate` of `transformers`: the same weights, the
same batch, completions of the same length, all weights trained, AdamW, as many threads. TRL's own
loop runs, a step whenever it is its turn. That both do the same is seen from the loss of DPO after
some steps on one batch, and from what the completions earn at first.

    python -m benchmarks.fine_tuning            # about 5 minutes on 2 quiet cores
    python -m benchmarks.fine_tuning --smoke    # seconds

"limit" is the time that the matrix products of a step would take at the rate of a large one, or the
reading of all weights for each new token where that is longer; both are measured in the same run.
Without TRL (benchmarks/README.md) the comparison is left out.
"""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import fine_tuning_rival, harness
from benchmarks.fine_tuning_rival import END
from benchmarks.harness import say
from benchmarks.language import bandwidth
from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.parallel import put_batch
from jaxcore.tokenizers import Tokenizer
from jaxcore.train import OptimConfig, TrainConfig, rewards
from jaxcore.train.losses.preference import Preference
from jaxcore.train.policy_gradient import PolicyGradient
from jaxcore.train.prepare import prepare
from jaxcore.train.rollouts import Sampling, sample
from jaxcore.train.task import Task
from jaxcore.train.tasks.policy_gradient import PolicyGradientTask
from jaxcore.train.tasks.preference import PreferenceTask
from jaxcore.weights.export import save_language

RATE = 1e-4
AGREE = 2e-3  # largest difference of the losses of DPO
REWARD = "tokens of the first half"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run."""

    cfg: LlamaConfig
    prompts: int
    prompt: int  # tokens of each
    group: int
    new: int
    repeats: int
    pairs: int


def network(heads: int, **sizes: Any) -> LlamaConfig:
    """A tied decoder without grouped heads."""
    return LlamaConfig(tied=True, max_positions=256, num_heads=heads, num_kv_heads=heads, **sizes)


PARTS = {
    # the network of headlines: everything is overhead
    "tiny": Plan(
        network(vocab_size=40, width=96, depth=3, heads=4, head_dim=24, mlp_width=256),
        prompts=16, prompt=2, group=8, new=8, repeats=10, pairs=64,
    ),
    "small": Plan(
        network(vocab_size=4096, width=256, depth=6, heads=8, head_dim=32, mlp_width=1024),
        prompts=8, prompt=32, group=8, new=64, repeats=5, pairs=16,
    ),
}  # fmt: skip
SMOKE = Plan(LlamaConfig.tiny(tied=True), prompts=2, prompt=2, group=2, new=4, repeats=2, pairs=2)


def earned(tokens: Sequence[int], vocab_size: int) -> float:
    """Share of tokens of the first half of the vocabulary."""
    return sum(token < vocab_size // 2 for token in tokens) / max(1, len(tokens))


def stepping(task: Task, steps: int = 1000) -> Callable[[], Any]:
    """A function that trains for one step; returns its metrics."""
    optim = OptimConfig(learning_rate=RATE, clip_norm=1.0)
    ready = prepare(task, TrainConfig(steps=steps, optim=optim))
    batches, held = task.batches(0, 0), [ready.initial_state(), 0]

    def call() -> Any:
        state, done = held
        key = jax.random.fold_in(jax.random.key(0), done)
        batch = put_batch(next(batches), None)
        made = task.experience(state, batch, key, ready.frozen)
        state, metrics = ready.step(state, batch if made is None else made, ready.frozen)
        held[:] = state, done + 1
        return jax.block_until_ready(metrics)

    return call


def products(cfg: LlamaConfig, tokens: int) -> float:
    """GFLOP of reading tokens once, attention to others left out."""
    layer = cfg.width * cfg.head_dim * 2 * (cfg.num_heads + cfg.num_kv_heads)
    layer += 3 * cfg.width * cfg.mlp_width
    return 2 * tokens * (cfg.depth * layer + cfg.vocab_size * cfg.width) / 1e9


def measured(plan: Plan) -> dict[str, Any]:
    """Everything about one size."""
    rng = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp())
    params = llama.init(jax.random.key(0), plan.cfg)
    weights = llama.to_torch(params, plan.cfg)
    words = Tokenizer(engine=fine_tuning_rival.engine(plan.cfg.vocab_size))  # nothing ends a text
    save_language(folder / "model", plan.cfg, params, words)
    installed = _installed()
    draw = functools.partial(_tokens, rng, plan.cfg)
    pairs = [
        {
            "prompt": draw(plan.prompt),
            "chosen": [*draw(plan.new - 1), END],
            "rejected": [*draw(plan.new - 1), END],
        }
        for _ in range(plan.pairs)
    ]
    prompts = [draw(plan.prompt) for _ in range(plan.prompts)]
    options: dict[str, Any] = {"base": str(folder / "model"), "adapters": False}
    machine = {**bandwidth(params), **harness.limits("matrix_product_gflop_s")}
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    found: dict[str, Any] = {"parameters": size // 4, "machine": machine}

    # A step of DPO reads all texts once by the reference and three times' worth for the gradient.
    length = plan.prompt + plan.new
    task = PreferenceTask(
        **options,
        data=_written(folder / "pairs.jsonl", pairs),
        preference=Preference(beta=0.1),
        stages=(Stage(steps=None, patch=length, batch_size=plan.pairs),),
    ).settled()
    tokens = 2 * plan.pairs * length
    least = 4 * products(plan.cfg, tokens) / machine["matrix_product_gflop_s"]
    ours = stepping(task)
    losses: list[float] = []
    calls: dict[str, harness.Call] = {"jaxcore": lambda: losses.append(float(ours()["loss"]))}
    if installed:
        strip = [{**pair, "chosen": pair["chosen"][:-1], "rejected": pair["rejected"][:-1]}
                 for pair in pairs]  # fmt: skip
        calls["trl"] = fine_tuning_rival.dpo(plan.cfg, weights, strip, RATE)
    found["dpo"] = _compared(calls, plan.repeats, tokens, least)
    found["dpo"]["loss"] = round(losses[-1], 5)
    if isinstance(theirs := calls.get("trl"), fine_tuning_rival.Steps):
        found["dpo"]["trl_loss"] = round(theirs.losses[-1], 5)
        if abs(found["dpo"]["loss"] - found["dpo"]["trl_loss"]) > AGREE:
            raise UserError(
                f"The losses differ: {losses[-1]:.5f} here, {theirs.losses[-1]:.5f} in TRL."
            )

    # A step of GRPO writes completions, and reads them by the reference and for the gradient.
    reward = functools.partial(earned, vocab_size=plan.cfg.vocab_size)
    rewards.register(f"{REWARD} {plan.cfg.vocab_size}", _rewarded(plan.cfg.vocab_size))
    sampling = Sampling(group=plan.group, max_new_tokens=plan.new, banned=(END,))
    task = PolicyGradientTask(
        **options,
        data=_written(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts]),
        rewards=(f"{REWARD} {plan.cfg.vocab_size}",),
        method=PolicyGradient(beta=0.1, truncated="keep"),
        sampling=sampling,
        stages=(Stage(steps=None, patch=256, batch_size=plan.prompts),),
    ).settled()
    new = plan.prompts * plan.group * plan.new
    read = products(plan.cfg, plan.prompts * plan.group * length) * 4
    write = _writing(plan, size, machine)
    least = read / machine["matrix_product_gflop_s"] + write
    step = stepping(task)
    earned_first: list[float] = []
    calls = {"jaxcore": lambda: earned_first.append(float(step()["reward"]))}
    if installed:
        calls["trl"] = fine_tuning_rival.grpo(
            plan.cfg, weights, prompts, group=plan.group, new=plan.new, reward=reward, rate=RATE
        )
    found["grpo"] = _compared(calls, plan.repeats, new, least)

    rows = np.asarray(prompts, np.int32)
    apart, valid = llama.unstacked(params), jnp.ones(rows.shape, bool)
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    calls = {
        "jaxcore": lambda: (
            sample(apart, plan.cfg, jnp.asarray(rows), valid, next(keys), sampling, eos=()).tokens
        )
    }
    if installed:
        calls["transformers"] = fine_tuning_rival.rollout(
            plan.cfg, weights, rows, plan.group, plan.new
        )
    found["completions"] = _compared(calls, plan.repeats, new, write)
    return found


def _writing(plan: Plan, size: int, machine: dict[str, float]) -> float:
    """Seconds in which completions can be written at best."""
    each = products(plan.cfg, plan.prompts * plan.group) / machine["matrix_product_gflop_s"]
    return plan.new * max(each, size / machine["read_gb_s"] / 1e9)


def _installed() -> bool:
    try:
        import trl  # noqa: F401  # whether it is there
    except ImportError as error:
        say(f"no rival: {error.name} is not installed")
        return False
    return True


def _tokens(rng: np.random.Generator, cfg: LlamaConfig, count: int) -> list[int]:
    return rng.integers(END + 1, cfg.vocab_size, count).tolist()


def _rewarded(vocab_size: int) -> rewards.Reward:
    return lambda completions: [earned(found.tokens, vocab_size) for found in completions]


def _written(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _compared(
    calls: dict[str, harness.Call], repeats: int, tokens: int, least: float
) -> dict[str, Any]:
    times = harness.interleaved(calls, repeats, warm_up=2)
    rivals = tuple(name for name in calls if name != "jaxcore")
    if rivals:
        times["jaxcore"] |= harness.ratios(times, "jaxcore", rivals)
    for about in times.values():
        about["tokens_per_s"] = round(tokens / about["median_s"], 1)
        about["share_of_limit"] = round(least / about["median_s"], 3)
    say("  " + ", ".join(f"{name} {t['tokens_per_s']:,} tokens/s" for name, t in times.items()))
    return {**times, "tokens": tokens, "limit_tokens_per_s": round(tokens / least, 1)}


def main(
    smoke: bool = False,
    output: Path = harness.RESULTS / "fine_tuning.json",
    parts: tuple[str, ...] = tuple(PARTS),
) -> None:
    """Run everything and write JSON after each part.

    Args:
      smoke: a network of some hundred weights and two repeats, to see that the benchmark works.
      output: the file to write; parts that are not run stay as they are in it.
      parts: tiny, small.
    """

    def run(part: str) -> dict[str, Any]:
        say(part)
        return {"smoke": smoke, **measured(SMOKE if smoke else PARTS[part])}

    harness.record_parts(output, parts[:1] if smoke else parts, run, "torch", "transformers", "trl")


if __name__ == "__main__":
    tyro.cli(main)
