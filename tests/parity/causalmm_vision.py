"""Checks of the golden files of pictures and of networks that see and speak."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.convert import official_shapes
from jaxcore.data.images.vision_inputs import PatchInputs, SquareInputs
from jaxcore.models import clip, llama, llava, qwen2_vl
from jaxcore.nn import AttentionEdit, capture
from tests.parity.golden import Golden, close, equal

TOL = {"atol": 1e-4, "rtol": 0}
_ROUNDING = 1 / 255 / 0.26  # one step of a byte, normalised


def check_preprocess(path: Path) -> None:
    """Pillow's versions round differently by one step of a byte."""
    file = Golden(path)
    constants = {"mean": tuple(file.config["mean"]), "deviation": tuple(file.config["std"])}
    said = file.config["qwen"].split(";")[0]
    names = ("patch", "merge", "min_pixels", "max_pixels")
    numbers = dict(re.findall(r"(\w+) (\d+)", said))
    sizes = {name: int(numbers[name]) for name in names}
    for name, image in file.group("in").items():
        number = name.removeprefix("image_")
        for pad, key in ((False, "clip336"), (True, "llava_pad")):
            golden = np.moveaxis(file[f"out/{key}_{number}"], 0, -1)
            ours = SquareInputs(side=golden.shape[0], pad=pad, **constants)(image)
            close(ours, golden, atol=_ROUNDING, rtol=0, what=f"{key} of {name}")
        rows, grid = PatchInputs(**sizes, **constants)(image)
        golden = file[f"out/qwen_pixel_values_{number}"]
        close(rows, golden, atol=_ROUNDING, rtol=0, what=f"patches of {name}")
        equal([grid], file[f"out/qwen_grid_{number}"], what=f"grid of {name}")
    table = file["out/smart_resize_table"]
    equal([PatchInputs().size(*row[:2]) for row in table.tolist()], table[:, 2:], what="sizes")


