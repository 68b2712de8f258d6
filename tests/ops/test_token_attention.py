"""Attention between tokens and rotations, against sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore import ops


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def test_every_head_sees_the_keys_of_its_group():
    q, k, v = arrays((2, 3, 4, 6), (2, 5, 2, 6), (2, 5, 2, 6))
    allowed = jnp.asarray(np.random.default_rng(1).random((2, 3, 5)) < 0.6).at[0, 1].set(False)
    out = ops.token_attention(q, k, v, allowed)
    weights = np.asarray(ops.attention_weights(q, k, allowed))
    for row in range(2):
        for head in range(4):
            scores = np.asarray(q)[row, :, head] @ np.asarray(k)[row, :, head // 2].T / 6**0.5
            expected = np.exp(scores) * np.asarray(allowed)[row]
            expected /= np.maximum(expected.sum(-1, keepdims=True), 1e-30)
            np.testing.assert_allclose(weights[row, head], expected, atol=1e-6)
            mixed = expected @ np.asarray(v)[row, :, head // 2]
            np.testing.assert_allclose(out[row, :, head], mixed, atol=1e-6)
    assert np.all(weights[~np.broadcast_to(allowed[:, None], weights.shape)] == 0)
    np.testing.assert_allclose(ops.weighted_values(jnp.asarray(weights), v), out, atol=1e-6)


def test_queries_in_parts_are_all_at_once():
    q, k, v = arrays((2, 7, 4, 6), (2, 7, 2, 6), (2, 7, 2, 6))
    allowed = jnp.tri(7, dtype=bool)[None]

    def run(q, at_once):
        return ops.token_attention(q, k, v, allowed, at_once=at_once)

    np.testing.assert_allclose(run(q, 3), run(q, 9), atol=1e-6)
    whole, parts = (jax.grad(lambda q, n=n: jnp.sum(run(q, n) ** 2))(q) for n in (9, 3))
    np.testing.assert_allclose(parts, whole, atol=1e-5)


@pytest.mark.parametrize("at_once", [1024, 40])
def test_keys_behind_a_query_are_left_out(at_once):
    q, k, v = arrays((2, 70, 4, 6), (2, 73, 2, 6), (2, 73, 2, 6))
    there = jnp.arange(73)[None] >= jnp.array([[0], [5]])  # padding on the left
    allowed = jnp.tri(70, 73, dtype=bool)[None] & there[:, None]

    def run(q, causal):
        return ops.token_attention(q, k, v, allowed, causal=causal, at_once=at_once)

    np.testing.assert_allclose(run(q, True), run(q, False), atol=1e-6)
    cut, whole = (jax.grad(lambda q, c=c: jnp.sum(run(q, c) ** 2))(q) for c in (True, False))
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_half_precision_of_one_row_and_of_many():
    x, kernel = arrays((5, 16), (16, 3, 4))
    exact = np.einsum("bi,ihd->bhd", x, kernel)
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    for rows, wanted in ((x, exact), (x[:1], exact[:1]), (x[0], exact[0])):
        found = ops.linear(rows, kernel)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.15)


def test_gradients_are_right_where_a_query_sees_one_key_or_none():
    q, k, v = arrays((1, 3, 1, 2), (1, 3, 1, 2), (1, 3, 1, 2))
    allowed = jnp.tri(3, dtype=bool)[None].at[0, 1].set(False)

    def total(q):
        return jnp.sum(ops.token_attention(q, k, v, allowed) ** 2)

    slopes = np.asarray(jax.grad(total)(q))
    assert np.all(slopes[0, :2] == 0)  # nothing to choose between
    for i in range(2):
        step = jnp.zeros_like(q).at[0, 2, 0, i].set(1e-2)
        np.testing.assert_allclose(
            slopes[0, 2, 0, i], (total(q + step) - total(q - step)) / 2e-2, rtol=1e-2
        )


def test_turned_vectors_see_only_how_far_they_are_apart():
    (x,) = arrays((6, 8))
    rates = ops.rotary_rates(8)

    def turned(start):
        return ops.rotary(x, ops.rotary_turns(start + jnp.arange(6), rates))

    np.testing.assert_allclose(turned(0) @ turned(0).T, turned(5) @ turned(5).T, atol=1e-5)
    np.testing.assert_allclose(turned(0)[0], x[0], atol=1e-7)


def test_sections_turn_by_their_own_kind_of_position():
    """Height for the first pairs and width for the others, each with rates of its own."""
    (x,) = arrays((3, 8))
    rates = np.tile(ops.rotary_rates(4), 2)
    places = jnp.array([[0, 1, 2], [5, 0, 3]])
    found = np.asarray(ops.rotary(x, ops.rotary_turns(places, rates, (2, 2))))
    for token in range(3):
        for pair in range(4):
            angle = float(places[pair // 2, token]) * rates[pair]
            a, b = float(x[token, pair]), float(x[token, pair + 4])
            np.testing.assert_allclose(
                [found[token, pair], found[token, pair + 4]],
                [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)],
                atol=1e-5,
            )
