"""Adapters: nothing at first, exact in and out, trained alone, and PEFT's files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.train import lora
from jaxcore.train.lora import LoRA

CFG = llama.LlamaConfig.tiny()
RULES = llama.rules(CFG)
SETTINGS = LoRA(rank=2, alpha=4, targets=("q_proj", "v_proj", "o_proj", "up_proj"))
TOKENS = jnp.array([[3, 1, 4, 1]])


@pytest.fixture(scope="module")
def base():
    return llama.init(jax.random.key(0), CFG)


@pytest.fixture(scope="module")
def trained(base):
    made = lora.init(jax.random.key(1), base, RULES, SETTINGS)
    return jax.tree.map(
        lambda a: a + 0.3 * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), made
    )


def _biggest(tree):
    return max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree))


def _apart(one, other):
    return _biggest(jax.tree.map(lambda a, b: a - b, one, other))


def test_new_adapters_change_nothing(base):
    made = lora.init(jax.random.key(1), base, RULES, SETTINGS)
    assert _apart(lora.merge(base, made, RULES, SETTINGS), base) == 0
    d, heads, kv = CFG.width, CFG.num_heads * CFG.head_dim, CFG.num_kv_heads * CFG.head_dim
    ends = (d, heads), (d, kv), (heads, d), (d, CFG.mlp_width)
    assert lora.count(made) == SETTINGS.rank * CFG.depth * sum(i + o for i, o in ends)


def test_what_is_merged_is_taken_out_again_and_changes_only_what_was_named(base, trained):
    merged = lora.merge(base, trained, RULES, SETTINGS)
    assert _apart(lora.merge(merged, trained, RULES, SETTINGS, sign=-1.0), base) < 1e-5
    official, before = (llama.to_torch(p, CFG) for p in (merged, base))
    changed = {k for k in official if np.max(np.abs(official[k] - before[k])) > 1e-6}
    ends = {k.split(".")[-2] for k in changed}
    assert ends == {"q_proj", "v_proj", "o_proj", "up_proj"}


def test_merging_is_the_textbook_sum_in_the_official_layout(base, trained):
    merged = llama.to_torch(lora.merge(base, trained, RULES, SETTINGS), CFG)
    before = llama.to_torch(base, CFG)
    for layer in range(CFG.depth):
        for name in ("self_attn.q_proj", "mlp.up_proj"):
            pair = trained[f"model.layers.*.{name}"]
            key = f"model.layers.{layer}.{name}.weight"
            delta = np.asarray(pair["B"][layer] @ pair["A"][layer]) * 2.0
            np.testing.assert_allclose(merged[key], before[key] + delta, atol=1e-5)


def test_a_loss_trains_the_adapters_alone(base):
    made = lora.init(jax.random.key(1), base, RULES, SETTINGS)

    @jax.jit
    def gradient(made):
        def loss(made):
            params = lora.merge(base, made, RULES, SETTINGS)
            return jnp.mean(llama.apply(params, TOKENS, CFG).logits ** 2)

        return jax.grad(loss)(made)

    slope = gradient(made)
    for pair in slope.values():
        assert jnp.any(pair["B"] != 0) and not jnp.any(pair["A"])  # B is zero yet


def test_files_of_peft_go_in_and_out(base, trained):
    tensors, config = lora.to_peft(trained, base, RULES, SETTINGS)
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors
    again, settings = lora.from_peft(tensors, config, base, RULES)
    assert settings == SETTINGS and _apart(again, trained) == 0
    named = {k.replace(".weight", ".default.weight"): v for k, v in tensors.items()}
    assert _apart(lora.from_peft(named, config, base, RULES)[0], trained) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "found 'IA3'"),
        ({"use_dora": True}, "found use_dora"),
        ({"bias": "all"}, "without biases"),
        ({"r": None}, "found None"),
        ({"target_modules": ["q_proj"]}, "besides"),
        ({"target_modules": ["q_proj", "k_proj"]}, r"k_proj\.lora_A"),
        ({"target_modules": ["c_attn"]}, "named c_attn"),
        ({"r": 3}, "of shape \\(3, 8\\)"),
    ],
)
def test_other_adapters_are_refused(base, trained, change, words):
    tensors, config = lora.to_peft(trained, base, RULES, SETTINGS)
    with pytest.raises(UserError, match=words):
        lora.from_peft(tensors, config | change, base, RULES)


def test_adapters_of_another_network_are_refused(base, trained):
    with pytest.raises(UserError, match="named dense"):
        lora.init(jax.random.key(0), base, RULES, LoRA(targets=("dense",)))
    with pytest.raises(UserError, match="found one of 'other'"):
        lora.merge(base, {**trained, "other": {}}, RULES, SETTINGS)
