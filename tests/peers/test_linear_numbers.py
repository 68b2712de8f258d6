"""Clustered errors as in linearmodels, and the wild bootstrap as in wildboottest.

`linear.json` holds their numbers; `linear_numbers` makes them where both are installed.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.estimators.linear_iv import ols, tsls
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import variance
from jaxcore.estimators.wild_bootstrap import wild_linear_iv
from tests.peers import linear_numbers as peer

THEIRS = json.loads(Path(__file__).with_name("linear.json").read_text())


@pytest.mark.parametrize("kinds", ["firm", "both"])
def test_clustered_errors(kinds):
    c = peer.data()
    labels = c["firm"] if kinds == "firm" else np.stack([c["firm"], c["year"]], axis=1)
    with jax.enable_x64(True):
        y, a, z, w = (jnp.asarray(c[k]) for k in ("y", "a", "z", "w"))
        W = jnp.stack([jnp.ones_like(w), w], axis=1)
        units = Units(clusters=labels)
        iv, ls = tsls(y, a, z, W, units), ols(y, a, W, units)
        plain = jnp.sqrt(variance(iv.psi, units, small_sample=False))
    theirs_too = np.sqrt((peer.N - 1) / peer.N)  # a factor for the units besides that of clusters
    for theta, se, name in ((iv.theta, plain, "tsls"), (ls.theta, theirs_too * ls.se, "ols")):
        theirs = THEIRS[f"{name}_{kinds}"]
        np.testing.assert_allclose([theta, se], [theirs["theta"], theirs["se"]], rtol=1e-9)


def test_wild_bootstrap_of_least_squares():
    c = peer.data()
    W = np.stack([np.ones(peer.N), c["w"]], axis=1)
    units = Units(clusters=c["firm"])
    ours = [
        wild_linear_iv(c["y"], c["a"], c["a"], W, units, null=value, kind="rademacher").p_value
        for value in peer.VALUES
    ]
    np.testing.assert_allclose(
        ours, THEIRS["wild"], atol=2 / 256 + 1e-9
    )  # all signs, or none, changed


def test_the_stored_numbers_are_those_of_the_installed_libraries():
    pytest.importorskip("linearmodels")
    pytest.importorskip("wildboottest")
    fresh = peer.numbers()
    for name in ("tsls_firm", "tsls_both", "ols_firm", "ols_both"):
        for key in ("theta", "se"):
            np.testing.assert_allclose(fresh[name][key], THEIRS[name][key], rtol=1e-9)
    np.testing.assert_allclose(fresh["wild"], THEIRS["wild"], rtol=1e-9)