def llava_network(file: Golden):
    """Configuration and parameters of a LLaVA in a file."""
    vision, text = file.config["vision"], file.config["text"]
    cfg = llava.config_from_state_dict(
        file.group("param"),
        vision={"num_heads": vision["num_attention_heads"]},
        language={"head_dim": text["hidden_size"] // text["num_attention_heads"]},
        image_token=file.config["image_token_index"],
        select_layer=file.config["vision_feature_layer"],
    )
    sizes = (cfg.language.vocab_size, cfg.language.depth, cfg.language.theta, cfg.vision.depth)
    names = ("vocab_size", "num_hidden_layers", "rope_theta")
    assert sizes == (*(text[name] for name in names), vision["num_hidden_layers"])
    return cfg, llava.from_torch(file.group("param"), cfg)


def check_llava(path: Path) -> None:
    """Tower, projector, places and logits."""
    file = Golden(path)
    cfg, params = llava_network(file)
    tokens = jnp.asarray(file["in/input_ids"], jnp.int32)
    images = jnp.moveaxis(file["in/pixel_values"], 1, -1)

    @jax.jit
    def run(params, tokens, images):
        seen = llava.tower(params, images, cfg)
        features = llava.project(params, seen.tokens, cfg)
        embeddings = llava.embed(params, tokens, cfg, features)
        out = llava.apply(params, tokens, cfg, features=features)
        return seen.tokens, features, embeddings, out.logits

    llava.check_places(np.asarray(tokens), len(images) * cfg.image_tokens, cfg.image_token)
    names = ("mid/vision_features", "out/image_features", "mid/inputs_embeds", "out/logits")
    for name, ours in zip(names, run(params, tokens, images), strict=True):
        close(ours, file[name], what=name, **TOL)


def qwen2_vl_network(file: Golden):
    """Configuration and parameters of a Qwen2-VL in a file."""
    vision, text = file.config["vision"], file.config["text"]
    cfg = qwen2_vl.config_from_state_dict(
        file.group("param"),
        vision={"num_heads": vision["num_heads"], "theta": vision["rope_theta"]},
        language={
            "head_dim": text["hidden_size"] // text["num_attention_heads"],
            "mrope_sections": tuple(text["mrope_section"]),
            "epsilon": text["rms_norm_eps"],
            "theta": text["rope_theta"],
        },
        image_token=file.config["image_token_id"],
        video_token=file.config["video_token_id"],
    )
    return cfg, qwen2_vl.from_torch(file.group("param"), cfg)


def qwen2_vl_inputs(file: Golden, cfg):
    """Prompt, patches and positions."""
    grids = [tuple(row) for row in file["in/image_grid_thw"].tolist()]
    tokens, values = file["in/input_ids"].astype(np.int32), file["in/pixel_values"]
    ends = np.cumsum([np.prod(grid) for grid in grids])[:-1]
    patches = qwen2_vl.join_patches(np.split(values, ends), grids, cfg.vision)
    return tokens, patches, qwen2_vl.position_ids(tokens, grids, cfg)


def check_qwen2_vl(path: Path) -> None:
    """Tower, merger, positions, the decoder inside, and tokens one by one."""
    file = Golden(path)
    cfg, params = qwen2_vl_network(file)
    tokens, patches, (positions, delta) = qwen2_vl_inputs(file, cfg)
    equal(positions, file["mid/position_ids"], what="position_ids")
    equal(delta[:, None], file["mid/rope_delta"], what="rope_delta")
    following = file["in/next_ids"].astype(np.int32)

    def look(params, patches):
        return qwen2_vl.tower(params, patches, cfg)

    def read(params, tokens, features, positions):
        cache = llama.init_cache(cfg.language, len(tokens), tokens.shape[1] + following.shape[1])
        options = {"features": features, "positions": positions, "cache": cache}
        return qwen2_vl.apply(params, tokens, cfg, **options)

    towered, inside = jax.jit(capture(look))(params, patches)
    close(towered.tokens[0], file["mid/vision_last_hidden"], what="vision", **TOL)
    for i, ours in enumerate([inside["embeddings"], *inside["layers/out"]]):
        close(ours[0], file[f"mid/vision_hidden_{i}"], what=f"vision_hidden_{i}", **TOL)
    features = jax.jit(qwen2_vl.project, static_argnums=2)(params, towered.tokens, cfg)
    close(features, file["out/image_embeds"], what="image_embeds", **TOL)
    out, seen = jax.jit(capture(read))(params, tokens, features, positions)
    close(out.logits, file["out/logits"], what="logits", **TOL)
    for i, ours in enumerate([seen["embeddings"], *seen["layers/out"][:-1], out.hidden]):
        close(ours, file[f"mid/hidden_{i}"], what=f"hidden_{i}", **TOL)
    for i, ours in enumerate(seen["layers/attention"]):
        close(ours[..., : tokens.shape[1]], file[f"mid/attn_{i}"], what=f"attn_{i}", **TOL)
    step, cache = jax.jit(llama.step(params["language"], cfg.language)), out.cache
    equal(cache.position, tokens.shape[1] + delta, what="next position")
    for i in range(following.shape[1]):
        logits, cache = step(jnp.asarray(following[:, i : i + 1]), cache)
        close(logits, file["out/decode_logits"][:, i], what=f"decode_logits {i}", **TOL)
    _check_edits(file, cfg, params, tokens, features, positions)


def _check_edits(file, cfg, params, tokens, features, positions):
    """Edited layers of the decoder, whose random numbers are the same in all of them."""

    @jax.jit
    def read(params, features, edit):
        options = {"features": features, "positions": positions, "edit": edit}
        return qwen2_vl.apply(params, tokens, cfg, **options).logits

    layers, depth = file.config["mid_layers"], cfg.language.depth
    rand = jnp.asarray(file["in/rand_language"])
    for mode in ("official", "masked"):
        for kind in ("reverse", "uniform", "random"):
            edit = AttentionEdit.create(kind, layers, depth, mode=mode)
            if kind == "random":
                edit = edit.replace(rand=jnp.broadcast_to(rand, (depth, *rand.shape)))
            name = f"{mode}_mid_{kind}_logits"
            close(read(params, features, edit), file[f"out/{name}"], what=name, **TOL)


def check_names(path: Path) -> None:
    """Names and shapes of everything that is published; nothing is computed."""
    seven = llava.LlavaConfig.llava_1_5_7b()
    tower = clip.CLIPConfig.large_14_336(projection=0)
    smol = llama.LlamaConfig.smollm2_135m()
    ours = {
        "llava-hf/llava-1.5-7b-hf": llava.official_keys(seven),
        "liuhaotian/llava-v1.5-7b": llava.official_keys(
            llava.LlavaConfig.original_7b(), "original"
        ),
        "openai/clip-vit-large-patch14-336": official_shapes(
            clip.param_shapes(tower), clip.rules(tower)
        ),
        "HuggingFaceTB/SmolLM2-135M-Instruct": official_shapes(
            llama.param_shapes(smol), llama.rules(smol)
        ),
        "Qwen/Qwen2-VL-7B-Instruct": qwen2_vl.official_keys(qwen2_vl.Qwen2VLConfig.qwen2_vl_7b()),
    }
    for name, golden in json.loads(path.read_text()).items():
        found = {key: list(shape) for key, shape in ours[name.partition(" ")[0]].items()}
        if "tied" in name:  # listed there once more under the name of the copy
            found["lm_head.weight"] = found["model.embed_tokens.weight"]
        assert found == golden, name


CHECKS: dict[str, Callable[[Path], None]] = {
    "preprocess": check_preprocess,
    "llava_tiny": check_llava,
    "qwen2vl_tiny": check_qwen2_vl,
    "state_dict_full": check_names,
}
