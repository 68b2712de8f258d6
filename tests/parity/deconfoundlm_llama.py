"""Checks of the golden language model of deconfoundlm: tokens in, rewards and adapters."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.convert.rules import official_shapes
from jaxcore.generate import Sampler, generate
from jaxcore.models import llama
from jaxcore.nn import capture
from jaxcore.train import lora
from tests.parity.golden import Golden, close
from tests.parity.llama import network


def _close(ours, golden: np.ndarray, what: str) -> None:
    """Within a share of the largest entry."""
    close(ours, golden, atol=2e-5 * float(np.max(np.abs(golden))), rtol=0, what=what)


def check_tiny_llama(path: Path) -> None:
    """Logits, hidden states, rewards, left padding, packing, adapters, greedy tokens."""
    file = Golden(path)
    weights = file.group("param")
    adapters = {k.removeprefix("lora."): v for k, v in weights.items() if k.startswith("lora.")}
    score = weights["score.weight"]
    base = {k: v for k, v in weights.items() if k.startswith("model.")}
    cfg, params = network(file, base)
    tokens, mask = file["in/input_ids"].astype(np.int32), file["in/attention_mask"].astype(bool)

    # The reference counts positions on through padding, which is on the right here.
    places = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)

    def read(params) -> Any:
        return llama.apply(params, tokens, cfg, valid=mask, positions=places)

    out, seen = jax.jit(capture(read))(params)
    _close(out.logits, file["out/logits"], "logits")
    states = [seen["embeddings"], *seen["layers/out"][:-1], out.hidden]
    for i, ours in enumerate(states):
        _close(ours, file[f"mid/hidden_{i}"], f"hidden_{i}")
    lp = jnp.take_along_axis(jax.nn.log_softmax(out.logits[:, :-1]), tokens[:, 1:, None], -1)
    lp = jnp.where(mask[:, 1:], lp[..., 0], 0)
    _close(lp, file["out/token_logps"], "token_logps")
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    reward = out.hidden[np.arange(len(last)), last] @ score[0]
    _close(reward, file["out/reward_score"], "reward_score")

    left = file["in/leftpad_ids"].astype(np.int32), file["in/leftpad_mask"].astype(bool)
    ends: Any = llama.apply(params, left[0], cfg, valid=left[1], logits="last").logits
    _close(ends[:, 0], file["out/leftpad_last_logits"], "leftpad_last_logits")
    packed = file["in/packed_ids"].astype(np.int32), file["in/packed_segment"].astype(np.int32)
    ours = llama.apply(params, packed[0], cfg, segments=packed[1]).logits
    _close(ours, file["out/packed_logits"], "packed_logits")

    config = {
        "peft_type": "LORA",
        "r": file.config["lora_r"],
        "lora_alpha": file.config["lora_alpha"],
        "target_modules": ["q_proj", "v_proj", "gate_proj"],
    }
    stored = {f"base_model.model.{k}": v for k, v in adapters.items()}
    found, settings = lora.from_peft(stored, config, params, llama.rules(cfg))
    merged = lora.merge(params, found, llama.rules(cfg), settings)
    _close(read(merged).logits, file["out/lora_logits"], "lora_logits")
    again, _ = lora.to_peft(found, params, llama.rules(cfg), settings)
    assert again.keys() == stored.keys()
    for name, value in stored.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)

    prompt, wanted = file["in/greedy_prompt"].astype(np.int32), file["out/greedy_tokens"]
    new = wanted.shape[1] - prompt.shape[1]
    cache = llama.init_cache(cfg, 1, wanted.shape[1])
    start: Any = llama.apply(params, prompt, cfg, cache=cache, logits="last")
    generated = generate(
        llama.step(params, cfg),
        start.cache,
        start.logits[:, 0],
        keys=jax.random.split(jax.random.key(0), 1),
        sampler=Sampler(temperature=0.0),
        max_new_tokens=new,
        eos=(),
    )
    np.testing.assert_array_equal(generated.tokens, wanted[:, prompt.shape[1] :])


def check_state_dict_full(path: Path) -> None:
    """Official keys and shapes of the base models that are meant, and their sizes."""
    stored = json.loads(path.read_text())
    known = {
        "SmolLM2-135M": (llama.LlamaConfig.smollm2_135m(), 134_515_008),
        "Llama-3.2-1B": (
            llama.LlamaConfig(
                vocab_size=128256,
                width=2048,
                depth=16,
                num_heads=32,
                num_kv_heads=8,
                head_dim=64,
                mlp_width=8192,
                theta=5e5,
                rope=llama.RopeScaling(kind="llama3", factor=32, low=1, high=4, length=8192),
                tied=True,
                max_positions=131072,
            ),
            1_235_814_400,
        ),
    }
    for name, (cfg, count) in known.items():
        shapes = official_shapes(llama.param_shapes(cfg), llama.rules(cfg))
        assert {k: list(v) for k, v in shapes.items()} == stored[name], name
        assert sum(int(np.prod(v)) for v in shapes.values()) == count, name
    cfg = llama.LlamaConfig.smollm2_135m()
    made = jax.eval_shape(
        lambda key: lora.init(key, llama.param_shapes(cfg), llama.rules(cfg), lora.LoRA()),
        jax.random.key(0),
    )
    assert lora.count(made) == 4_884_480


CHECKS = {"tiny_llama": check_tiny_llama, "state_dict_full": check_state_dict_full}
