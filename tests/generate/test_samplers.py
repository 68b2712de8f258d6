"""What a sampler leaves, and how often it draws what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.generate import Sampler, shaped_logits

LOGITS = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))


def left(temperature=1.0, top_k=0, top_p=1.0):
    shaped = shaped_logits(
        LOGITS, jnp.float32(temperature), jnp.float32(top_p), top_k=top_k, nucleus=top_p < 1
    )
    return np.asarray(jax.nn.softmax(shaped))


def test_what_is_left():
    np.testing.assert_allclose(left(), [0.4, 0.3, 0.2, 0.1], atol=1e-6)
    np.testing.assert_allclose(left(top_k=2), [4 / 7, 3 / 7, 0, 0], atol=1e-6)
    np.testing.assert_allclose(left(top_p=0.39), [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(left(top_p=0.41), [4 / 7, 3 / 7, 0, 0], atol=1e-6)
    np.testing.assert_allclose(left(top_p=1e-6), [1, 0, 0, 0], atol=1e-6)
    squares = np.array([0.4, 0.3, 0.2, 0.1]) ** 2
    np.testing.assert_allclose(left(temperature=0.5), squares / squares.sum(), atol=1e-6)
    np.testing.assert_allclose(left(top_k=99), left(), atol=1e-6)


def test_draws_have_their_probabilities_and_never_what_is_left_out():
    keys = jax.random.split(jax.random.key(0), 4000)
    logits = jnp.broadcast_to(LOGITS.at[1].set(-jnp.inf), (4000, 4))
    shares = np.bincount(Sampler()(logits, keys), minlength=4) / 4000
    np.testing.assert_allclose(shares, np.array([0.4, 0, 0.2, 0.1]) / 0.7, atol=0.03)
    assert shares[1] == 0


def test_without_temperature_the_largest_is_taken():
    keys = jax.random.split(jax.random.key(0), 2)
    logits = jnp.array([[0.0, 2.0, 2.0], [-jnp.inf, -5.0, -9.0]])
    assert Sampler(temperature=0)(logits, keys).tolist() == [1, 1]


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}])
def test_numbers_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampler(**wrong)


def test_banned_tokens_are_left_out_before_all_else():
    keys = jax.random.split(jax.random.key(0), 200)
    logits = jnp.broadcast_to(LOGITS, (200, 4))
    drawn = np.asarray(Sampler(banned=(0, 99), top_k=2)(logits, keys))
    assert set(drawn) == {1, 2}  # 0 does not take a place among the two; 99 is no token
    assert Sampler(temperature=0, banned=(0,))(logits[:1], keys[:1]).tolist() == [1]
