"""Clusters of images with effects of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcore.estimators.image_confounding import heterogeneity as clusters


def test_the_loss_of_large_errors_is_finite_and_nearly_absolute():
    error = jnp.array([0.0, 1e-3, 100.0, -1e4])
    zero = jnp.zeros(4)
    found = clusters.losses(error, zero[None], zero, zero)[0]
    np.testing.assert_allclose(found[2:], np.abs(error[2:]) - np.log(2), rtol=1e-5)
    np.testing.assert_allclose(found[:2], error[:2] ** 2 / 2, atol=1e-6)


def test_predictions_are_probabilities_and_their_means():
    logits = clusters.against_first(jnp.asarray(np.random.default_rng(0).normal(size=(7, 2))))
    found = clusters.predict(logits, jnp.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-6)
    assert ((found.expected >= 1) & (found.expected <= 4)).all()
    np.testing.assert_allclose(found.average, np.mean(found.expected), rtol=1e-6)


def test_memberships_become_whole_as_the_temperature_falls():
    noise = clusters.draw_noise(jax.random.key(0), 2, 5, 3)
    shares = clusters.memberships(jnp.zeros((5, 3)), noise.gumbel, temperature=1e-3)
    np.testing.assert_allclose(shares.max(-1), 1, atol=1e-3)
    np.testing.assert_array_equal(shares.argmax(-1), noise.gumbel.argmax(-1))


def test_two_kinds_of_places_are_told_apart_by_their_effects():
    """Effects 0 and 2, kinds shown by a feature; treatment at random."""
    rng, n = np.random.default_rng(0), 600
    feature = rng.normal(size=n)
    treatment = rng.integers(0, 2, n)
    outcome = 0.5 * feature + treatment * np.where(feature > 0, 2.0, 0.0)
    z, w, y = (jnp.asarray(a, jnp.float32) for a in (feature, treatment, outcome))
    difference = y[w == 1].mean() - y[w == 0].mean()
    params = {
        "untreated": jnp.zeros(2),
        "logit": jnp.zeros(2),
        "mean": clusters.first_means(difference, 2),
        "raw": jnp.full(2, -10.0),
    }
    tx = optax.adam(0.05)

    def logits(params):
        return clusters.against_first((params["logit"][0] + params["logit"][1] * z)[:, None])

    def loss(params, key):
        noise = clusters.draw_noise(key, 2, n, 2)
        effects = clusters.unit_effects(logits(params), params["mean"], params["raw"], noise)
        base = params["untreated"][0] + params["untreated"][1] * z
        return jnp.mean(clusters.losses(base, effects, w, y))

    def step(carry, key):
        params, state = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(jax.grad(loss)(params, key), state)
        return (jax.tree.map(jnp.add, params, updates), state), None

    keys = jax.random.split(jax.random.key(0), 400)
    (params, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), keys))(params)
    found = clusters.predict(logits(params), params["mean"])
    np.testing.assert_allclose(np.sort(params["mean"]), [0, 2], atol=0.35)
    np.testing.assert_allclose(found.average, 1.0, atol=0.15)
    assert np.corrcoef(found.expected, feature > 0)[0, 1] > 0.9


def test_the_gaussian_likelihood_is_that_of_the_cluster_a_unit_is_in():
    rng = np.random.default_rng(0)
    n, effects = 9, np.array([0.5, 2.0])
    base, y, w = rng.normal(size=n), rng.normal(size=n), rng.integers(0, 2, n)
    kind = rng.integers(0, 2, n)
    spreads = np.array([[0.5, 1.0], [2.0, 3.0]])  # by treatment and cluster
    mean, spread = base + w * effects[kind], spreads[w, kind]
    expected = ((y - mean) / spread) ** 2 / 2 + np.log(spread * np.sqrt(2 * np.pi))
    whole = jnp.asarray(np.eye(2)[kind][None], jnp.float32)
    arrays = [jnp.asarray(a, jnp.float32) for a in (base, effects[None], w, y, *spreads)]
    base, effects, w, y, *spreads = arrays
    found = clusters.gaussian_losses(base, whole, effects, w, y, tuple(spreads))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_effects_as_the_prior_has_them_and_the_average_of_the_experiment_cost_nothing():
    raw = jnp.log(jnp.expm1(jnp.full(3, 0.7)))
    near = clusters.effect_divergence(jnp.full(3, 0.2), raw, 0.2, 0.7)
    np.testing.assert_allclose(near, 0, atol=1e-6)
    assert clusters.effect_divergence(jnp.full(3, 0.5), raw, 0.2, 0.7) > 0.1
    assert clusters.average_penalty(jnp.array([1.0, 3.0]), 2.0, 0.1) == 0
    np.testing.assert_allclose(clusters.average_penalty(jnp.array([1.0, 3.0]), 2.2, 0.1), 4, 1e-4)
