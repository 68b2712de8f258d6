"""Checks of the golden files of counterfactual attention, its decoding and its evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.estimators.causalmm import (
    CausalMMConfig,
    Decoder,
    LanguageEdit,
    Text,
    VisionEdit,
    causalmm,
    combine_logits,
    regular,
)
from jaxcore.estimators.causalmm.benchmarks import Question, pope
from jaxcore.estimators.causalmm.vision import llava_features
from jaxcore.generate import GREEDY
from jaxcore.models import llama, llava
from jaxcore.nn import AttentionEdit, capture
from jaxcore.ops import edit_vision_attention, patch_weights
from tests.parity.causalmm_vision import llava_network
from tests.parity.golden import Golden, close
from tests.parity.llama import network

TOL = {"atol": 1e-4, "rtol": 0}
_HALF = 2.0**-10  # one unit of a float16


def same_infinities(ours, golden, what):
    """Minus infinity at the same places, near elsewhere."""
    ours = np.asarray(ours)
    np.testing.assert_array_equal(np.isneginf(ours), np.isneginf(golden), err_msg=what)
    there = ~np.isneginf(golden)
    close(np.where(there, ours, 0), np.where(there, golden, 0), what=what, **TOL)


def check_edits(path: Path) -> None:
    """Edited layers of the decoder: official and masked, of one layer and of all, and decoding."""
    file = Golden(path)
    cfg, params = network(file)
    tokens, valid = file["in/input_ids"].astype(np.int32), file["in/attention_mask"].astype(bool)

    @jax.jit
    def read(params, tokens, valid, edit):
        apply = capture(llama.apply, "layers/attention")
        out, seen = apply(params, tokens, cfg, valid=valid, edit=edit)
        plain = llama.apply(params, tokens, cfg, valid=valid, edit=edit)
        return out.logits, plain.logits, seen["layers/attention"]

    middle = file.config["mid_layers"]
    for layers in ("mid", "all"):
        chosen = middle if layers == "mid" else range(cfg.depth)
        for mode, rows in (("official", 1), ("masked", len(tokens))):
            last = {"official": "reverse_and_normalize", "masked": "shuffle"}[mode]
            for kind in ("reverse", "random", "uniform", last):
                edit = AttentionEdit.create(kind, list(chosen), cfg.depth, mode=mode)
                rand = jnp.asarray(file["in/rand"][:, :rows]) if kind == "random" else None
                perm = jnp.asarray(file["in/perm"], jnp.int32) if kind == "shuffle" else None
                edit = edit.replace(rand=rand, perm=perm)
                found = read(params, tokens[:rows], valid[:rows], edit)
                name = f"{mode}_{layers}_{kind}"
                golden = [file[f"out/{name}_logits"]] * 2 + [file[f"mid/{name}_attn_{middle[0]}"]]
                ours = [*found[:2], found[2][middle[0]]]
                for one, other, what in zip(
                    ours, golden, ("looked at", "", "weights"), strict=True
                ):
                    _compare(one, other, valid[:rows], what=f"{name} {what}")
    _check_decode(file, cfg, params, tokens[:1])


def _compare(ours, golden, valid, what):
    """At real tokens; NaN where the official code has it."""
    axis = 1 if golden.ndim == 3 else 2
    ours, golden = (np.moveaxis(np.asarray(a), axis, 1) for a in (ours, golden))
    there = valid.reshape(*valid.shape, *(1,) * (golden.ndim - 2))
    np.testing.assert_array_equal(np.isnan(ours) & there, np.isnan(golden) & there, err_msg=what)
    there = there & ~np.isnan(golden)
    close(np.where(there, ours, 0), np.where(there, golden, 0), what=what, **TOL)


def _check_decode(file, cfg, params, tokens):
    """One token over what an unedited pass has read."""
    cache = llama.init_cache(cfg, 1, tokens.shape[1] + 1)
    cache = llama.apply(params, tokens, cfg, cache=cache, logits="none").cache
    token = file["in/next_ids"][:1, :1].astype(np.int32)
    for kind in ("reverse", "uniform"):
        edit = AttentionEdit.create(kind, file.config["mid_layers"], cfg.depth, mode="official")
        run = capture(llama.apply, "layers/attention")
        out, seen = run(params, token, cfg, cache=cache, edit=edit)
        name = f"official_mid_{kind}_decode1"
        close(out.logits, file[f"out/{name}_logits"], what=name, **TOL)
        weights = seen["layers/attention"][file.config["mid_layers"][0]]
        close(weights, file[f"mid/{name}_attn"], what=f"{name} weights", **TOL)


def check_branches(path: Path) -> None:
    """Maps, weights of patches, weighted features, logits of every branch, their combinations."""
    file = Golden(path)
    cfg, params = llava_network(file)
    tokens = jnp.asarray(file["in/input_ids"], jnp.int32)
    images = jnp.moveaxis(jnp.asarray(file["in/pixel_values"]), 1, -1)
    numbers = {
        "random": {"rand": jnp.asarray(file["in/rand_vision"])},
        "shuffle": {"perm": jnp.asarray(file["in/perm_vision"])},
    }
    seen = jax.jit(lambda params: llava.tower(params, images, cfg, attention=True))(params)
    close(seen.tokens, file["mid/image_features"], what="image_features", **TOL)
    close(seen.attention, file["mid/attention_map"], what="attention_map", **TOL)

    @jax.jit
    def last(params, features, edit=None):
        options = {"features": features, "edit": edit, "logits": "last"}
        found: Any = llava.apply(params, tokens, cfg, **options).logits
        return found[:, 0]

    plain = llava.project(params, seen.tokens, cfg)
    logits = {"": last(params, plain)}
    close(logits[""], file["out/logits_last"], what="logits_last", **TOL)
    for kind in ("random", "uniform", "reverse", "shuffle"):
        name, given = {"reverse": "reversed"}.get(kind, kind), numbers.get(kind, {})
        edited = edit_vision_attention(seen.attention, kind, **given)
        close(edited, file[f"mid/{name}_edited_attention"], what=f"{name} map", **TOL)
        side = int(cfg.image_tokens**0.5)
        weights = patch_weights(seen.attention, (side, side), kind, **given)
        close(weights, file[f"mid/{name}_patch_weights"], what=f"{name} weights", **TOL)
        weighted = seen.tokens * weights[..., None]
        close(weighted, file[f"out/{name}_weighted_features"], what=name, **TOL)
        golden = file[f"out/{name}_weighted_features_fp16"].astype(np.float32)
        half = weighted.astype("float16").astype("float32")
        close(half, golden, atol=1e-4, rtol=_HALF, what=f"{name} in float16")
        features = llava_features(params, images, cfg, VisionEdit(kind=kind), **given)
        logits[name] = last(params, features)
        close(logits[name], file[f"out/{name}_cf_logits_last"], what=f"{name} logits", **TOL)
    depth, rand = cfg.language.depth, file["in/rand_language"]
    for mode in ("official", "masked"):
        for kind in ("reverse", "random", "uniform"):
            edit = AttentionEdit.create(kind, file.config["mid_layers"], depth, mode=mode)
            if kind == "random":
                edit = edit.replace(rand=jnp.broadcast_to(rand, (depth, *rand.shape)))
            name = f"lang_{mode}_{kind}"
            logits[name] = last(params, plain, edit)
            close(logits[name], file[f"out/{name}_cf_logits_last"], what=name, **TOL)
    language = logits["lang_masked_random"]
    ways = {
        "vision_shuffle": [logits["shuffle"]],
        "language_masked_random": [language],
        "both": [logits["shuffle"], language],
    }
    for gamma in file.config["gammas"]:
        for epsilon in file.config["epsilons"]:
            for way, others in ways.items():
                name = f"combined_{way}_g{gamma}_e{epsilon}"
                ours = combine_logits(logits[""], others, gamma, epsilon)
                same_infinities(ours, file[f"out/{name}"], name)


def check_loop(path: Path) -> None:
    """The released loops with greedy tokens, and those with a cache for each branch."""
    file = Golden(path)
    cfg, params = llava_network(file)
    tokens = np.asarray(file["in/input_ids"], np.int32)
    images = jnp.moveaxis(jnp.asarray(file["in/pixel_values"]), 1, -1)
    steps, options = file.config["steps"], {"epsilon": file.config["epsilon"]}
    options |= {"gamma": file.config["gamma"]}
    perm, valid = jnp.asarray(file["in/perm_vision"]), jnp.ones(tokens.shape, bool)
    decoder = Decoder(params["language"], cfg.language, llama)

    def prompt(features):
        return Text(llava.embed(params, tokens, cfg, features), valid)

    factual = prompt(llava.image_features(params, images, cfg))
    edited = prompt(llava_features(params, images, cfg, VisionEdit(), perm=perm))
    keys = jax.random.split(jax.random.key(0), 1)

    def run(mode, cache, language="masked"):
        edit = LanguageEdit(layers=tuple(file.config["mid_layers"]), mode=language)
        config = CausalMMConfig(mode=mode, language=edit, cache_mode=cache, **options)
        ready = causalmm(
            decoder, factual, config, keys=keys, room=steps, counterfactual=lambda keys: edited
        )
        keep = {"keep": ("logits", "scores")}
        return ready.generate(keys=keys, sampler=GREEDY, max_new_tokens=steps, **keep)

    plain = regular(decoder, factual, room=steps)
    found = plain.generate(keys=keys, sampler=GREEDY, max_new_tokens=steps)
    np.testing.assert_array_equal(found.tokens[0], file["out/regular_tokens"])
    branches = ("logits", "cf_vision_logits", "cf_language_logits")
    for name, mode in (("sm", "vision"), ("mm", "both")):
        found = run(mode, "official", "official")
        np.testing.assert_array_equal(found.tokens[0], file[f"out/official_{name}_tokens"])
        for ours, branch in zip(np.moveaxis(found.kept["logits"], 1, 0), branches, strict=False):
            close(ours[:, 0], file[f"mid/official_{name}_{branch}"], what=f"{name} {branch}", **TOL)
        chances = jax.nn.softmax(found.kept["scores"][:, 0], axis=-1)
        close(chances, file[f"out/official_{name}_probs"], what=f"{name} probs", **TOL)
    for mode in ("vision", "language", "both"):
        found, name = run(mode, "separate"), f"separate_{mode}"
        np.testing.assert_array_equal(found.tokens[0], file[f"out/{name}_tokens"])
        close(found.kept["logits"][:, 0, 0], file[f"mid/{name}_logits"], what=name, **TOL)
        same_infinities(found.kept["scores"][:, 0], file[f"out/{name}_combined"], name)


def check_pope(path: Path) -> None:
    """The official script's numbers, to the last bits."""
    file = json.loads(path.read_text())
    said = {answer["question_id"]: answer["text"] for answer in file["answers"]}
    questions = [Question(text=q["text"], truth=q["label"]) for q in file["questions"]]
    answers = [said[q["question_id"]] for q in file["questions"]]
    ours = pope.score(questions, answers)
    names = {"Precision": "precision", "Recall": "recall", "F1": "f1", "Accuracy": "accuracy"}
    names |= {"yes": "yes_ratio", "unknow": "unknown"}
    for theirs, name in names.items():
        np.testing.assert_allclose(ours[name], file["metrics"][theirs], atol=1e-12, rtol=0)


CHECKS: dict[str, Callable[[Path], None]] = {
    "causalmm_tiny": check_branches,
    "decode_tiny": check_loop,
    "llama_cf_tiny": check_edits,
    "pope_metrics": check_pope,
}
