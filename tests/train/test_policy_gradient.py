"""From scored completions to a loss: what counts, what is compared, what cannot be NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.train.losses.advantages import Rewards
from jaxcore.train.policy_gradient import ALGORITHMS, PolicyGradient, loss, targets
from jaxcore.train.rollouts import Rollout

GROUP, B, N = 3, 6, 5
LENGTHS = np.array([5, 2, 0, 3, 1, 4])  # the third says nothing at all
MASK = np.arange(N)[None] < LENGTHS[:, None]
ENDED = np.array([False, True, True, True, True, True])
REWARDS = np.array([2.0, 1.0, 0.0, 0.5, 0.5, 0.5], np.float32)


def drawn(seed=0):
    return np.random.default_rng(seed).normal(-1.5, 0.4, (B, N)).astype(np.float32)


def rollout(mask=MASK):
    tokens = np.where(mask, 3, 0)
    prompts = np.ones((B, 2), np.int32)
    arrays = prompts, prompts > 0, tokens, mask, drawn(), drawn(), ENDED
    return Rollout(*map(jnp.asarray, arrays))


def scored(values=REWARDS):
    there = np.isfinite(values)
    return Rewards(jnp.asarray(np.where(there, values, 0)), jnp.asarray(there))


def made(settings, rewards=None, **changes):
    before = {"old": drawn(), "reference": drawn(1), "values": 0.1 * drawn(2), **changes}
    before = {name: jnp.asarray(value) for name, value in before.items()}
    return targets(rollout(), rewards or scored(), settings, group=GROUP, **before)


def differentiated(settings, batch, logps):
    def total(lp, values):
        found = loss(lp, batch, settings, values)
        return found.total / found.weight, found.metrics

    return jax.grad(total, (0, 1), has_aux=True)(logps, jnp.asarray(0.1 * drawn(3)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_neither_padding_nor_empty_completions_reach_a_gradient(algorithm):
    settings = PolicyGradient(algorithm=algorithm)
    bad = np.where(MASK, drawn(), -np.inf)
    batch = made(settings, old=bad, reference=np.where(MASK, drawn(1), np.nan))
    (by_logps, by_values), metrics = differentiated(settings, batch, jnp.asarray(bad))
    assert np.all(np.isfinite(by_logps)) and np.all(np.isfinite(by_values))
    assert not np.any(np.asarray(by_logps)[~MASK])
    assert np.any(by_logps)
    assert np.any(by_values) == settings.valued
    assert all(np.isfinite(mean.value()) for mean in metrics.values())


def test_groups_of_equal_rewards_teach_nothing_and_are_counted():
    settings = PolicyGradient(beta=0.0, truncated="keep")
    batch = made(settings)
    assert batch["equal"].tolist() == [False] * 3 + [True] * 3
    (gradient, _), metrics = differentiated(settings, batch, jnp.asarray(drawn()))
    assert np.any(gradient[:3]) and not np.any(gradient[3:])
    assert float(metrics["equal_groups"].value()) == 0.5


def test_a_missing_reward_leaves_its_completion_out():
    values = REWARDS.copy()
    values[1] = np.nan
    settings = PolicyGradient(beta=0.1, truncated="keep")
    batch = made(settings, scored(values))
    assert not batch["mask"][1].any() and batch["advantages"][1] == 0
    (gradient, _), metrics = differentiated(settings, batch, jnp.asarray(drawn()))
    assert not np.any(gradient[1])
    assert float(metrics["unrewarded"].value()) == pytest.approx(1 / 6)
    assert float(metrics["reward"].value()) == pytest.approx(np.nanmean(values))


def test_completions_cut_short_are_penalised_masked_or_kept():
    plain = made(PolicyGradient(scale="none", truncated="keep"))["advantages"]
    np.testing.assert_allclose(plain[:3], [1, 0, -1], atol=1e-6)
    masked = made(PolicyGradient(scale="none", truncated="mask"))
    assert not masked["mask"][0].any() and masked["mask"][1].any()
    np.testing.assert_array_equal(masked["advantages"], plain)  # its group knows its reward
    penalised = made(PolicyGradient(scale="none"))["advantages"]  # one less than the lowest, 0
    np.testing.assert_allclose(penalised[:3], [-1, 1, 0], atol=1e-6)
    assert made(PolicyGradient())["reward"].tolist() == REWARDS.tolist()  # what is logged is plain


def test_the_first_update_has_a_ratio_of_one_without_old_log_probabilities():
    settings = PolicyGradient(beta=0.0)
    logps = jnp.asarray(drawn())
    with_old = made(settings)
    without = {name: value for name, value in with_old.items() if name != "old"}
    (one, _), _ = differentiated(settings, with_old, logps)
    (two, _), _ = differentiated(settings, without, logps)
    np.testing.assert_allclose(one, two, atol=1e-7)


def test_the_divergence_enters_the_reward_or_the_loss():
    logps = jnp.asarray(drawn())
    for algorithm, in_reward in (("grpo", False), ("rloo", True), ("ppo", True)):
        near, far = (made(PolicyGradient(algorithm=algorithm, beta=beta)) for beta in (0.0, 5.0))
        changed = np.any(np.asarray(near["advantages"]) != np.asarray(far["advantages"]))
        assert changed == in_reward
    settings = PolicyGradient(beta=5.0)
    (pulled, _), metrics = differentiated(settings, made(settings), logps)
    (free, _), _ = differentiated(PolicyGradient(beta=0.0), made(settings), logps)
    assert np.any(pulled != free)
    log_ratio = np.where(MASK, drawn() - drawn(1), 0)
    said = LENGTHS > 0
    assert float(metrics["kl"].value()) == pytest.approx(log_ratio.sum(1)[said].mean(), rel=1e-5)
    assert float(metrics["kl_k1"].value()) == pytest.approx(
        log_ratio.sum() / LENGTHS.sum(), rel=1e-5
    )


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="delta above"):
        PolicyGradient(delta=1.0)
    with pytest.raises(UserError, match="algorithm"):
        PolicyGradient(algorithm="trpo")
