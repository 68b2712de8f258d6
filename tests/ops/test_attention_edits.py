"""Counterfactual attention: what its rows are, whole layers, random numbers, patch weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore import ops
from jaxcore.errors import UserError
from jaxcore.nn import AttentionEdit, edited_attention, layers_of
from jaxcore.ops import (
    edit_language_attention,
    edit_vision_attention,
    patch_weights,
    resize_bilinear,
)

KINDS = ("random", "uniform", "reverse", "shuffle")
HEADS, LENGTH = 2, 6


def batch(seed, pads):
    """Attention weights of rows with padding on the left, and what they may see."""
    rng = np.random.default_rng(seed)
    valid = np.arange(LENGTH) >= np.asarray(pads)[:, None]
    allowed = np.tri(LENGTH, dtype=bool) & valid[:, None]
    scores = rng.normal(size=(len(pads), HEADS, LENGTH, LENGTH)) * rng.choice([0.1, 1.0, 30.0])
    scores = np.where(allowed[:, None], np.exp(scores - scores.max()), 0)
    sums = scores.sum(-1, keepdims=True)
    weights = np.divide(scores, sums, out=np.zeros_like(scores), where=sums > 0)
    return jnp.asarray(weights, jnp.float32), jnp.asarray(allowed)


@pytest.fixture(scope="module")
def compiled():
    return {
        kind: jax.jit(
            lambda attn, allowed, keys, kind=kind: jax.value_and_grad(
                lambda a: (lambda e: (jnp.sum(e**2), e))(
                    edit_language_attention(a, allowed, kind, keys=keys)
                ),
                has_aux=True,
            )(attn)
        )
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, LENGTH - 1), min_size=2, max_size=2))
def test_rows_are_distributions_over_the_allowed_keys(compiled, kind, seed, pads):
    attn, allowed = batch(seed, pads)
    keys = jax.random.split(jax.random.key(seed), 2)
    (_, edited), gradient = compiled[kind](attn, allowed, keys)
    edited, keep = np.asarray(edited), np.asarray(allowed)[:, None].repeat(HEADS, 1)
    assert np.isfinite(edited).all() and np.isfinite(gradient).all()
    assert (edited[~keep] == 0).all() and (edited >= 0).all()
    np.testing.assert_allclose(edited.sum(-1)[keep.any(-1)], 1, atol=1e-5)
    if kind == "shuffle":
        np.testing.assert_array_equal(np.sort(edited, -1), np.sort(attn, -1))


def test_random_numbers_do_not_depend_on_padding_cache_or_neighbours():
    """A row alone, one query at a time over a longer cache, is the row in a padded batch."""
    for kind in ("random", "shuffle"):
        attn, allowed = batch(3, [0, 2])
        keys = jax.random.split(jax.random.key(1), 2)
        whole = edit_language_attention(attn, allowed, kind, keys=keys)
        alone = edit_language_attention(
            attn[1:, :, 2:, 2:], allowed[1:, 2:, 2:], kind, keys=keys[1:]
        )
        np.testing.assert_allclose(whole[1:, :, 2:, 2:], alone, atol=1e-6)
        longer = [(0, 0)] * 3 + [(0, 3)]
        last = edit_language_attention(
            jnp.pad(attn[:, :, -1:], longer), jnp.pad(allowed[:, -1:], longer[1:]), kind, keys=keys
        )
        np.testing.assert_allclose(last[..., :LENGTH], whole[:, :, -1:], atol=1e-6)
        other = edit_language_attention(attn, allowed, kind, keys=keys[::-1])
        assert np.abs(other - whole).max() > 0.05


@pytest.mark.parametrize("mode", ["masked", "official"])
@pytest.mark.parametrize("kind", ["uniform", "reverse"])
def test_attention_of_an_edited_layer_is_that_of_the_edited_weights(kind, mode):
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.normal(size=(2, LENGTH, 4, 3)), jnp.float32)
    k, v = jnp.asarray(rng.normal(size=(2, 2, LENGTH, 2, 3)), jnp.float32)
    _, allowed = batch(0, [0, 2] if mode == "masked" else [0, 0])
    edit = AttentionEdit.create(kind, "all", 1, mode=mode)
    ours = jax.jit(edited_attention)(q, k, v, allowed, edit)
    attn = ops.attention_weights(q, k, allowed)
    explicit = edit_language_attention(attn, allowed, kind, mode=mode)
    explicit = jnp.einsum("bhts,bshd->bthd", explicit, v.repeat(2, 2))
    np.testing.assert_allclose(ours, explicit, atol=1e-5)


def test_only_the_chosen_rows_and_heads_are_edited():
    q = jnp.asarray(np.random.default_rng(0).normal(size=(2, LENGTH, HEADS, 3)), jnp.float32)
    _, allowed = batch(0, [0, 0])
    rows, heads = jnp.array([False, True]), jnp.array([True, False])
    for kind in ("reverse", "random"):
        keys = jax.random.split(jax.random.key(0), 2)
        some = AttentionEdit.create(kind, "all", 1, rows=rows, heads=heads, keys=keys)
        none = AttentionEdit.create(kind, "all", 1, rows=rows & False, keys=keys)
        plain, edited = (edited_attention(q, q, q, allowed, edit) for edit in (none, some))
        changed = np.abs(plain - edited).max((1, 3)) > 1e-3
        np.testing.assert_array_equal(changed, rows[:, None] & heads[None])


def test_amplified_scores_of_the_last_query():
    q = jnp.asarray(np.random.default_rng(0).normal(size=(1, LENGTH, HEADS, 3)), jnp.float32)
    _, allowed = batch(0, [0])
    targets = jnp.arange(LENGTH)[None] < 2
    edit = AttentionEdit(jnp.ones(1, bool), "amplify", targets=targets, strength=jnp.asarray(1e4))
    ours = edited_attention(q, q, q, allowed, edit)
    plain = edited_attention(q, q, q, allowed, edit.replace(strength=jnp.asarray(0.0)))
    np.testing.assert_array_equal(ours[:, :-1], plain[:, :-1])
    score = jnp.einsum("hd,shd->hs", q[0, -1], q[0])
    best = jnp.argmax(jnp.where(targets, jnp.abs(score), -1.0), axis=-1)
    for head in range(HEADS):
        np.testing.assert_allclose(ours[0, -1, head], q[0, best[head], head], atol=1e-3)


def test_what_the_official_functions_do():
    """Rows that see i + 1 of n keys sum to (i + 1) / n; a first row that divides zero by zero."""
    attn, allowed = batch(0, [0, 0])
    share = np.arange(1, LENGTH + 1) / LENGTH
    uniform = edit_language_attention(attn, allowed, "uniform", mode="official")
    np.testing.assert_allclose(uniform.sum(-1)[0, 0], share, atol=1e-6)
    bad = edit_language_attention(attn, allowed, "reverse_and_normalize", mode="official")
    assert np.isnan(bad[:, :, 0]).all() and np.isfinite(bad[:, :, 1:]).all()
    good = edit_language_attention(
        attn, allowed, "reverse_and_normalize", mode="official", safe=True
    )
    np.testing.assert_allclose(good, edit_language_attention(attn, allowed, "reverse"), atol=1e-6)


@pytest.mark.parametrize("grid", [(3, 3), (4, 2)])
def test_patch_weights_are_the_resized_map(grid):
    rng = np.random.default_rng(0)
    attn = jax.nn.softmax(jnp.asarray(rng.normal(size=(2, 3, 13, 13)), jnp.float32), axis=-1)
    numbers = {
        "random": {"rand": jnp.asarray(rng.uniform(size=attn.shape), jnp.float32)},
        "shuffle": {"perm": jnp.asarray([rng.permutation(169) for _ in range(3)])},
    }
    for kind in KINDS:
        whole = edit_vision_attention(attn, kind, **numbers.get(kind, {}))
        expected = resize_bilinear(jnp.moveaxis(whole, 1, -1), grid).mean(-1).reshape(2, -1)
        ours = patch_weights(attn, grid, kind, **numbers.get(kind, {}))
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_drawn_patch_weights_are_like_those_of_the_whole_map():
    """Entries are drawn without replacement, per row of the batch by its own key."""
    attn = jnp.arange(60.0**2).reshape(1, 1, 60, 60).repeat(2, 0)
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = patch_weights(attn, (3, 3), "shuffle", keys=keys)
    np.testing.assert_allclose(drawn[:1], patch_weights(attn[:1], (3, 3), "shuffle", keys=keys[:1]))
    assert abs(float(drawn.mean()) - 1800) < 400 and np.unique(drawn).size == 18
    small = attn[:, :, :4, :4]
    for kind in ("shuffle", "random"):
        whole = edit_vision_attention(small, kind, keys=keys)
        if kind == "shuffle":
            assert set(np.asarray(whole).ravel()) == set(np.asarray(small).ravel())
        assert np.abs(whole[0] - whole[1]).max() > 0


def test_bands_of_layers():
    assert [np.flatnonzero(layers_of(b, 30)).tolist() for b in ("early", "middle", "late")] == [
        list(range(10)), list(range(10, 20)), list(range(20, 30)),
    ]  # fmt: skip
    assert np.flatnonzero(layers_of("middle", 28)).tolist() == list(range(9, 18))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: layers_of("deep", 3), "must be one of early, middle, late, all, found 'deep'"),
        (lambda: layers_of([3], 3), "numbers from 0 to 2, found"),
        (lambda: AttentionEdit.create("mean", "all", 3), "found 'mean'"),
        (lambda: AttentionEdit.create("shuffle", "all", 3, mode="official"), "no edit of kind"),
        (lambda: edit_language_attention(*batch(0, [0]), "random"), "one random key per row"),
        (lambda: edit_vision_attention(batch(0, [0])[0], "shuffle"), "one random key per row"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
