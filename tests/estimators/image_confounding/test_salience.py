"""Maps of what a score depends on, where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding import salience

RNG = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RNG.normal(size=(6, 8, 2)), jnp.float32)
IMAGES = jnp.asarray(RNG.normal(size=(5, 6, 8, 2)), jnp.float32)
COLUMNS = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
SLOPES = jnp.array([1.0, -2.0, 0.5])


def linear(images, covariates):
    found = jnp.einsum("...hwc,hwc->...", images, WEIGHTS)
    found = found if found.ndim == 1 else jnp.sum(found, axis=1)  # of a sequence
    return found if covariates is None else found + covariates @ SLOPES


def curved(images, covariates):
    return jnp.tanh(linear(images, covariates) / 5) * jnp.sum(images[..., 0], axis=(1, 2))


def test_of_a_linear_score_every_map_shows_its_weights():
    everywhere = jnp.broadcast_to(WEIGHTS[None], IMAGES.shape)
    np.testing.assert_allclose(salience.gradients(linear, IMAGES, COLUMNS), everywhere, rtol=1e-5)
    smooth = salience.smooth_gradients(linear, IMAGES, key=jax.random.key(0), draws=3)
    np.testing.assert_allclose(smooth, everywhere, rtol=1e-5)
    added = salience.integrated_gradients(linear, IMAGES, COLUMNS, baseline=0.5, steps=2)
    np.testing.assert_allclose(added, (IMAGES - 0.5) * everywhere, rtol=1e-4, atol=1e-5)
    covered = salience.occlusion(linear, IMAGES, COLUMNS, window=2, stride=2)
    blocks = (IMAGES * everywhere).sum(-1).reshape(5, 3, 2, 4, 2).sum((2, 4))
    np.testing.assert_allclose(covered, blocks, rtol=1e-3, atol=1e-5)
    deviations = jnp.array([1.0, 2.0, 4.0])
    tables = salience.table_salience(linear, IMAGES, COLUMNS, deviations)
    np.testing.assert_allclose(tables, SLOPES / deviations, rtol=1e-5)


def test_parts_along_the_way_add_up_to_the_score():
    added = salience.integrated_gradients(curved, IMAGES, COLUMNS, steps=64)
    whole = curved(IMAGES, COLUMNS) - curved(jnp.zeros_like(IMAGES), COLUMNS)
    np.testing.assert_allclose(added.sum((1, 2, 3)), whole, atol=0.02)


def test_chunks_change_nothing():
    for maps in (
        salience.gradients,
        salience.integrated_gradients,
        salience.occlusion,
        lambda *args, rows: salience.smooth_gradients(*args, key=jax.random.key(1), rows=rows),
    ):
        one, two = (maps(curved, IMAGES, COLUMNS, rows=rows) for rows in (64, 2))
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_sequences_have_maps_of_every_image_and_are_covered_in_all():
    sequences = jnp.stack([IMAGES, 2 * IMAGES], axis=1)
    slopes = salience.gradients(linear, sequences)
    assert slopes.shape == sequences.shape
    assert salience.magnitude(slopes).shape == (5, 2, 6, 8)
    one = salience.occlusion(linear, IMAGES, window=3, stride=3)
    both = salience.occlusion(linear, sequences, window=3, stride=3)
    np.testing.assert_allclose(both, 3 * one, rtol=1e-4, atol=1e-5)


def test_log_odds_are_flat_beyond_the_clip_and_do_not_overflow():
    score = salience.log_odds(lambda images, covariates: 1000 * linear(images, None), clip=0.01)
    assert np.abs(score(IMAGES, None)).max() == pytest.approx(np.log(99), rel=1e-5)
    assert not np.any(salience.gradients(score, IMAGES))
    column = salience.log_odds(lambda images, covariates: linear(images, None)[:, None], clip=0)
    np.testing.assert_array_equal(column(IMAGES, None), linear(IMAGES, None))


def test_a_map_without_positive_entries_can_be_displayed():
    shown = salience.for_display(jnp.stack([jnp.zeros((4, 4)), -jnp.ones((4, 4))]))
    np.testing.assert_allclose(shown[1], -np.log(2), rtol=1e-5)
    assert not np.any(shown[0])


def test_units_that_are_shown_are_extreme_and_of_different_places():
    propensity = RNG.random(200)
    treatment, places = RNG.integers(0, 2, 200), RNG.integers(0, 9, 200)
    controls, treated = salience.extremes(propensity, treatment, places)
    assert len(controls) == len(treated) == 3
    assert len(set(places[np.concatenate([controls, treated])])) == 6
    assert not treatment[controls].any() and treatment[treated].all()
    assert controls[0] == np.where(treatment == 0, propensity, 2).argmin()
    assert (np.diff(propensity[controls]) > 0).all() and (np.diff(propensity[treated]) < 0).all()
    assert [len(rows) for rows in salience.extremes(propensity, 0 * treatment, places)] == [3, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: salience.occlusion(linear, IMAGES, window=7), "from 1 to 6, found 7"),
        (lambda: salience.occlusion(linear, IMAGES, stride=0), "stride must be at least 1"),
        (lambda: salience.gradients(linear, IMAGES, rows=0), "rows must be at least 1, found 0"),
        (lambda: salience.integrated_gradients(linear, IMAGES, steps=0), "steps must be"),
        (
            lambda: salience.smooth_gradients(linear, IMAGES, key=jax.random.key(0), draws=0),
            "draws must be",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
