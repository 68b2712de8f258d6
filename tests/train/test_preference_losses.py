"""Losses of pairs and of reward models: what a user relies on beyond the golden files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.train.losses import preference, reward
from jaxcore.train.losses.preference import LOSSES, Preference


def _numbers(seed=0, rows=4, tokens=5):
    rng = np.random.default_rng(seed)
    lp, ref = (jnp.asarray(rng.normal(-2, 1, (rows, tokens)), jnp.float32) for _ in range(2))
    return lp, ref, jnp.asarray(rng.random((rows, tokens)) < 0.7)


def test_what_is_masked_reaches_neither_loss_nor_gradient_of_any_kind():
    lp, ref, mask = _numbers()
    mask = mask.at[0].set(False)  # a chosen completion without a token
    spoilt = jnp.where(mask, lp, -jnp.inf), jnp.where(mask, ref, jnp.nan)
    every = [
        Preference(loss=loss, divergence=d, label_smoothing=0.1, ld_alpha=0.5)
        for loss, d in [(name, "reverse_kl") for name in (*LOSSES, "sft")]
        + [("sigmoid", d) for d in preference.DIVERGENCES]
    ]

    @jax.jit
    def gradients(lp, ref):
        def one(lp, s):
            return preference.preference_loss(lp, ref, mask, s).mean.value()

        return [jax.value_and_grad(one)(lp, s) for s in every]

    clean, found = gradients(lp, ref), gradients(*spoilt)
    for s, (value, gradient), (want, slope) in zip(every, found, clean, strict=True):
        assert np.isfinite(value) and np.all(np.isfinite(gradient)), s
        np.testing.assert_array_equal(value, want, err_msg=str(s))
        np.testing.assert_array_equal(gradient, slope, err_msg=str(s))
        assert not np.any(np.asarray(gradient)[~np.asarray(mask)]), s


def test_log_ratios_of_hundreds_stay_finite_in_float32():
    lp = jnp.array([[-900.0], [-1.0]])
    for one in (lp, lp[::-1]):
        for divergence in preference.DIVERGENCES:
            for name in ("sigmoid", "discopop"):
                s = Preference(loss=name, divergence=divergence)
                found = preference.preference_loss(one, jnp.full((2, 1), -2.0), one < 0, s)
                assert np.isfinite(found.mean.value()), (divergence, name)


def test_several_losses_add_up_by_weight():
    lp, ref, mask = _numbers(1)

    def of(loss, weights=()):
        s = Preference(loss=loss, weights=weights)
        return preference.preference_loss(lp, ref, mask, s).per_pair

    want = 0.5 * of("sigmoid") + 2 * of("sft")
    np.testing.assert_allclose(of(("sigmoid", "sft"), (0.5, 2.0)), want, rtol=1e-6)


def test_no_gradient_flows_into_the_reference():
    lp, ref, mask = _numbers(2)
    slope = jax.grad(lambda r: preference.preference_loss(lp, r, mask).mean.value())(ref)
    assert not np.any(slope)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "dpo2"}, "found 'dpo2'"),
        ({"divergence": "kl"}, "found 'kl'"),
        ({"loss": "exo_pair"}, "label_smoothing above 0"),
        ({"label_smoothing": 0.5}, "found 0.5"),
        ({"beta": 0.0}, "positive beta"),
        ({"loss": ("sigmoid", "sft"), "weights": (1.0,)}, "2 losses, found 1"),
        ({"ld_alpha": 2.0}, "found 2.0"),
    ],
)
def test_settings_that_make_no_loss_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        Preference(**settings)


def test_an_odd_number_of_rows_is_refused():
    with pytest.raises(UserError, match="odd"):
        preference.preference_loss(jnp.zeros((3, 1)), jnp.zeros((3, 1)), jnp.ones((3, 1)))


def test_centering_squares_the_sum_of_the_rewards_and_not_their_difference():
    one, other = jnp.array([2.0]), jnp.array([-2.0])
    plain, centred = (reward.reward_bt(one, other, centering=c).value() for c in (0.0, 1.0))
    assert float(plain) == float(centred)


def test_rows_of_weight_zero_do_not_count_even_if_their_score_is_missing():
    r, y = jnp.array([1.0, 2.0]), jnp.array([0.0, jnp.nan])
    w = jnp.array([1.0, 0.0])
    for loss in ("mse", "huber"):
        slope = jax.grad(
            lambda r, loss=loss: reward.reward_regression(r, y, weights=w, loss=loss).value()
        )(r)
        assert np.all(np.isfinite(slope)) and slope[1] == 0


@pytest.mark.parametrize("form", ["release", "plain"])
def test_two_heads_on_rows_that_do_not_vary_have_finite_gradients(form):
    features, heads = jnp.ones((4, 3)), jnp.zeros((2, 3))
    value, slope = jax.value_and_grad(
        lambda w: reward.odin(features, w, jnp.arange(4.0), form=form)
    )(heads)
    assert np.isfinite(value) and np.all(np.isfinite(slope))


def test_two_heads_can_fit_scores_instead_of_pairs():
    x = jnp.eye(4)
    heads = jnp.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    value = reward.odin(
        x, heads, jnp.arange(4.0), scores=heads[0], corr=0.0, ortho=0.0, form="plain"
    )
    assert float(value) == pytest.approx(0, abs=1e-6)
