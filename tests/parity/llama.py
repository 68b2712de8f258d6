"""Checks of the golden files of the language decoder."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.models import llama
from jaxcore.nn import capture
from tests.parity.golden import Golden, close

_FIELDS = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "intermediate_size": "mlp_width",
    "vocab_size": "vocab_size",
    "rms_norm_eps": "epsilon",
    "rope_theta": "theta",
    "tie_word_embeddings": "tied",
    "attention_bias": "qkv_bias",
}


def network(file: Golden, weights=None):
    """Configuration and parameters of the decoder of a file, or of some of its weights."""
    sizes = {ours: file.config[theirs] for theirs, ours in _FIELDS.items()}
    head_dim = file.config["hidden_size"] // file.config["num_attention_heads"]
    weights = file.group("param") if weights is None else weights
    cfg = llama.config_from_state_dict(weights, head_dim=head_dim)
    assert {name: getattr(cfg, name) for name in sizes} == sizes
    return cfg, llama.from_torch(weights, cfg)


def check_llama(path: Path) -> None:
    """Prefill with left padding, inside the network, cache, and tokens one by one."""
    file = Golden(path)
    cfg, params = network(file)
    tokens, valid = file["in/input_ids"].astype(np.int32), file["in/attention_mask"].astype(bool)
    rows, length = tokens.shape
    steps = file["in/next_ids"].shape[1]

    def prefill(params, tokens, valid):
        cache = llama.init_cache(cfg, rows, length + steps)
        return llama.apply(params, tokens, cfg, valid=valid, cache=cache)

    def same(ours, golden, what):
        """Where there is no padding."""
        close(np.where(mask(golden), ours, 0), np.where(mask(golden), golden, 0), what=what, **TOL)

    def mask(golden):
        return valid.reshape(valid.shape + (1,) * (golden.ndim - 2))

    out, seen = jax.jit(capture(prefill))(params, tokens, valid)
    same(out.logits, file["out/logits"], "logits")
    hidden = [seen["embeddings"], *seen["layers/out"][:-1], out.hidden]
    for i, ours in enumerate(hidden):
        same(ours, file[f"mid/hidden_{i}"], f"hidden_{i}")
    for i, ours in enumerate(seen["layers/attention"]):
        golden = np.moveaxis(file[f"mid/attn_{i}"], 1, 2)
        same(np.moveaxis(np.asarray(ours)[..., :length], 1, 2), golden, f"attn_{i}")
    for i in range(cfg.depth):
        for name, ours in (("k", out.cache.keys), ("v", out.cache.values)):
            golden = np.moveaxis(file[f"mid/cache_{name}_{i}"], 1, 2)
            same(np.moveaxis(np.asarray(ours)[i, :, :, :length], 1, 2), golden, f"cache_{name}_{i}")
    plain = jax.jit(prefill)(params, tokens, valid)
    same(plain.logits, file["out/logits"], "logits without looking inside")
    step, cache = jax.jit(llama.step(params, cfg)), plain.cache
    for i in range(steps):
        logits, cache = step(jnp.asarray(file["in/next_ids"][:, i : i + 1], jnp.int32), cache)
        close(logits, file["out/decode_logits"][:, i], what=f"decode_logits {i}", **TOL)


TOL = {"atol": 1e-4, "rtol": 0}
CHECKS: dict[str, Callable[[Path], None]] = {"llama_tiny": check_llama}
