"""A decoder as small as it can be, with a byte-level tokenizer: a folder, shards, a GGUF file."""

import json

import jax
import numpy as np

from jaxcore.convert import write_safetensors
from jaxcore.models import llama
from jaxcore.tokenizers import gguf_tokenizer
from tests.gguf_files import gguf_bytes, plain

BYTES = [chr(b) for b in range(ord("!"), ord("~") + 1)] + [
    chr(b) for b in (*range(0xA1, 0xAD), *range(0xAE, 0x100), *range(0x100, 0x144))
]
"""The 256 characters that stand for bytes: printable ones for themselves, 68 others from 256 on."""
TOKENS = ["<|end|>", "<|start|>", *BYTES, "th", "the", "Ġthe"]
CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }} {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>{% endif %}"
)
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.merges": ["t h", "th e", "Ġ the"],
    "tokenizer.ggml.token_type": np.array([3, 3] + [1] * (len(TOKENS) - 2), np.int32),
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.chat_template": CHAT,
}
CFG = llama.LlamaConfig.tiny(vocab_size=len(TOKENS), theta=500.0, epsilon=1e-6)
CONFIG = {
    "model_type": "llama",
    "num_attention_heads": CFG.num_heads,
    "head_dim": CFG.head_dim,
    "rms_norm_eps": CFG.epsilon,
    "rope_theta": CFG.theta,
    "max_position_embeddings": CFG.max_positions,
}
SETTINGS = {
    "general.architecture": "llama",
    "llama.embedding_length": CFG.width,
    "llama.attention.head_count": CFG.num_heads,
    "llama.attention.head_count_kv": CFG.num_kv_heads,
    "llama.attention.key_length": CFG.head_dim,
    "llama.attention.layer_norm_rms_epsilon": CFG.epsilon,
    "llama.rope.freq_base": CFG.theta,
    "llama.context_length": CFG.max_positions,
    **TOKENIZER,
}


def weights(cfg=CFG, scale=0.5):
    """Random ones with which answers are not constant."""
    rng = np.random.default_rng(0)
    shapes = llama.param_shapes(cfg)
    params = jax.tree.map(lambda leaf: scale * rng.standard_normal(leaf.shape, np.float32), shapes)
    return llama.to_torch(params, cfg)


def write_tokenizer(folder):
    gguf_tokenizer(TOKENIZER).engine.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": {"content": "<|start|>"}, "eos_token": "<|end|>"}
    settings["chat_template"] = CHAT
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_folder(folder, *, shards=1, config=CONFIG, tensors=None):
    """As Hugging Face's libraries write it."""
    tensors = weights() if tensors is None else tensors
    folder.mkdir(exist_ok=True)
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(config))
    names = ["model.safetensors"]
    if shards > 1:
        names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        placed = {key: names[i % shards] for i, key in enumerate(tensors)}
        index = {"metadata": {}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for i, name in enumerate(names):
        part = {key: tensors[key] for key in list(tensors)[i::shards]}
        write_safetensors(folder / name, part, {"format": "pt"})
    return folder


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    **{f"self_attn.{x}_proj": f"attn_{x}" for x in "qkv"},
    **{f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")},
}


def write_gguf_model(path, *, settings=SETTINGS, extra=()):
    """As llama.cpp writes it: rows of queries and keys in pairs."""
    out = {}
    for key, values in weights().items():
        name = key.removesuffix(".weight")
        if name.startswith("model.layers."):
            _, _, layer, name = name.split(".", 3)
            heads = {"self_attn.q_proj": CFG.num_heads, "self_attn.k_proj": CFG.num_kv_heads}
            if name in heads:
                halves = values.reshape(heads[name], 2, -1, values.shape[1])
                values = halves.swapaxes(1, 2).reshape(values.shape)
            name = f"blk.{layer}.{NAMES[name]}.weight"
        else:
            name = f"{NAMES[name]}.weight"
        out[name] = (0, values.shape, plain(0, values))
    path.write_bytes(gguf_bytes({**out, **dict(extra)}, settings))
    return path
