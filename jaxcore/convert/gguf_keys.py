"""Tensors of a GGUF file under the names, and in the order of rows, of Hugging Face's files.

llama.cpp stores the rows of queries and keys of its ``llama`` architecture so that the two numbers
that a rotation mixes are neighbours; everybody else keeps them half a head apart.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcore.convert.lazy import LazyTensor
from jaxcore.convert.rebuild import Refused

#: Architectures whose tensors are renamed -> whether their queries and keys are reordered.
ARCHITECTURES = {"llama": True, "qwen2": False, "qwen2vl": False}

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
    "attn_output": "self_attn.o_proj",
    **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
}
_IN_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_HEADS = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}


def official(
    tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any]
) -> dict[str, LazyTensor]:
    """Tensors under Hugging Face's names; those of other architectures stay as they are.

    Args:
      tensors: name in the file -> tensor.
      metadata: settings of the file.

    Raises:
      Refused: queries or keys cannot be divided among the heads that the settings name.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        return dict(tensors)
    out = {}
    for name, tensor in tensors.items():
        match = _IN_LAYER.fullmatch(name)
        if match is None or match[2] not in _LAYER:
            out[_WHOLE.get(name, name)] = tensor
            continue
        layer, part, kind = match.groups()
        if ARCHITECTURES[architecture] and part in _HEADS:
            setting = f"{architecture}.{_HEADS[part]}"
            heads = metadata.get(setting, metadata.get(f"{architecture}.attention.head_count"))
            tensor = _halves(name, tensor, setting, heads)
        out[f"model.layers.{layer}.{_LAYER[part]}.{kind}"] = tensor
    return out


def _halves(name: str, tensor: LazyTensor, setting: str, heads: Any) -> LazyTensor:
    """Rows of each head with the first numbers of all pairs before the second ones."""
    rows = tensor.shape[0] if tensor.shape else 0
    if type(heads) is not int or heads < 1 or rows % (2 * heads):
        raise Refused(f"its setting {setting!r}, {heads!r}, does not divide {name!r} into heads")

    def view(stored: LazyTensor) -> np.ndarray:
        pairs = np.asarray(stored).reshape(heads, rows // (2 * heads), 2, *stored.shape[1:])
        return pairs.swapaxes(1, 2).reshape(stored.shape)

    return LazyTensor(tensor.shape, tensor.dtype, functools.partial(view, tensor))
