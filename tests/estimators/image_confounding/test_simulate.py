"""Simulations: what the planner sees, bias without the images, and the estimates' coverage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.crossfit import fold_ids
from jaxcore.estimators.double_ml import irm
from jaxcore.estimators.image_confounding import simulate
from jaxcore.estimators.image_confounding.weighting import effect
from jaxcore.estimators.monte_carlo import monte_carlo
from jaxcore.estimators.nuisance import Logistic, Ridge


@pytest.fixture(scope="module")
def fields():
    return simulate.gaussian_fields(jax.random.key(0), 200, size=32)


def test_white_noise_responds_with_variance_one():
    for width in (8, 32):  # narrow filters a little less: the divisor is n - 1
        assert np.sum(simulate.kernel(width) ** 2) == pytest.approx(1, abs=0.02)
        assert abs(simulate.kernel(width).sum()) < 1e-12


def test_the_moderating_square_is_centred():
    weights = simulate.moderation_kernel()
    assert weights.shape == (32, 32) and np.sum(weights < 0) == 36
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])


def test_scenes_with_the_pattern_are_treated_more(fields, getkey):
    u = simulate.confounder(fields, 8)
    assert abs(u.mean()) < 1e-5 and float(u.std(ddof=1)) == pytest.approx(1, abs=1e-4)
    drawn = simulate.assign(getkey(), u, tau=1.0)
    naive = effect("difference", drawn.Y, drawn.A, drawn.propensity)
    oracle = effect("hajek", drawn.Y, drawn.A, drawn.propensity)
    assert naive.theta > 1.5 and abs(oracle.theta - 1) < 3 * oracle.se


def test_a_scene_that_holds_the_pattern_has_the_largest_response(fields):
    marked = fields.at[7, 10:18, 12:20].set(4 * np.fliplr(np.eye(8)))
    assert int(jnp.argmax(simulate.confounder(marked, 8))) == 7


def test_keys_make_samples_and_the_same_key_the_same(fields):
    draw = functools.partial(simulate.simulate_image_confounding, images=fields, width=4)
    one, again, other = (draw(jax.random.key(i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(one.Y, again.Y)
    assert not np.array_equal(one.Y, other.Y)
    pixels = draw(jax.random.key(1), level="pixel", widest=8)
    assert pixels.Y.shape == pixels.U.shape == (200, 25, 25)


def test_fields_are_rough_alike_everywhere(fields):
    by_place = jnp.std(fields, axis=0)
    assert float(by_place.max() / by_place.min()) < 2
    jumps = [float(jnp.std(jnp.diff(fields, axis=axis))) for axis in (1, 2)]
    assert jumps[0] == pytest.approx(jumps[1], rel=0.1) and jumps[0] < 0.6


def test_settings_that_cannot_be_are_refused(fields):
    with pytest.raises(UserError, match="images larger than the widest filter, found 32 x 32"):
        simulate.confounder(fields, 64)
    with pytest.raises(UserError, match="Expected pool max or ave and level scene or pixel"):
        simulate.confounder(fields, 4, pool="median")
    with pytest.raises(UserError, match="Expected a filter of one pixel or more, found 0"):
        simulate.kernel(0)


@pytest.mark.statistical
def test_fields_are_confounded_and_their_true_propensities_remove_it():
    images = simulate.gaussian_fields(jax.random.key(3), 500)
    for width in (2, 4, 8):
        u = simulate.confounder(images, width, widest=8)

        def bias(key, u=u):
            drawn = simulate.assign(key, u)
            pair = [effect(name, *drawn[:3]).theta for name in ("difference", "hajek")]
            return jnp.stack(pair) - 1

        naive, oracle = jax.jit(jax.vmap(bias))(jax.random.split(jax.random.key(4), 200)).mean(0)
        assert 0.74 < naive < 0.86 and abs(oracle) < 0.06


# --- the tutorial's simulation ------------------------------------------------------------------


def _doubly_robust(which, drawn):
    """AIPW with two folds, logistic and linear nuisances on tables, band means, or both."""
    parts = {"X": drawn.X, "images": jnp.mean(drawn.images, axis=(1, 2))}
    features = jnp.concatenate([parts[name] for name in which], axis=1)
    folds = fold_ids(jax.random.key(0), features.shape[0], 2)
    learners = {"ml_g": Ridge(alpha=1e-6), "ml_m": Logistic(alpha=1e-6)}
    options = {"fold_ids": folds, "n_folds": 2, "clip": (1e-3, 0.999)}
    return irm(drawn.Y, drawn.A, features, **learners, **options)


def _study(reps, which, n=1000):
    return monte_carlo(
        functools.partial(_doubly_robust, which),
        lambda key, n: simulate.simulate_tutorial(key, n, size=64),
        n,
        reps,
        jax.random.key(1),
        truth=2.0,
    )


def test_the_red_of_an_image_is_its_confounder():
    drawn = simulate.simulate_tutorial(jax.random.key(0), 50, size=16)
    assert drawn.images.shape == (50, 16, 16, 3) and float(drawn.images.min()) >= 0
    hidden = jnp.log(drawn.propensity / (1 - drawn.propensity)) - drawn.X.sum(axis=1)
    red = jnp.mean(drawn.images[..., 0], axis=(1, 2))
    assert np.corrcoef(hidden[5:], red[5:])[0, 1] > 0.95


def test_tables_and_band_means_remove_the_bias_of_the_tutorial():
    found = _study(50, ("X", "images"))
    theta, se = found.theta[:, 0], found.se[:, 0]
    covered = np.mean(np.abs(theta - 2) < 1.96 * se)
    assert abs(theta.mean() - 2) < 0.05 and 0.88 <= covered <= 0.99


@pytest.mark.statistical
def test_neither_the_table_nor_the_images_are_enough_alone():
    published = {("X",): 0.840, ("images",): 1.486, ("X", "images"): 0.009}
    for which, bias in published.items():
        found = _study(200, which)
        theta, se = found.theta[:, 0], found.se[:, 0]
        covered = np.mean(np.abs(theta - 2) < 1.96 * se)
        both = len(which) == 2
        assert theta.mean() - 2 == pytest.approx(bias, abs=0.03), which
        assert (0.90 <= covered <= 0.985) if both else covered < 0.02
