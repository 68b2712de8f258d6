"""The experiment in Uganda: its figures where the file is there, and files that are others."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.datasets import read_uganda
from jaxcore.estimators.image_confounding.representations import band_stats
from jaxcore.estimators.image_confounding.separation import check_separation
from jaxcore.estimators.image_confounding.weighting import effect
from jaxcore.estimators.nuisance import Logistic
from jaxcore.estimators.nuisance.base import fit_predict
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import variance

FILE = Path(__file__).parents[4] / "shared" / "data" / "earth" / "causalimages_uganda.npz"
there = pytest.mark.skipif(not FILE.is_file(), reason="the data are not to be shipped")


def _propensity(X, a, ridge):
    """Fitted probabilities in sample; the predictors standardised, ridge on the sum of losses."""
    learner, ones = Logistic(alpha=ridge / len(a)), jnp.ones((1, len(a)))
    return np.asarray(fit_predict(learner, jnp.asarray(X), jnp.asarray(a), ones, (jnp.asarray(X),)))


@there
def test_the_figures_of_the_experiment():
    data = read_uganda(FILE, columns=(0, 2, 3, 4))
    assert data.notices[1:] == ("replaced 14 missing covariates by means of their columns",)
    rows = data.images.rows_of(data.unit_key)
    units = Units(clusters=rows)
    with jax.enable_x64(True):
        images = jnp.asarray(data.images.images[np.arange(327)], float)
        seen = np.asarray(jax.jit(band_stats)(images))[rows]
        fits = {
            "tables": _propensity(data.X, data.A, 0.0)[0, 0],
            "images": _propensity(seen, data.A, 1.0)[0, 0],
            "both": _propensity(np.c_[data.X, seen], data.A, 1.0)[0, 0],
        }
    found = {name: effect("hajek", data.Y, data.A, e) for name, e in fits.items()}
    found["naive"] = effect("difference", data.Y, data.A, np.full(len(data.A), 0.5))
    published = {  # effect, error of units, of clusters
        "naive": (0.7415, 0.0615, 0.0754),
        "tables": (0.7040, 0.0614, 0.0760),
        "images": (0.7566, 0.0657, 0.0761),
        "both": (0.7227, 0.0654, 0.0761),
    }
    for name, (theta, se, clustered) in published.items():
        one = found[name]
        of_places = np.sqrt(variance(jnp.asarray(one.psi), units, small_sample=False))
        np.testing.assert_allclose(
            [one.theta, one.se, of_places], [theta, se, clustered], atol=1e-3, err_msg=name
        )
    for name, bounds in {"tables": (0.238, 0.554), "images": (0.022, 0.628)}.items():
        np.testing.assert_allclose([fits[name].min(), fits[name].max()], bounds, atol=1e-3)


@there
def test_covariates_that_contain_the_treatment_are_warned_about_and_refused():
    data = read_uganda(FILE, columns=(0, 1, 2, 3, 4, 5))
    assert data.notices[0].startswith("perfect separation: covariate 1 and 3 and 5 is")
    with pytest.raises(UserError, match="perfect separation by covariate1, covariate5"):
        check_separation(data.A, data.X, data.covariates)
    usable = [0, 2, 4]
    check_separation(data.A, data.X[:, usable], [data.covariates[j] for j in usable])


@there
def test_what_may_be_adjusted_for_does_not_tell_the_treatment():
    usable = read_uganda(FILE)
    for x in usable.X.T:
        assert abs(np.corrcoef(x, usable.A)[0, 1]) < 0.1
        shares = [np.mean(x[usable.A == a] == np.median(x[usable.A == a])) for a in (0, 1)]
        assert abs(shares[0] - shares[1]) < 0.1  # no column varies in one arm alone


def test_separation_by_several_covariates_together_is_found():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    a = (X @ [1.0, -1.0, 0.5] > 0).astype(float)
    with pytest.raises(UserError, match="by several covariates together"):
        check_separation(a, X, list("abc"))
    a[:5] = 1 - a[:5]
    check_separation(a, X, list("abc"))


def test_other_files_are_one_sentence(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(UserError, match="found no file"):
        read_uganda(path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(UserError, match=r"Expected the file causalimages_uganda\.npz, found"):
        read_uganda(path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"Expected the file causalimages_uganda\.npz, found"):
        read_uganda(path)
    of_images = {"image_key": np.arange(2), "image_long": np.zeros(2), "image_lat": np.zeros(2)}
    of_units = {name: np.zeros(3) for name in ("unit_image_key", "treatment", "outcome")}
    good = {"images": np.zeros((2, 4, 4, 3)), "covariates": np.zeros((3, 6))} | of_images | of_units
    np.savez(path, **good | {"outcome": np.zeros(4)})
    with pytest.raises(UserError, match=r"found outcome of shape \(4,\)"):
        read_uganda(path)
    np.savez(path, **good)
    assert read_uganda(path, columns=(2,)).X.shape == (3, 1)
    with pytest.raises(UserError, match="Expected columns 0 to 5, found 6"):
        read_uganda(path, columns=(6,))
