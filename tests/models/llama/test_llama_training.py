"""The loss of a decoder, in rows of packed texts and on several devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxcore.data.packing import pack
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.ops import chunked_cross_entropy
from jaxcore.parallel import make_mesh, put_batch, state_shardings

CFG = LlamaConfig.tiny(vocab_size=12)
TEXTS = [[3, 1, 4, 1, 5, 9], [2, 6], [5, 3, 5, 8], [9, 7, 9]]


def random_params(cfg):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.6, leaf.dtype),
        llama.param_shapes(cfg),
    )


def loss(params, tokens, segments, cfg=CFG, chunk=5):
    out = llama.apply(params, tokens, cfg, segments=segments, valid=segments > 0, logits="none")
    targets, mask = llama.next_tokens(tokens, segments)
    return llama.next_token_loss(params, out.hidden, targets, mask, cfg, chunk)


def mean_loss(params, tokens, segments):
    total, count = loss(params, tokens, segments)
    return total / count


@pytest.mark.parametrize("chunk", [1, 4, 5, 12, 99])
def test_a_vocabulary_in_parts_is_the_whole(chunk):
    rng = np.random.default_rng(0)
    hidden, table = (jnp.asarray(rng.normal(size=s) * 3, jnp.float32) for s in ((7, 4), (12, 4)))
    targets = jnp.asarray(rng.integers(0, 12, 7))

    def parts(hidden, table):
        return chunked_cross_entropy(hidden, table, targets, chunk=chunk)

    def plain(hidden, table):
        return -jax.nn.log_softmax(hidden @ table.T)[jnp.arange(7), targets]

    np.testing.assert_allclose(parts(hidden, table), plain(hidden, table), atol=1e-5)
    ours, theirs = (
        jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 2), (0, 1))(hidden, table) for f in (parts, plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), ours, theirs)


def test_no_array_of_the_loss_has_the_whole_vocabulary():
    cfg = LlamaConfig.tiny(vocab_size=1001)
    tokens, segments = (jnp.asarray(a) for a in pack(TEXTS, 8))

    def run(params):
        return jax.value_and_grad(lambda p: loss(p, tokens, segments, cfg, chunk=100)[0])(params)

    text = str(jax.make_jaxpr(run)(llama.param_shapes(cfg)))
    assert "16,91]" in text and "16,1001]" not in text  # 11 parts of 91


def test_packed_texts_cost_what_they_cost_in_rows_of_their_own():
    params = random_params(CFG)
    packed = [jnp.asarray(a) for a in pack(TEXTS, 8)]
    apart = [jnp.asarray(a) for a in zip(*(pack([text], 8) for text in TEXTS), strict=True)]
    apart = [a[:, 0] for a in apart]
    assert len(packed[0]) == 2 and len(apart[0]) == 4
    (total, count), (others, number) = loss(params, *packed), loss(params, *apart)
    assert count == number == sum(len(text) - 1 for text in TEXTS)
    np.testing.assert_allclose(total, others, rtol=1e-5)


def test_a_mask_leaves_prompts_out():
    params = random_params(CFG)
    tokens = jnp.array([[3, 1, 4, 1]])
    hidden = llama.apply(params, tokens, CFG, logits="none").hidden
    targets, there = llama.next_tokens(tokens)
    assert there.tolist() == [[True, True, True, False]]
    whole, _ = llama.next_token_loss(params, hidden, targets, there, CFG)
    first, count = llama.next_token_loss(params, hidden, targets, there.at[0, 1:].set(False), CFG)
    second, _ = llama.next_token_loss(params, hidden, targets, there.at[0, 0].set(False), CFG)
    assert count == 1
    np.testing.assert_allclose(first + second, whole, rtol=1e-6)


def compare_on(mesh):
    """Loss, gradients and generation of one device, and of a mesh."""
    params = random_params(CFG)
    tokens, segments = pack([*TEXTS, *TEXTS[::-1]], 8)
    step = jax.jit(jax.value_and_grad(mean_loss))
    one = step(params, tokens, segments)
    places = state_shardings(params, mesh, llama.sharding_rules(CFG, mesh))
    spread = jax.device_put(params, places)
    found = step(spread, *put_batch((tokens, segments), mesh))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, one)

    def decode(params, cache):
        out = llama.apply(params, tokens, CFG, cache=cache, logits="last")
        return llama.step(params, CFG)(tokens[:, :1], out.cache)

    cache = llama.init_cache(CFG, len(tokens), 12)
    logits, _ = jax.jit(decode)(params, cache)
    cache = jax.device_put(cache, llama.cache_sharding(CFG, mesh))
    others, after = jax.jit(decode)(spread, cache)
    np.testing.assert_allclose(others, logits, atol=1e-5)
    return spread, after


@pytest.mark.parametrize("axis", ["fsdp", "tensor"])
def test_two_devices_compute_the_same(axis):
    params, _ = compare_on(make_mesh(data=1, **{axis: 2}))
    down = params["layers"]["mlp"]["down"]["kernel"]
    wanted = {"fsdp": (None, "tensor", "fsdp"), "tensor": (None, "tensor", "fsdp")}[axis]
    assert down.sharding.spec == PartitionSpec(*wanted)
    parts = {shard.data.size for shard in down.addressable_shards}
    assert parts == {down.size // 2}


def test_heads_that_do_not_divide_stay_together():
    cfg = LlamaConfig.smollm2_135m()
    rules = dict(llama.sharding_rules(cfg, make_mesh(data=1, tensor=2)))
    assert rules["(^|/)layers/qkv/kernel$"] == PartitionSpec(None, "fsdp", None, None, None)
    assert rules["(^|/)layers/out_proj/kernel$"] == PartitionSpec(None, None, "fsdp")
    assert rules["(^|/)embed$"] == PartitionSpec("tensor", "fsdp")


@pytest.mark.slow
def test_eight_devices_compute_the_same():
    code = (
        "from tests.models.llama.test_llama_training import compare_on\n"
        "from jaxcore.parallel import make_mesh\n"
        "compare_on(make_mesh(data=2, fsdp=2, tensor=2))\n"
        "print('same')"
    )
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert told.stdout.strip() == "same", told.stderr
