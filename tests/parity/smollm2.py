"""Checks of SmolLM2, a real language model, where its package is installed."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcore.convert import read_state_dict
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.nn import capture
from jaxcore.weights import load_language
from jaxcore.weights.language import smollm2_file
from tests.parity.golden import Golden, close


@functools.cache
def loaded():
    try:
        smollm2_file()
    except UserError as reason:
        pytest.skip(str(reason))
    return load_language("smollm2")


def check_reference(path: Path) -> None:
    """Ids, numbers of every kind of tensor, and an answer."""
    file, model = json.loads(path.read_text()), loaded()
    for text, ids in file["tokenizer"].items():
        assert model.tokenizer.encode(text) == ids
        assert model.tokenizer.decode(ids, special=True) == text
    tensors = read_state_dict(smollm2_file()).tensors
    for key, about in file["param_stats"].items():
        values = np.asarray(tensors["model.embed_tokens.weight" if "lm_head" in key else key])
        assert list(values.shape) == about["shape"], key
        found = [values.mean(dtype=np.float64), values.std(dtype=np.float64, ddof=1)]
        close(np.array(found), np.array([about["mean"], about["std"]]), atol=1e-6, rtol=0, what=key)
        np.testing.assert_array_equal(values.ravel()[:4], np.float32(about["first4"]))
    question = file["prompt"].rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    prompt = model.prompt(question)
    assert prompt == file["prompt_ids"]
    assert model.tokenizer.decode(prompt, special=True) == file["prompt"]
    name = next(key for key in file if re.fullmatch(r"greedy_\d+", key))
    most = int(name.removeprefix("greedy_"))
    answer = [i for part in model.answer(prompt, max_new_tokens=most) for i in part]
    end = file[name][-1:] if file[name][-1] in model.tokenizer.eos else []
    assert [*answer, *end] == file[name]
    assert model.tokenizer.decode(file[name], special=True) == file["greedy_text"]


def check_logits(path: Path) -> None:
    """Logits and hidden states of a prompt."""
    file, model = Golden(path), loaded()
    tokens = file["in/input_ids"].astype(np.int32)
    forward = jax.jit(capture(llama.apply), static_argnames="cfg")
    out, seen = forward(model.params, tokens, cfg=model.cfg)
    logits = np.asarray(out.logits[0])
    close(logits[-1], file["out/logits_last"], atol=2e-3, rtol=0, what="last logits")
    few = next(v for k, v in file.group("out").items() if k.startswith("logits_all_first"))
    close(logits[:, : few.shape[1]], few, atol=2e-3, rtol=0, what="logits")
    hidden = [llama.embed(model.params, tokens, model.cfg), *seen["layers/out"][:-1], out.hidden]
    for i, ours in enumerate(hidden):
        last, norms = np.asarray(ours[0, -1]), np.linalg.norm(np.asarray(ours[0]), axis=-1)
        what = f"hidden states {i}"
        close(last, file["mid/hidden_last_token"][i], atol=2e-3, rtol=1e-4, what=what)
        close(norms, file["mid/hidden_norms"][i], atol=2e-3, rtol=1e-4, what=what)


CHECKS: dict[str, Callable[[Path], None]] = {
    "smollm2_reference": check_reference,
    "smollm2_logits": check_logits,
}
