"""Folders of language models as Hugging Face's libraries read them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcore.atomic import whole_folder, write_json
from jaxcore.errors import UserError
from jaxcore.typing import Params

if TYPE_CHECKING:
    from jaxcore.models.llama import LlamaConfig
    from jaxcore.tokenizers import Tokenizer


def save_language(
    folder: str | Path,
    cfg: "LlamaConfig",
    params: Params,
    tokenizer: "Tokenizer | None" = None,
    *,
    heads: Any = None,
    moments: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Write a decoder with its tokenizer: ``load_language`` and `transformers` read it.

    Args:
      folder: new folder.
      cfg: sizes and options.
      params: weights.
      tokenizer: None where texts came as tokens.
      heads: of a reward model (k, width), which makes it a sequence classifier.
      moments: mean and deviation of its outcome, told in ``config.json`` as ``reward_mean`` and
        ``reward_std``: a reward is the mean plus the deviation times the score.

    Raises:
      UserError: the folder exists or cannot be written, or no such library has the network.

    >>> import tempfile
    >>> import jax
    >>> from jaxcore.models import llama
    >>> cfg = llama.LlamaConfig.tiny()
    >>> with tempfile.TemporaryDirectory() as place:
    ...     save_language(Path(place, "mine"), cfg, llama.init(jax.random.key(0), cfg))
    ...     sorted(path.name for path in Path(place, "mine").iterdir())
    ['config.json', 'model.safetensors']
    """
    from jaxcore.convert import write_safetensors
    from jaxcore.models import llama

    config = _config(cfg, heads)
    tensors = llama.to_torch(params, cfg)
    if heads is not None:
        tensors.pop("lm_head.weight", None)
        tensors["score.weight"] = np.asarray(heads)
        config |= dict(zip(("reward_mean", "reward_std"), moments, strict=True))
    ends = [] if tokenizer is None else list(tokenizer.eos)
    if tokenizer is not None:
        config |= {"bos_token_id": tokenizer.bos, "eos_token_id": ends or None}
        config["pad_token_id"] = tokenizer.pad
    with whole_folder(Path(folder)) as temporary:
        write_json(temporary / "config.json", config)
        write_safetensors(temporary / "model.safetensors", tensors, {"format": "pt"})
        if tokenizer is not None:
            write_json(temporary / "generation_config.json", {"eos_token_id": ends})
            tokenizer.engine.save(str(temporary / "tokenizer.json"))
            write_json(temporary / "tokenizer_config.json", _names(tokenizer))


def _names(tokenizer: "Tokenizer") -> dict[str, Any]:
    """Special tokens and the template of chats."""
    ids = {"bos": tokenizer.bos, "eos": next(iter(tokenizer.eos), None), "pad": tokenizer.pad}
    found: dict[str, Any] = {
        f"{name}_token": tokenizer.engine.id_to_token(i) for name, i in ids.items() if i is not None
    }
    found["tokenizer_class"] = "PreTrainedTokenizerFast"
    if tokenizer.template is not None:
        found["chat_template"] = tokenizer.template
    return found


def _config(cfg: "LlamaConfig", heads: Any) -> dict[str, Any]:
    """``config.json``, of the types llama or (biases of queries, keys and values) qwen2."""
    if cfg.mrope_sections or (cfg.out_bias and not cfg.qkv_bias):
        raise UserError("Expected a decoder of texts as transformers has it, found another.")
    kind = "qwen2" if cfg.qkv_bias and not cfg.out_bias else "llama"
    rope: dict[str, Any] | None = None
    if cfg.rope.kind != "none":
        rope = {"rope_type": cfg.rope.kind, "factor": cfg.rope.factor}
    if rope is not None and cfg.rope.kind == "llama3":
        rope |= {"low_freq_factor": cfg.rope.low, "high_freq_factor": cfg.rope.high}
        rope["original_max_position_embeddings"] = cfg.rope.length
    what = "CausalLM" if heads is None else "SequenceClassification"
    config = {
        "architectures": [f"{kind.capitalize()}For{what}"],
        "model_type": kind,
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.width,
        "intermediate_size": cfg.mlp_width,
        "num_hidden_layers": cfg.depth,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": cfg.epsilon,
        "rope_theta": cfg.theta,
        "rope_scaling": rope,
        "max_position_embeddings": cfg.max_positions,
        "tie_word_embeddings": cfg.tied,
        "attention_bias": cfg.qkv_bias and cfg.out_bias,
        "torch_dtype": str(cfg.param_dtype),
    }
    if heads is not None:
        labels = {str(i): f"LABEL_{i}" for i in range(len(heads))}
        config["id2label"] = labels
        config["label2id"] = {label: int(i) for i, label in labels.items()}
    return json.loads(json.dumps(config))


def export_run(
    run: str | Path, folder: str | Path, *, which: Any = "best", adapters: bool = False
) -> str:
    """Write what ``jaxcore train lm-sft``, ``lm-reward`` or ``lm-dpo`` has trained.

    Args:
      run: the run directory.
      folder: new folder: a whole model, adapters merged, or adapters alone.
      which: checkpoint.
      adapters: write adapters as PEFT has them.

    Returns:
      What was written, in a few words.

    Raises:
      UserError: no such run, or one without adapters where these are asked for.
    """
    from jaxcore.models import llama
    from jaxcore.train import load_params
    from jaxcore.weights.adapters import save_adapters
    from jaxcore.weights.decoders import frozen_of, tuned_task

    task = tuned_task(run)
    if task is None:
        raise UserError(f"Expected the run of a language model, found none in {run}.")
    policy, params = task.policy, load_params(run, which)
    if adapters:
        if policy.lora is None:
            raise UserError(f"Expected a run with adapters, found one that trains all in {run}.")
        network = llama.param_shapes(policy.cfg), llama.rules(policy.cfg)
        base = task.base or ""
        save_adapters(folder, params["adapters"], *network, policy.lora, base=base)
        return f"adapters of rank {policy.lora.rank}"
    own = params.get("score")
    more: dict[str, Any] = {}
    if own is not None:
        more["heads"] = own["kernel"][:1]
        more["moments"] = (float(own["mean"]), float(own["std"]))
    weights = policy.merged(params, frozen_of(task, run))
    save_language(folder, policy.cfg, weights, task.words(), **more)
    return "a whole reward model" if more else "a whole model"
