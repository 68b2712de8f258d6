"""From the settings of GGUF files to configurations of ours.

Sizes are those of the weights themselves; read here is what weights cannot tell.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcore.errors import UserError
from jaxcore.typing import StateDict

if TYPE_CHECKING:
    from jaxcore.models.llama import LlamaConfig, RopeScaling

_KNOWN = ("llama", "qwen2")
_FACTORS = "rope_freqs.weight"  # what angles are divided by, one number for each pair of a head


def gguf_config(metadata: Mapping[str, Any], tensors: StateDict) -> "LlamaConfig":
    """Sizes and options of the decoder in a GGUF file.

    Args:
      metadata: settings of the file.
      tensors: under the names of Hugging Face; of most of them only names and shapes are read.

    Raises:
      UserError: another architecture, settings that are not supported, or weights that are missing.
    """
    from jaxcore.models import llama

    name = metadata.get("general.architecture")
    if name not in _KNOWN:
        raise UserError(f"Expected the architecture {' or '.join(_KNOWN)}, found {name!r}.")
    width = _number(metadata, f"{name}.embedding_length", int)
    heads = _number(metadata, f"{name}.attention.head_count", int)
    head_dim = _number(metadata, f"{name}.attention.key_length", int, max(2, width // heads))
    options: dict[str, Any] = {
        "head_dim": head_dim,
        "epsilon": round(_number(metadata, f"{name}.attention.layer_norm_rms_epsilon", float), 12),
        "theta": _number(metadata, f"{name}.rope.freq_base", float, 10000.0),
        "max_positions": _number(metadata, f"{name}.context_length", int),
    }
    turned = _number(metadata, f"{name}.rope.dimension_count", int, head_dim)
    if turned != head_dim:
        raise UserError(f"Expected rotations of whole heads ({head_dim}), found {turned}.")
    cfg = llama.config_from_state_dict(tensors, **options)
    if (cfg.width, cfg.num_heads) != (width, heads):
        raise UserError(
            f"Expected weights of width {width} and {heads} heads, as the settings have it, found "
            f"{cfg.width} and {cfg.num_heads}."
        )
    return llama.config_from_state_dict(tensors, **options, rope=_scaling(metadata, tensors, cfg))


def _scaling(metadata: Mapping[str, Any], tensors: StateDict, cfg: "LlamaConfig") -> "RopeScaling":
    from jaxcore.models.llama import RopeScaling

    prefix = f"{metadata['general.architecture']}.rope.scaling"
    kind = metadata.get(f"{prefix}.type", "none")
    if _FACTORS in tensors:
        return _llama3(np.asarray(tensors[_FACTORS], np.float32), cfg)
    if kind == "none":
        return RopeScaling()
    if kind != "linear":
        raise UserError(f"Expected rotations of the kind none or linear, found {kind!r}.")
    return RopeScaling(kind="linear", factor=_number(metadata, f"{prefix}.factor", float))


def _llama3(factors: np.ndarray, cfg: "LlamaConfig") -> "RopeScaling":
    """The scaling of Llama 3.1 (8 times) and 3.2 (32 times), known by what it does to the rates."""
    from jaxcore import ops
    from jaxcore.models.llama import RopeScaling

    rates = ops.rotary_rates(cfg.head_dim, cfg.theta)
    for factor in (8.0, 32.0):
        rope = RopeScaling(kind="llama3", factor=factor)
        scaled = ops.llama3_rates(
            rates, factor=rope.factor, low=rope.low, high=rope.high, length=rope.length
        )
        if factors.shape == rates.shape and np.allclose(rates / scaled, factors, rtol=1e-3):
            return rope
    raise UserError("Expected the scaling of rotations of Llama 3.1 or 3.2, found another.")


def _number(
    metadata: Mapping[str, Any], name: str, kind: type, default: float | None = None
) -> Any:
    value = metadata.get(name, default)
    if type(value) not in (int, kind) or not 0 < value < float("inf"):
        raise UserError(f"Expected a number above 0 as {name}, found {value!r}.")
    return kind(value)
