"""Weighting estimators: what they estimate, what changes them, their errors, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding import compat, propensity, resampling
from jaxcore.estimators.image_confounding.weighting import AUGMENTED, ESTIMATORS, effect
from jaxcore.estimators.influence import gateaux
from jaxcore.estimators.units import Units


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    e = 1 / (1 + np.exp(-x))
    a = (rng.uniform(size=60) < e).astype(float)
    y = 2 * a + x + rng.normal(size=60)
    return {"y": y, "a": a, "e": e, "m0": x + 0.1, "m1": x + 1.9}


def _effect(name, sample, units=None, **changes):
    s = {**sample, **changes}
    outcome = (s["m0"], s["m1"]) if name in AUGMENTED else ()
    more = {} if units is None else {"units": units}
    return effect(name, s["y"], s["a"], s["e"], *outcome, **more)


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_neither_the_order_of_units_nor_the_names_of_clusters_matter(name, sample, seed):
    rng = np.random.default_rng(seed)
    clusters = np.arange(60) // 4
    order, renamed = rng.permutation(60), rng.permutation(15)
    one = _effect(name, sample, Units(clusters=clusters))
    moved = {key: value[order] for key, value in sample.items()}
    other = _effect(name, moved, Units(clusters=renamed[clusters][order]))
    np.testing.assert_allclose([other.theta, other.se], [one.theta, one.se], rtol=1e-10)
    np.testing.assert_allclose(other.psi, one.psi[order], atol=1e-10)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_constant_added_to_the_outcome_moves_ipw_alone(name, sample):
    moved = {key: sample[key] + 10 for key in ("y", "m0", "m1")}
    change = _effect(name, sample, **moved).theta - _effect(name, sample).theta
    assert (abs(change) > 0.1) == (name == "ipw")
    assert name == "ipw" or abs(change) < 1e-10


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_weight_of_zero_leaves_a_unit_out(name, sample):
    keep = np.arange(60) % 3 != 0
    left = _effect(name, {key: value[keep] for key, value in sample.items()})
    zero = _effect(name, sample, Units(keep.astype(float)))
    np.testing.assert_allclose([zero.theta, zero.se], [left.theta, left.se], rtol=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_influence_values_are_derivatives_towards_each_unit(name, sample):
    with jax.enable_x64(True):
        data = {key: jnp.asarray(value) for key, value in sample.items()}
        found = gateaux(lambda p: _effect(name, data, Units(p)).theta, jnp.full(60, 1 / 60))
    np.testing.assert_allclose(_effect(name, sample).psi, found, atol=1e-10)


def test_weights_of_one_number_are_the_difference_in_means_and_welchs_error(sample):
    from scipy.stats import ttest_ind

    treated, others = sample["y"][sample["a"] == 1], sample["y"][sample["a"] == 0]
    half = np.full(60, 0.5)
    welch = ttest_ind(treated, others, equal_var=False)
    plain = _effect("difference", sample)
    np.testing.assert_allclose(plain.theta / plain.se, welch.statistic)
    for name in ("hajek", "ato", "att"):
        np.testing.assert_allclose(_effect(name, sample, e=half).theta, plain.theta)


def test_doubly_robust_estimates_need_no_propensity_where_the_outcome_model_is_right(sample):
    exact = {"y": 3 * sample["a"] + sample["m0"], "m1": sample["m0"] + 3}
    for name in AUGMENTED:
        wrong = _effect(name, sample, e=np.full(60, 0.1), **exact)
        np.testing.assert_allclose([wrong.theta, wrong.se], [3, 0], atol=1e-9)


def test_compiled_in_single_precision_it_agrees(sample):
    single = {key: jnp.asarray(value, jnp.float32) for key, value in sample.items()}
    for name in ("hajek", "aipw_hajek"):
        compiled = jax.jit(lambda s, name=name: _effect(name, s))(single)
        np.testing.assert_allclose(compiled.theta, _effect(name, sample).theta, rtol=1e-5)


def test_every_estimator_has_a_name_and_aipw_an_outcome_model(sample):
    with pytest.raises(UserError, match=r"Expected an estimator of difference, ipw.*found 'ipv'"):
        _effect("ipv", sample)
    with pytest.raises(UserError, match="Expected expected outcomes of both arms for 'aipw'"):
        effect("aipw", sample["y"], sample["a"], sample["e"])


# --- propensities -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("e", "sentence"),
    [
        ([0.5, np.nan], "found 1 of 2 missing or infinite"),
        ([0.5, 1.0], "found 1 of 2 at 0 or 1: their weights are infinite; clip or trim them"),
        ([0.5, 1.2], r"Expected propensities in \[0, 1\], found 0.5 to 1.2"),
        ([0.5], "Expected 2 propensities"),
        (["a", "b"], "Expected 2 propensities"),
    ],
)
def test_propensities_that_make_no_weights_are_refused(e, sentence):
    with pytest.raises(UserError, match=sentence):
        propensity.check(e, 2)


def test_clipping_and_trimming_are_told_apart():
    e = np.array([0.0, 0.05, 0.5, 0.97])
    clipped = propensity.clip(e, 0.1)
    assert clipped.e.tolist() == [0.1, 0.1, 0.5, 0.9] and clipped.moved == 3
    assert propensity.overlapping(e, 0.1).tolist() == [False, False, True, False]


# --- bootstrap ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_bootstrap_is_the_estimate_on_what_was_drawn(name, sample, getkey):
    weights = np.asarray(resampling.bootstrap_weights(getkey(), 3, 60))
    assert (weights.sum(axis=1) == 60).all()
    args = [sample[key] for key in ("y", "a", "e", "m0", "m1")]
    for drawn, theta in zip(weights, resampling.bootstrap(weights, name, *args), strict=True):
        again = np.repeat(np.arange(60), drawn.astype(int))
        there = {key: value[again] for key, value in sample.items()}
        np.testing.assert_allclose(theta, _effect(name, there).theta, rtol=1e-10)


def test_clusters_are_drawn_whole(sample, getkey):
    clusters = np.arange(60) // 5
    weights = resampling.bootstrap_weights(getkey(), 4, 12)
    args = [sample[key] for key in ("y", "a", "e")]
    whole = resampling.bootstrap(weights, "hajek", *args, units=Units(clusters=clusters))
    units = resampling.bootstrap(weights[:, clusters], "hajek", *args)
    np.testing.assert_allclose(whole, units, rtol=1e-12)
    with pytest.raises(UserError, match="Expected bootstrap weights of 12 units or clusters"):
        resampling.bootstrap(weights[:, 1:], "hajek", *args, units=Units(clusters=clusters))


def test_a_bootstrap_of_clusters_has_about_their_standard_error(sample, getkey):
    clusters = np.arange(60) // 2
    units = Units(clusters=clusters)
    args = [sample[key] for key in ("y", "a", "e")]
    weights = resampling.bootstrap_weights(getkey(), 2000, 30)
    drawn = resampling.bootstrap(weights, "ato", *args, units=units)
    np.testing.assert_allclose(np.std(drawn), _effect("ato", sample, units).se, rtol=0.15)


def test_the_officials_error_over_two_folds_has_one_degree_of_freedom():
    theta, se = compat.mean_over_folds(np.array([1.0, 2.0]))
    assert (theta, se) == (1.5, pytest.approx(0.5))
