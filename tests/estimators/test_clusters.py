"""Few clusters, clusters of several kinds, and the wild cluster bootstrap."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import crossfit, influence
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import covariance, variance
from jaxcore.estimators.wild_bootstrap import cluster_draws, wild_linear_iv, wild_scores

N, FIRMS, YEARS = 60, 6, 5


@pytest.fixture(scope="module")
def panel():
    """Scores of three estimates that depend on firm and year."""
    rng = np.random.default_rng(0)
    both = np.stack([np.arange(N) % FIRMS, rng.integers(0, YEARS, N)], axis=1)
    shared = rng.normal(size=(FIRMS, 3))[both[:, 0]] + rng.normal(size=(YEARS, 3))[both[:, 1]]
    psi = shared + rng.normal(size=(N, 3))
    return psi - psi.mean(axis=0), both


def summed(psi, labels):
    sums = np.stack([psi[(labels == v).all(axis=1)].sum(axis=0) for v in np.unique(labels, axis=0)])
    g = len(sums)
    return g / (g - 1) * sums.T @ sums / N**2


def test_two_kinds_are_each_less_both(panel):
    psi, both = panel
    firm, year, cell = summed(psi, both[:, :1]), summed(psi, both[:, 1:]), summed(psi, both)
    with jax.enable_x64(True):
        units = Units(clusters=jnp.asarray(both))
        found = np.asarray(jax.jit(variance)(jnp.asarray(psi), units))
        matrix = np.asarray(covariance(jnp.asarray(psi), units))
    np.testing.assert_allclose(found, np.diag(firm + year - cell), rtol=1e-10)
    np.testing.assert_allclose(matrix, firm + year - cell, rtol=1e-8)  # positive: nothing to repair


def test_three_kinds_by_inclusion_and_exclusion(panel):
    psi, both = panel
    three = np.column_stack([both, np.arange(N) % 4])
    expected = 0
    for size in (1, 2, 3):
        for columns in itertools.combinations(range(3), size):
            expected = expected + (-1) ** (size + 1) * summed(psi, three[:, columns])
    with jax.enable_x64(True):
        units = Units(clusters=three)
        found = np.asarray(covariance(jnp.asarray(psi), units, small_sample=True))
    values, vectors = np.linalg.eigh(expected)
    np.testing.assert_allclose(found, (vectors * values.clip(0)) @ vectors.T, rtol=1e-7, atol=1e-12)


def test_a_variance_of_two_kinds_is_never_negative():
    checkerboard = np.tile([1.0, -1.0, -1.0, 1.0], N // 4)  # sums of rows and columns are zero
    labels = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (N // 4, 1))
    psi = checkerboard[:, None] * np.array([1.0, 2.0, 3.0])
    with jax.enable_x64(True):
        units = Units(clusters=labels)
        assert np.all(np.asarray(variance(jnp.asarray(psi), units)) >= 0)
        assert np.linalg.eigvalsh(np.asarray(covariance(jnp.asarray(psi), units))).min() > -1e-9


def test_intervals_with_clusters_are_those_of_students_t(panel):
    from scipy.stats import t

    psi, both = panel
    units = Units(clusters=jnp.asarray(both[:, 0]))
    e = Estimate.from_psi(jnp.ones(3), jnp.asarray(psi, jnp.float32), units)
    for one in (e, e.on_host()):
        half = t.ppf(0.975, FIRMS - 1) * np.asarray(e.se)
        np.testing.assert_allclose(np.asarray(one.confint())[:, 1], 1 + half, rtol=1e-5)
        p = 2 * t.sf(1 / np.asarray(e.se), FIRMS - 1)
        np.testing.assert_allclose(np.asarray(one.pvalue()), p, rtol=1e-4)
    joint = np.asarray(e.confint(joint=True))
    assert np.all(joint[:, 1] > np.asarray(e.confint())[:, 1])
    assert f"rest on {FIRMS} clusters only" in e.summary() and e.df == FIRMS - 1


def test_many_clusters_need_no_word():
    e = Estimate.from_psi(jnp.float32(0), jnp.ones(80), Units(clusters=jnp.arange(80) // 2))
    assert "clusters only" not in e.summary() and "clusters only" not in str(e.report().content)


def test_joint_intervals_with_clusters_of_two_kinds(panel):
    psi, both = panel
    units = Units(clusters=jnp.asarray(both))
    e = Estimate.from_psi(jnp.ones(3), jnp.asarray(psi, jnp.float32), units)
    assert e.df == YEARS - 1
    assert abs(np.asarray(e.bootstrap(4000)).std() - 1) < 0.03
    assert np.all(np.asarray(e.confint(joint=True))[:, 0] < np.asarray(e.confint())[:, 0])
    with pytest.raises(UserError, match="normal multipliers"):
        e.bootstrap(10, "rademacher")


def test_clustered_intervals_inside_jit_are_refused():
    def interval(psi, clusters):
        units = Units(clusters=clusters, n_clusters=4)
        return Estimate.from_psi(jnp.mean(psi), psi, units).confint()

    with pytest.raises(UserError, match="outside of jit"):
        jax.jit(interval)(jnp.ones(8), jnp.arange(8) // 2)


def test_no_row_trains_that_shares_a_fold_of_any_cluster(panel):
    units = Units(clusters=jnp.asarray(panel[1]))
    ids = crossfit.fold_ids(jax.random.key(0), N, 2, units=units)
    assert ids.shape == (N, 2)
    masks = np.asarray(crossfit.training_masks(ids, 2))
    own = np.asarray(crossfit.combined(ids, 2))
    assert masks.shape == (4, N)
    for i, j in itertools.product(range(N), repeat=2):
        shares = bool(np.any(np.asarray(ids[i]) == np.asarray(ids[j])))
        if masks[own[i], j]:
            assert not shares
        elif not shares:
            raise AssertionError("a row that could train does not")


# --- wild cluster bootstrap ---------------------------------------------------------------------


def test_all_sign_changes_are_an_exact_test():
    """The p-value by hand, and the interval as the set of values that are not rejected."""
    rng = np.random.default_rng(1)
    clusters, y = np.arange(32) // 4, rng.normal(size=32) + 0.7
    mean = influence.LinearScore(-np.ones(32), y)
    found = wild_scores(mean, Units(clusters=clusters), kind="rademacher")
    sums = y.reshape(8, 4).sum(axis=1)
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    assert found.every_draw and found.n_draws == 256
    assert found.p_value == np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-10)
    for end, side in zip(found.interval, (-1, 1), strict=True):
        p = [
            wild_scores(mean, Units(clusters=clusters), kind="rademacher", null=value).p_value
            for value in (end - side * 1e-6, end + side * 1e-6)
        ]
        assert p[0] >= 0.05 > p[1]


def test_signs_cannot_reject_with_five_clusters_but_webbs_points_can():
    y = np.arange(20.0) + 100
    mean = influence.LinearScore(-np.ones(20), y)
    five = Units(clusters=np.arange(20) // 4)
    signs = wild_scores(mean, five, kind="rademacher")
    assert signs.p_value == 2 / 32 and signs.interval == (-np.inf, np.inf)
    webb = wild_scores(mean, five, n_boot=1999)
    assert webb.kind == "webb" and webb.p_value < 0.05 and np.isfinite(webb.interval).all()
    assert "5 clusters" in webb.summary()


def test_linear_bootstrap_against_one_written_with_all_units():
    rng = np.random.default_rng(2)
    clusters = np.arange(48) // 6
    z = rng.normal(size=48)
    W = np.column_stack([np.ones(48), rng.normal(size=48)])
    common = rng.normal(size=8)[clusters]
    a = z + common + rng.normal(size=48)
    y = 0.5 * a + W[:, 1] + common + rng.normal(size=48)
    value = 0.2
    found = wild_linear_iv(y, a, z, W, Units(clusters=clusters), null=value, kind="rademacher")

    def residual(v, regressors):
        return v - regressors @ np.linalg.lstsq(regressors, v, rcond=None)[0]

    def t_of(y, a):
        zr = residual(z, W)
        beta = zr @ y / (zr @ a)
        scores = zr * residual(y - beta * a, W)
        sums = np.bincount(clusters, scores)
        return (beta - value) / (np.sqrt(8 / 7 * np.sum(sums**2)) / abs(zr @ a))

    u = residual(y - value * a, W)
    first = np.linalg.lstsq(np.column_stack([z, W, u]), a, rcond=None)[0]
    fitted = np.column_stack([z, W]) @ first[:3]
    v = a - fitted
    draws = cluster_draws(8, "rademacher")[0]
    ts = []
    for w in draws:
        drawn = fitted + w[clusters] * v
        ts.append(t_of(value * drawn + w[clusters] * u, drawn))
    assert len(draws) == 256 and found.every_draw
    expected = np.mean(np.abs(ts) >= abs(t_of(y, a)) - 1e-10)
    assert abs(found.p_value - expected) < 1e-12
    assert found.interval[0] < found.estimate < found.interval[1]


def test_a_useless_instrument_leaves_the_interval_unbounded():
    rng = np.random.default_rng(3)
    z, a, y = rng.normal(size=(3, 60))
    six = Units(clusters=np.arange(60) // 10)
    low, high = wild_linear_iv(y, a, z, np.ones((60, 1)), six, n_boot=499).interval
    assert np.isinf(low) or np.isinf(high)


def test_weights_of_units_are_repeated_units():
    rng = np.random.default_rng(4)
    y, times, clusters = rng.normal(size=40), rng.integers(1, 4, 40), np.arange(40) // 8
    again = np.repeat(np.arange(40), times)
    weighted = Units(weights=times.astype(float), clusters=clusters)
    repeated = Units(clusters=clusters[again])
    for run in (
        lambda i, units: wild_scores(influence.LinearScore(-np.ones(len(i)), y[i]), units),
        lambda i, units: wild_linear_iv(
            y[i], (x := np.sin(i)), x, np.ones((len(i), 1)), units, n_boot=499
        ),
    ):
        one, two = run(np.arange(40), weighted), run(again, repeated)
        assert abs(one.p_value - two.p_value) < 1e-9
        np.testing.assert_allclose(one.interval, two.interval, rtol=1e-6)


@pytest.mark.parametrize(
    "units, options, sentence",
    [
        (Units(), {}, "found none"),
        (Units(clusters=np.zeros((10, 2), int)), {}, "several kinds"),
        (Units(clusters=np.zeros(10, int)), {}, "at least 2 clusters"),
        (Units(clusters=np.arange(10) % 2), {"kind": "mammen"}, "rademacher or webb"),
        (Units(clusters=np.arange(10) % 2), {"level": 95}, "between 0 and 1"),
        (Units(clusters=np.arange(10) % 2), {"n_boot": 0}, "at least one draw"),
    ],
)
def test_wild_bootstrap_refuses(units, options, sentence):
    score = influence.LinearScore(-np.ones(10), np.arange(10.0))
    with pytest.raises(UserError, match=sentence):
        wild_scores(score, units, **options)
