"""Checks of the golden files of CLIP's image part."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxcore.models import clip
from jaxcore.nn import capture
from tests.parity.golden import Golden, close

_FIELDS = {
    "hidden_size": "width",
    "intermediate_size": "mlp_width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "hidden_act": "activation",
    "layer_norm_eps": "epsilon",
}


def check_vision(path: Path) -> None:
    """The file holds no projection."""
    file = Golden(path)
    weights, heads = file.group("param"), file.config["num_attention_heads"]
    cfg = clip.config_from_state_dict(weights, num_heads=heads)
    assert {k: file.config[k] for k in _FIELDS} == {k: getattr(cfg, v) for k, v in _FIELDS.items()}
    params = clip.from_torch(weights, cfg)
    forward = jax.jit(capture(clip.apply), static_argnames="cfg")
    pooled, seen = forward(params, jnp.moveaxis(file["in/pixel_values"], 1, -1), cfg=cfg)
    close(pooled, file["out/pooler_output"], atol=2e-5, rtol=0, what="pooler_output")
    hidden = [seen["embeddings"], *seen["layers/out"]]
    close(hidden[-1], file["out/last_hidden_state"], atol=2e-5, rtol=0, what="last_hidden_state")
    for i, ours in enumerate(hidden):
        close(ours, file[f"mid/hidden_{i}"], atol=2e-5, rtol=0, what=f"hidden_{i}")
    for i, ours in enumerate(seen["layers/attention"]):
        close(ours, file[f"mid/attn_{i}"], atol=2e-5, rtol=0, what=f"attn_{i}")


CHECKS: dict[str, Callable[[Path], None]] = {"clip_vision": check_vision}
