"""Weights as Hugging Face names them, in and out."""

from typing import Any

from jaxcore.convert import LINEAR, Rule, Transform, from_state_dict, strip_prefix
from jaxcore.models.base import shapes_of
from jaxcore.models.llama.config import LlamaConfig
from jaxcore.models.llama.model import draw
from jaxcore.models.regression_keys import count, shapes_with
from jaxcore.typing import Params, StateDict

#: Kept in some files and computed anew.
LEFTOVERS = (r".*rotary_emb\.inv_freq", r".*\.position_ids", r".*\.masked_bias", r".*\.attn\.bias")
_WRAPPERS = ("module.", "_orig_mod.")
_EMBED, _HEAD = "embed_tokens.weight", "lm_head.weight"


def _transposed(inner: tuple[int, ...]) -> Transform:
    """``(O, I) <-> (I, *inner)``, the sizes of ``inner`` multiplying to ``O``."""
    return Transform(
        f"linear{inner}",
        lambda w: w.T.reshape(w.shape[1], *inner),
        lambda w: w.reshape(w.shape[0], -1).T,
    )


def _heads(cfg: LlamaConfig, *, bias: bool = False) -> Transform:
    """Rows of heads to (kv, heads of each, d), behind the axis of inputs of a matrix."""
    inner = (cfg.num_kv_heads, -1, cfg.head_dim)
    if bias:
        return Transform("heads", lambda w: w.reshape(inner), lambda w: w.reshape(-1))
    return _transposed(inner)


def rules(cfg: LlamaConfig, *, model: str = "model.", head: str = _HEAD) -> tuple[Rule, ...]:
    """Our parameter path -> official key.

    Args:
      cfg: sizes and options.
      model: what stands before the keys of embeddings, layers and the last norm.
      head: key of the projection to logits.
    """
    layer = model + "layers.{i}."
    attention, mlp = layer + "self_attn.", layer + "mlp."
    qkv = [f"{attention}{name}_proj." for name in "qkv"]
    parts = (cfg.groups, 1, 1)
    many: dict[str, Any] = {"stacked": True, "axis": -2}
    weights, biases = (tuple(key + kind for key in qkv) for kind in ("weight", "bias"))
    gated = (mlp + "gate_proj.weight", mlp + "up_proj.weight")
    return (
        Rule("embed", model + _EMBED, tied=(head,) if cfg.tied else ()),
        Rule("head", head),
        Rule("layers/qkv/kernel", weights, _heads(cfg), parts=parts, **many),
        Rule("layers/qkv/bias", biases, _heads(cfg, bias=True), parts=parts, **many),
        Rule("layers/out_proj/kernel", attention + "o_proj.weight", LINEAR, stacked=True),
        Rule("layers/out_proj/bias", attention + "o_proj.bias", stacked=True),
        Rule("layers/mlp/gate_up/kernel", gated, _transposed((1, -1)), **many),
        Rule("layers/mlp/down/kernel", mlp + "down_proj.weight", LINEAR, stacked=True),
        Rule("layers/norm1/scale", layer + "input_layernorm.weight", stacked=True),
        Rule("layers/norm2/scale", layer + "post_attention_layernorm.weight", stacked=True),
        Rule("norm/scale", model + "norm.weight"),
    )


def from_torch(state_dict: StateDict, cfg: LlamaConfig) -> Params:
    """Official weights as our parameters; strict, but for what is computed anew (`LEFTOVERS`).

    Args:
      state_dict: official key -> array.
      cfg: configuration of the same sizes.

    Raises:
      UserError: missing, unexpected or mis-shaped keys.
    """
    tensors = strip_prefix(state_dict, ["model." + _EMBED], _WRAPPERS)
    return from_state_dict(tensors, rules(cfg), shapes_of(draw, cfg), ignore=LEFTOVERS)


def config_from_state_dict(state_dict: StateDict, **options: Any) -> LlamaConfig:
    """Sizes of the network that official weights belong to.

    Args:
      state_dict: official key -> array (only names and shapes are read).
      **options: fields that weights cannot tell, and overrides: the width of a head (of 128, or 64
        in networks narrower than 2048), theta, rope, epsilon, M-RoPE sections.

    Raises:
      UserError: the keys are not those of the network.

    >>> import jax
    >>> from jaxcore.models import llama
    >>> cfg = LlamaConfig.tiny()
    >>> weights = llama.to_torch(llama.init(jax.random.key(0), cfg), cfg)
    >>> config_from_state_dict(weights, head_dim=4, max_positions=64) == cfg
    True
    """
    tensors = strip_prefix(state_dict, ["model." + _EMBED], _WRAPPERS)
    first = "model.layers.0."
    q, k = (f"{first}self_attn.{name}_proj.weight" for name in "qk")
    gate, table = first + "mlp.gate_proj.weight", "model." + _EMBED
    shapes = shapes_with(LlamaConfig.title, tensors, (table, q, k, gate))
    vocab_size, width = shapes[table]
    head_dim = options.get("head_dim", 128 if width >= 2048 else 64)
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "width": width,
        "depth": count(shapes, r"model\.layers\.(\d+)\.mlp\.gate_proj\.weight"),
        "num_heads": max(1, shapes[q][0] // head_dim),
        "num_kv_heads": max(1, shapes[k][0] // head_dim),
        "head_dim": head_dim,
        "mlp_width": shapes[gate][0],
        "qkv_bias": f"{first}self_attn.q_proj.bias" in shapes,
        "out_bias": f"{first}self_attn.o_proj.bias" in shapes,
        "tied": _HEAD not in shapes,
    }
    return LlamaConfig(**{**fields, **options})
