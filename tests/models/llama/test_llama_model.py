"""What decoders of tokens promise; the golden file holds their numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig, RopeScaling
from jaxcore.nn import capture
from jaxcore.nn.edits import AttentionEdit

CFG = LlamaConfig.tiny(qkv_bias=True, depth=3)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, CFG.vocab_size, (2, 9)), jnp.int32)


def random_params(cfg):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.6, leaf.dtype),
        llama.param_shapes(cfg),
    )


PARAMS = random_params(CFG)
EDIT = AttentionEdit.create("reverse", [1], 3, rows=jnp.array([False, True]))


@jax.jit
def whole(params, tokens, valid=None, segments=None):
    return llama.apply(params, tokens, CFG, valid=valid, segments=segments).logits


@jax.jit
def further(params, tokens, cache, valid=None):
    out = llama.apply(params, tokens, CFG, valid=valid, cache=cache)
    return out.logits, out.cache


def close(a, b, atol=1e-4):
    np.testing.assert_allclose(a, b, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (LlamaConfig.vicuna_7b, 6_738_415_616),
        (LlamaConfig.smollm2_135m, 134_515_008),
        (LlamaConfig.qwen2_7b, 8_291_375_616 - 675_759_104),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(make, parameters):
    shapes = llama.param_shapes(make())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_a_prompt_in_pieces_and_token_by_token_is_the_whole_text():
    logits = whole(PARAMS, TOKENS)
    cache = llama.init_cache(CFG, 2, 12)
    first, cache = further(PARAMS, TOKENS[:, :5], cache)
    close(first, logits[:, :5])
    second, cache = further(PARAMS, TOKENS[:, 5:8], cache)
    close(second, logits[:, 5:8])
    last, cache = further(PARAMS, TOKENS[:, 8:], cache)
    close(last, logits[:, 8:])
    assert int(cache.length) == 9 and cache.position.tolist() == [9, 9]
    assert cache.valid.sum(1).tolist() == [9, 9]


def test_padding_on_the_left_changes_nothing():
    alone = whole(PARAMS, TOKENS[1:, 4:])
    valid = jnp.arange(9)[None] >= jnp.array([[0], [4]])
    close(whole(PARAMS, TOKENS, valid)[1, 4:], alone[0])
    logits, cache = further(PARAMS, TOKENS, llama.init_cache(CFG, 2, 12), valid)
    close(logits[1, 4:], alone[0])
    assert cache.position.tolist() == [9, 5]
    following, _ = further(PARAMS, TOKENS[:, :1], cache)
    longer = whole(PARAMS, jnp.concatenate([TOKENS[1:, 4:], TOKENS[1:, :1]], axis=1))
    close(following[1, 0], longer[0, -1])
    assert np.isfinite(logits).all()


def test_texts_packed_into_a_row_do_not_see_each_other():
    packed = TOKENS.reshape(1, -1)
    segments = jnp.asarray([[1] * 9 + [2] * 9])
    close(whole(PARAMS, packed, None, segments).reshape(2, 9, -1), whole(PARAMS, TOKENS))


def test_embeddings_do_as_well_as_tokens():
    embeddings = llama.embed(PARAMS, TOKENS, CFG)
    close(whole(PARAMS, embeddings), whole(PARAMS, TOKENS), atol=0)


def test_last_logits_and_none():
    last = llama.apply(PARAMS, TOKENS, CFG, logits="last")
    close(last.logits, whole(PARAMS, TOKENS)[:, -1:])
    none = llama.apply(PARAMS, TOKENS, CFG, logits="none")
    assert none.logits is None
    close(llama.project(PARAMS, none.hidden, CFG), whole(PARAMS, TOKENS))


def test_unrolled_layers_compute_the_same():
    cfg = LlamaConfig(**{**vars(CFG), "scan_blocks": False})
    close(llama.apply(PARAMS, TOKENS, cfg).logits, whole(PARAMS, TOKENS), atol=1e-5)


def test_layers_apart_compute_the_same_and_can_be_looked_at():
    def run(params):
        cache = llama.init_cache(CFG, 2, 9)
        out = llama.apply(params, TOKENS, CFG, cache=cache, edit=EDIT)
        return out.logits, out.cache

    look = jax.jit(capture(run, "layers/*"))
    (logits, cache), seen = look(PARAMS)
    (others, second), apart = look(llama.unstacked(PARAMS))
    close(others, logits, atol=1e-5)
    close(jax.jit(run)(llama.unstacked(PARAMS))[0], logits, atol=1e-5)
    close(second.keys, cache.keys, atol=1e-5)
    assert seen.keys() == apart.keys() == {"layers/attention", "layers/out"}
    close(apart["layers/attention"], seen["layers/attention"], atol=1e-5)


def test_an_edit_belongs_to_its_layers_and_rows():
    plain = whole(PARAMS, TOKENS)
    edited = llama.apply(PARAMS, TOKENS, CFG, edit=EDIT).logits
    assert edited is not None
    close(edited[0], plain[0], atol=1e-6)
    assert jnp.abs(edited[1] - plain[1]).max() > 1e-2
    with pytest.raises(UserError, match="an edit of 3 layers"):
        llama.apply(PARAMS, TOKENS, CFG, edit=AttentionEdit.create("uniform", "all", 2))


def test_equal_positions_of_all_kinds_are_plain_positions():
    cfg = LlamaConfig(**{**vars(CFG), "mrope_sections": (1, 0, 1)})
    plain = jnp.broadcast_to(jnp.arange(9), (2, 9))
    found = llama.apply(PARAMS, TOKENS, cfg, positions=jnp.stack([plain] * 3))
    close(found.logits, whole(PARAMS, TOKENS), atol=1e-5)
    apart = llama.apply(PARAMS, TOKENS, cfg, positions=jnp.stack([plain, plain, 0 * plain]))
    assert jnp.abs(apart.logits - found.logits).max() > 1e-3


def test_generation_goes_on_behind_the_largest_position():
    """An image takes many tokens and few positions."""
    cfg = LlamaConfig(**{**vars(CFG), "mrope_sections": (1, 0, 1)})
    places = jnp.broadcast_to(jnp.array([0, 1, 1, 1, 2, 3, 4, 5, 5]), (3, 2, 9))
    out = llama.apply(PARAMS, TOKENS, cfg, positions=places, cache=llama.init_cache(cfg, 2, 9))
    assert out.cache.position.tolist() == [6, 6]


def test_stretched_rotations():
    plain = LlamaConfig.tiny(head_dim=8).rates
    linear = RopeScaling(kind="linear", factor=4.0)
    np.testing.assert_allclose(LlamaConfig.tiny(head_dim=8, rope=linear).rates, plain / 4)
    third = RopeScaling(kind="llama3", factor=8.0, low=1.0, high=4.0, length=64)
    found = LlamaConfig.tiny(head_dim=8, rope=third).rates
    waves = 2 * np.pi / plain
    wanted = []
    for rate, wave in zip(plain, waves, strict=True):
        if wave < 64 / 4.0:
            wanted.append(rate)
        elif wave > 64 / 1.0:
            wanted.append(rate / 8)
        else:
            smooth = (64 / wave - 1.0) / (4.0 - 1.0)
            wanted.append((1 - smooth) * rate / 8 + smooth * rate)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    with pytest.raises(UserError, match="high must be above low"):
        RopeScaling(low=4.0, high=4.0)


def test_half_precision_stays_half_and_logits_do_not():
    cfg = LlamaConfig(**{**vars(CFG), "dtype": "bfloat16", "param_dtype": "bfloat16"})
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    out = llama.apply(params, TOKENS, cfg, cache=llama.init_cache(cfg, 2, 9))
    assert out.logits.dtype == jnp.float32 and out.hidden.dtype == jnp.bfloat16
    assert out.cache.keys.dtype == jnp.bfloat16
    close(out.logits, whole(PARAMS, TOKENS), atol=0.1)


def test_weights_of_hugging_face_with_leftovers_and_a_tied_copy():
    cfg = LlamaConfig.tiny(tied=True, out_bias=True)
    params = random_params(cfg)
    weights = llama.to_torch(params, cfg)
    assert "lm_head.weight" not in weights
    assert weights["model.layers.0.self_attn.k_proj.weight"].shape == (8, 8)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    weights["model.layers.1.self_attn.rotary_emb.inv_freq"] = np.zeros(2, np.float32)
    jax.tree.map(np.testing.assert_array_equal, llama.from_torch(weights, cfg), params)
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    with pytest.raises(UserError, match="differs from"):
        llama.from_torch(weights, cfg)


def test_a_head_of_its_own_is_not_forgotten():
    """A file without the projection is no reason to take the embeddings for it."""
    weights = llama.to_torch(PARAMS, CFG)
    del weights["lm_head.weight"]
    with pytest.raises(UserError, match=r"lm_head\.weight"):
        llama.from_torch(weights, CFG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": np.ones((2, 8), bool)}, r"valid of shape \(2, 9\), found \(2, 8\)"),
        ({"positions": np.zeros((3, 2, 9), np.int32)}, r"positions of shape \(2, 9\), found"),
        ({"cache": llama.init_cache(CFG, 1, 9)}, "3 layers, 2 rows, at least 9 slots"),
        ({"cache": llama.init_cache(CFG, 2, 8)}, "3 layers, 2 rows, at least 9 slots"),
        (
            {"cache": llama.init_cache(CFG, 2, 9), "segments": np.ones((2, 9), np.int32)},
            "either a cache or segments",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        llama.apply(llama.param_shapes(CFG), TOKENS, CFG, **options)
    with pytest.raises(UserError, match=r"at most 64 tokens, found a prompt of 9"):
        llama.prefill(PARAMS, TOKENS, CFG, room=56)


def test_layers_of_their_own_read_caches_of_their_own_or_a_stack():
    cache, apart = llama.init_cache(CFG, 2, 9), llama.unstacked(PARAMS)
    stacked = llama.apply(apart, TOKENS, CFG, cache=cache)
    own = llama.apply(apart, TOKENS, CFG, cache=cache.unstacked())
    np.testing.assert_array_equal(stacked.logits, own.logits)
    np.testing.assert_array_equal(stacked.cache.keys, np.stack(own.cache.keys))
    assert own.cache.shape == stacked.cache.shape


def test_memory_of_a_cache_is_as_computed():
    cache = llama.init_cache(CFG, 2, 16)
    held = cache.keys.nbytes + cache.values.nbytes + cache.valid.nbytes
    assert held == 2 * 16 * llama.cache_bytes(CFG)
