"""Tiny random LLaVA and Qwen2-VL folders as Hugging Face's libraries write them."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.convert import write_safetensors
from jaxcore.models import clip, llama, llava, qwen2_vl
from jaxcore.models.llava import LlavaConfig
from jaxcore.models.qwen2_vl import Qwen2VLConfig, VisionConfig

SPECIALS = {
    "llava": ("<unk>", "<s>", "</s>", "<image>"),
    "qwen2_vl": (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ),
}
WORDS = ("what", "is", "this", "a", "cat", "dog", "user", "assistant", "system", ":", "?", "USER")
WORDS += ("ASSISTANT",)
VOCABULARY = 32

LLAVA = LlavaConfig(
    vision=clip.CLIPConfig.tiny(projection=0),
    language=llama.LlamaConfig.tiny(vocab_size=VOCABULARY, max_positions=256),
    image_token=3,
)
QWEN = Qwen2VLConfig(
    vision=VisionConfig(
        patch_size=2, frames=2, width=4, depth=2, num_heads=1, mlp_width=6, out_width=8
    ),
    language=llama.LlamaConfig.tiny(
        vocab_size=VOCABULARY,
        max_positions=256,
        head_dim=6,
        mrope_sections=(1, 1, 1),
        qkv_bias=True,
        epsilon=1e-6,
        theta=1e6,
    ),
    image_token=5,
    video_token=6,
)


def random_params(module: Any, cfg: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        module.param_shapes(cfg),
    )


def write_llava(folder: Path, **changes: Any) -> Any:
    """A LLaVA in two shards; its parameters."""
    params = random_params(llava, LLAVA)
    config = {
        "model_type": "llava",
        "image_token_index": LLAVA.image_token,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "text_config": {
            "model_type": "llama",
            "num_attention_heads": 4,
            "head_dim": 4,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 256,
        },
        "vision_config": {"model_type": "clip_vision_model", "num_attention_heads": 1},
        "eos_token_id": 2,
    }
    settings = {"crop_size": {"height": 4, "width": 4}, "size": {"shortest_edge": 4}}
    write_folder(folder, "llava", llava.to_torch(params, LLAVA), {**config, **changes}, settings)
    return params


def write_qwen2_vl(folder: Path, **changes: Any) -> Any:
    """A Qwen2-VL in two shards; its parameters."""
    params = random_params(qwen2_vl, QWEN)
    config = {
        "model_type": "qwen2_vl",
        "num_attention_heads": 4,
        "head_dim": 6,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 256,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]},
        "vision_config": {"num_heads": 1},
        "image_token_id": 5,
        "video_token_id": 6,
        "eos_token_id": 2,
    }
    settings = {"min_pixels": 16, "max_pixels": 128, "patch_size": 2, "merge_size": 2}
    weights = qwen2_vl.to_torch(params, QWEN)
    write_folder(folder, "qwen2_vl", weights, {**config, **changes}, settings)
    return params


def write_folder(
    folder: Path,
    name: str,
    weights: dict[str, np.ndarray],
    config: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    """Weights in two shards with their index, settings and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = list(weights)
    index = {}
    for i, part in enumerate((keys[::2], keys[1::2]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        write_safetensors(folder / file, {key: weights[key] for key in part})
        index |= dict.fromkeys(part, file)
    files = {
        "model.safetensors.index.json": {"metadata": {}, "weight_map": index},
        "config.json": config,
        "preprocessor_config.json": settings,
    }
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content))
    write_tokenizer(folder, name)


def write_tokenizer(folder: Path, name: str) -> None:
    """One token per word; no template of chats."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    words = (*SPECIALS[name], *WORDS)
    vocabulary = {word: i for i, word in enumerate(words)}
    engine = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.add_special_tokens(list(SPECIALS[name]))
    engine.save(str(folder / "tokenizer.json"))
    named = {"llava": {"bos_token": "<s>", "eos_token": "</s>"}, "qwen2_vl": {}}[name]
    if name == "qwen2_vl":
        named = {"eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
