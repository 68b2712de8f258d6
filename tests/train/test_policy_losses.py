"""Advantages, surrogates and PPO: what a user relies on beyond the golden files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.train.losses import advantages, policy, ppo
from jaxcore.train.losses.policy import KINDS, Surrogate

MASK = jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]])  # the last completion is empty


def _numbers(seed=0):
    rng = np.random.default_rng(seed)
    lp, old, ref = (jnp.asarray(rng.normal(-2, 0.3, MASK.shape), jnp.float32) for _ in range(3))
    return lp, old, ref, jnp.asarray(rng.normal(size=len(MASK)), jnp.float32)


def test_empty_completions_and_improbable_padding_leave_losses_and_gradients_finite():
    lp, old, ref, a = _numbers()
    masked = MASK == 0
    spoilt = jnp.where(masked, -jnp.inf, lp), jnp.where(masked, -1e9, old)
    settings = [Surrogate(kind=kind, beta=0.1) for kind in KINDS]

    @jax.jit
    def every(lp, old):
        def one(lp, s):
            return policy.policy_loss(lp, old, a, MASK, s, reference=ref).mean.value()

        out = [jax.value_and_grad(one)(lp, s) for s in settings]
        rloo = jax.value_and_grad(lambda lp: policy.rloo_loss(lp, old, a, MASK).value())(lp)
        plain = jax.value_and_grad(lambda lp: policy.reinforce_loss(lp, a, MASK).value())(lp)
        return [*out, rloo, plain]

    for (value, slope), (want, expected) in zip(every(*spoilt), every(lp, old), strict=True):
        assert np.isfinite(value)
        np.testing.assert_array_equal(value, want)
        np.testing.assert_array_equal(slope, expected)
        assert not np.any(np.asarray(slope)[np.asarray(masked)])


def test_ppo_of_an_empty_completion_is_finite_and_zero_where_masked():
    lp, old, ref, scores = _numbers(1)
    values = jnp.where(MASK == 0, jnp.nan, lp)
    rewards = ppo.shaped_rewards(scores, old, jnp.where(MASK == 0, -jnp.inf, ref), MASK)
    found = ppo.gae(rewards, values, MASK)
    white = ppo.whiten(found.advantages, MASK)
    for a in (rewards, *found, white):
        assert np.all(np.isfinite(a)) and not np.any(np.asarray(a)[np.asarray(MASK) == 0])
    slope = jax.grad(lambda v: ppo.ppo_value(v, values, found.returns, MASK).value())(values)
    assert np.all(np.isfinite(slope))


def test_advantages_of_one_step_without_discount_are_what_is_still_to_come():
    """With gamma = lambda = 1 they are the later rewards less the value."""
    rewards = jnp.array([[1.0, 2.0, 4.0]])
    values = jnp.array([[0.5, 0.25, 0.0]])
    found = ppo.gae(rewards, values, jnp.ones((1, 3)), lam=1.0)
    np.testing.assert_allclose(found.advantages, [[6.5, 5.75, 4.0]])
    np.testing.assert_allclose(found.returns, [[7.0, 6.0, 4.0]])


def test_a_gap_within_a_completion_is_passed_over():
    packed = ppo.gae(jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 0.25]]), jnp.ones((1, 2)))
    gap = jnp.array([[1, 0, 1]])
    with_gap = ppo.gae(jnp.array([[1.0, 9.0, 2.0]]), jnp.array([[0.5, 9.0, 0.25]]), gap)
    np.testing.assert_allclose(with_gap.advantages[0, ::2], packed.advantages[0], rtol=1e-6)


def test_the_dual_clip_bounds_the_loss_of_bad_tokens_that_became_likely():
    lp, old = jnp.log(jnp.array([[0.8, 0.8]])), jnp.log(jnp.array([[0.1, 0.1]]))  # ratio 8
    a, mask = jnp.array([[-1.0, 1.0]]), jnp.ones((1, 2))

    def loss(lp, c):
        return ppo.ppo_policy(lp, old, a, mask, dual_clip=c).value()

    good = -1.2 / 2  # clipped
    assert float(loss(lp, None)) == pytest.approx(8 / 2 + good, rel=1e-5)
    assert float(loss(lp, 3.0)) == pytest.approx(3 / 2 + good, rel=1e-5)
    assert not np.any(jax.grad(loss)(lp, 3.0))  # neither token pulls any more
    assert jax.grad(loss)(lp, None)[0, 0] > 0


def test_delta_caps_the_ratio_on_the_side_that_is_not_clipped():
    lp, old = jnp.log(jnp.array([[0.8]])), jnp.log(jnp.array([[0.1]]))

    def loss(lp, delta):
        settings = Surrogate(delta=delta)
        return policy.policy_loss(lp, old, -jnp.ones(1), jnp.ones((1, 1)), settings).mean.value()

    assert float(loss(lp, None)) == pytest.approx(8, rel=1e-5)
    assert float(loss(lp, 2.0)) == pytest.approx(2, rel=1e-5)
    assert jax.grad(loss)(lp, 2.0)[0, 0] == 0


def test_right_after_sampling_the_value_is_zero_and_the_gradient_is_not():
    lp, _, _, _ = _numbers(2)
    lp, mask = lp[:2], jnp.ones((2, 3))
    a = advantages.group(jnp.array([[0.0, 1.0]])).reshape(-1)
    value, slope = jax.value_and_grad(
        lambda x: policy.policy_loss(x, jax.lax.stop_gradient(x), a, mask).mean.value()
    )(lp)
    assert float(value) == pytest.approx(0, abs=1e-6) and np.all(np.asarray(slope) != 0)


@pytest.mark.parametrize("kind", ["dapo", "cispo", "grpo", "gspo", "dr_grpo"])
def test_means_over_micro_batches_are_those_of_the_whole_batch(kind):
    lp, old, _, a = _numbers(3)
    settings = Surrogate(kind=kind)

    def parts(rows):
        return policy.policy_loss(lp[rows], old[rows], a[rows], MASK[rows], settings).mean

    whole, one, other = parts(slice(None)), parts(slice(0, 1)), parts(slice(1, None))
    total = (one.total + other.total) / (one.weight + other.weight)
    assert float(total) == pytest.approx(float(whole.value()), rel=1e-5)


def test_groups_of_equal_rewards_have_no_advantage_at_all():
    """Rounding of 0.1 - mean(0.1) over a small denominator would teach something in float32."""
    equal = jnp.full((1, 6), 0.1, jnp.float32)
    r = jnp.concatenate([equal, jnp.arange(6.0, dtype=jnp.float32)[None]])
    for scale in ("group", "batch", "none"):
        a = advantages.group(r, scale=scale, eps=1e-6)
        assert not np.any(a[0]) and np.all(a[1] != 0)
    assert not np.any(advantages.rloo(equal))
    assert advantages.zero_variance(r).tolist() == [True, False]


def test_a_missing_reward_spoils_neither_its_group_nor_the_batch():
    each = jnp.array([[1.0, jnp.nan, 3.0, 5.0], [1.0, jnp.nan, jnp.nan, 0.0]])
    found = advantages.combined(each)
    assert int(found.dropped) == 1
    r, valid = found.total.reshape(2, 2), found.valid.reshape(2, 2)
    a = advantages.group(r, scale="none", valid=valid)
    np.testing.assert_allclose(a, [[0, 0], [-1, 1]])
    np.testing.assert_allclose(advantages.rloo(r, valid=valid), [[0, 0], [-2, 2]])


def test_the_divergence_estimators_agree_to_second_order():
    lp = jnp.full((1, 1), -2.0)
    k1, k2, k3 = (
        float(policy.kl_estimator(lp, lp - 0.01, jnp.ones((1, 1)), k)[0, 0])
        for k in ("k1", "k2", "k3")
    )
    assert k1 == pytest.approx(0.01, rel=1e-3)
    assert k3 == pytest.approx(k2, rel=2e-2) and k3 > 0


def test_k3_in_the_loss_pulls_by_the_other_divergence():
    """Expected over the tokens of the policy; the divergence in the reward pulls by the first."""
    reference = jnp.log(jnp.array([0.7, 0.299, 0.001]))
    logits = jnp.array([0.2, -0.3, 0.5])
    mask = jnp.ones((3, 1), bool)

    def expected(x, form):
        """Mean over all three tokens, weighted as the policy draws them."""
        lp = jax.nn.log_softmax(x)[:, None]
        chance = jax.lax.stop_gradient(jnp.exp(lp[:, 0]))
        if form == "k3":
            return jnp.sum(chance * policy.kl_estimator(lp, reference[:, None], mask)[:, 0])
        old = jax.lax.stop_gradient(lp)
        own = policy.kl_in_reward(jnp.zeros(3), old, reference[:, None], mask, 1.0)
        return jnp.sum(chance * -own * lp[:, 0])

    def divergence(x, turned):
        lp = jax.nn.log_softmax(x)
        p, q = (reference, lp) if turned else (lp, reference)
        return jnp.sum(jnp.exp(p) * (p - q))

    for form, turned in (("k3", True), ("reward", False)):
        found = jax.grad(expected)(logits, form)
        np.testing.assert_allclose(found, jax.grad(divergence)(logits, turned), atol=1e-5)


def test_the_divergence_in_the_reward_lowers_it_by_beta_times_the_log_ratio():
    r = policy.kl_in_reward(
        jnp.ones(1), jnp.full((1, 2), -1.0), jnp.full((1, 2), -2.0), MASK[:1, :2]
    )
    assert float(r[0]) == pytest.approx(1 - 0.05 * 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Surrogate(kind="ppo"), "found 'ppo'"),
        (lambda: Surrogate(delta=1.1), "delta above 1 \\+ eps_high = 1.2"),
        (lambda: advantages.group(jnp.ones((1, 2)), scale="std"), "found 'std'"),
        (lambda: advantages.rloo(jnp.ones((1, 1))), "groups of one"),
        (
            lambda: policy.policy_loss(*_numbers()[:2], jnp.ones(3), MASK, Surrogate(beta=0.1)),
            "reference with beta=0.1",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
