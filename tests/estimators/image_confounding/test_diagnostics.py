"""Diagnostics of propensities against definitions written out, and places on the globe."""

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.crossfit import fold_ids
from jaxcore.estimators.image_confounding import balance, diagnostics, spatial
from jaxcore.estimators.units import Units


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(1)
    e = np.round(rng.uniform(0.05, 0.95, 80), 1)  # many ties
    return (rng.uniform(size=80) < e).astype(float), e


def test_auc_counts_pairs_and_half_of_the_ties(drawn):
    a, e = drawn
    pairs = e[a == 1][:, None] - e[a == 0][None]
    np.testing.assert_allclose(diagnostics.auc(a, e), np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert np.isnan(diagnostics.auc(np.ones(3), np.full(3, 0.5)))


def test_auprc_is_the_area_under_the_curve_between_the_thresholds(drawn):
    a, e = drawn
    thresholds = np.unique(e)[::-1]
    hits = np.array([0, *(np.sum(a[e >= t]) for t in thresholds)])
    wrong = np.array([0, *(np.sum(1 - a[e >= t]) for t in thresholds)])
    area = 0.0
    for i in range(len(thresholds)):
        share = (np.arange(20_000) + 0.5) / 20_000
        found = hits[i] + share * (hits[i + 1] - hits[i])
        false = wrong[i] + share * (wrong[i + 1] - wrong[i])
        area += np.mean(found / (found + false)) * (hits[i + 1] - hits[i])
    np.testing.assert_allclose(diagnostics.auprc(a, e), area / a.sum(), atol=1e-6)


def test_a_constant_propensity_says_nothing_and_weighs_all_alike():
    a, e = np.array([1.0, 0.0, 0.0, 1.0]), np.full(4, 0.5)
    assert diagnostics.auc(a, e) == 0.5 and diagnostics.auprc(a, e) == 0.5
    assert diagnostics.effective_sizes("hajek", a, e) == (2, 2)
    assert diagnostics.largest_weights("hajek", a, e) == (0.5, 0.5)
    assert diagnostics.stabilised_weights(a, e).tolist() == [1, 1, 1, 1]


def test_bins_of_calibration_and_overlap_hold_every_unit(drawn):
    a, e = drawn
    bins = diagnostics.reliability(a, e)
    assert bins.units.sum() == 80 and np.nansum(bins.observed * bins.units) == a.sum()
    counted = diagnostics.overlap_histogram(a, np.where(a > 0, 1.0, 0.0))
    assert (counted.treated[-1], counted.control[0]) == (a.sum(), 80 - a.sum())


def test_weights_balance_what_the_propensity_is_made_of(drawn):
    a, e = drawn
    x = np.stack([np.log(e / (1 - e)), np.ones(80)], axis=1)
    before, after = balance.mean_differences("ato", a, e, x)
    assert abs(after[0]) < 0.3 * abs(before[0]) and after[1] == pytest.approx(0)
    standard = balance.standardised_differences("ato", a, e, x[:, :1])
    spread = (np.var(x[a == 1, 0], ddof=1) + np.var(x[a == 0, 0], ddof=1)) / 2
    np.testing.assert_allclose(standard.before, before[:1] / spread**0.5)


# --- places -------------------------------------------------------------------------------------


def _places(n=400):
    rng = np.random.default_rng(2)
    return np.stack([rng.uniform(30, 34, n), rng.uniform(0, 4, n)], axis=1)


def test_a_block_is_a_square_and_never_split_over_folds(getkey):
    coords = _places()
    number = spatial.blocks(coords, 100.0)
    assert set(number) == set(range(number.max() + 1)) and 16 <= number.max() < 36
    for block in range(number.max() + 1):
        assert np.all(np.ptp(coords[number == block], axis=0) <= 0.91)  # degrees of 100 km
    folds = np.asarray(fold_ids(getkey(), 400, 4, units=Units(clusters=number)))
    assert all(len(set(folds[number == block])) == 1 for block in set(number))


def test_places_on_both_sides_of_the_date_line_have_blocks_of_equal_size():
    number = spatial.blocks([[179.99, 60.0], [-179.99, 60.0], [0.01, 60.0]], 500.0)
    assert number[0] == number[1] != number[2]


def test_moran_finds_a_gradient_and_nothing_in_noise():
    coords = _places()
    noise = np.random.default_rng(3).normal(size=(40, 400))
    slope = spatial.moran(coords[:, 0] + noise[0], coords)
    assert slope.value > 0.3 and slope.p_value < 1e-6
    z = np.array([spatial.moran(values, coords).z for values in noise])
    assert abs(z.mean()) < 0.5 and 0.7 < z.std() < 1.3


def test_moran_takes_places_that_coincide():
    coords = np.repeat(_places(10), 6, axis=0)
    assert np.isfinite(spatial.moran(np.arange(60.0) % 7, coords, neighbours=4).z)


@pytest.mark.parametrize(
    ("coords", "sentence"),
    [
        ([[500_000.0, 200_000.0]], "metres, or latitude first"),
        ([[0.0, np.nan]], "found 1 of 1 places without"),
        ([0.0], "Expected longitude and latitude of 1 places"),
    ],
)
def test_coordinates_that_are_no_degrees_are_refused(coords, sentence):
    with pytest.raises(UserError, match=sentence):
        spatial.blocks(coords, 10.0)


def test_values_of_units_become_one_of_each_image():
    means, first = spatial.means_by_image([1.0, 5.0, 3.0], np.array(["b", "a", "b"]))
    assert means.tolist() == [5, 2] and first.tolist() == [1, 0]
