"""Several treatments, treatments with levels, and combinations of estimates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import combine, double_ml, projection, treatments
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner, Logistic, Ridge
from jaxcore.estimators.units import Units

N, K = 120, 2
LINEAR = Ridge(alpha=0.0)


@pytest.fixture(scope="module")
def c():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    doses = x[:, :1] + rng.normal(size=(N, 2))
    level = rng.integers(0, 3, N)
    y = doses @ [1.0, -1.0] + level + x[:, 0] + rng.normal(size=N)
    with jax.enable_x64(True):
        floats = {k: jnp.asarray(v) for k, v in {"x": x, "doses": doses, "y": y}.items()}
        yield floats | {
            "level": jnp.asarray(level),
            "fold_ids": jnp.asarray(np.arange(N) % K),
            "units": Units(weights=jnp.asarray(rng.uniform(0.5, 2, N))),
        }


def test_each_of_several_treatments_is_estimated_given_the_others(c):
    x, D, y = c["x"], c["doses"], c["y"]
    rest = {"fold_ids": c["fold_ids"], "n_folds": K, "units": c["units"]}
    found = treatments.plr_several(y, D, x, ml_l=LINEAR, ml_m=LINEAR, names=("a", "b"), **rest)
    one = double_ml.plr(
        y, D[:, 1], jnp.concatenate([x, D[:, :1]], axis=1), ml_l=LINEAR, ml_m=LINEAR, **rest
    )
    np.testing.assert_allclose(found.theta[1], one.theta, rtol=1e-8)
    np.testing.assert_allclose(found.se[1], one.se, rtol=1e-8)
    joint, alone = found.confint(joint=True), found.confint()
    assert found.names == ("a", "b") and np.all(joint[:, 0] < alone[:, 0])
    mean = HostLearner(lambda X, y, w, new: np.full(len(new), np.average(y, weights=w)))
    outside = treatments.plr_several(y, D, x, ml_l=mean, ml_m=mean, **rest)
    assert outside.names == ("d1", "d2") and outside.psi.shape == (N, 2)
    with pytest.raises(UserError, match="2 names"):
        treatments.plr_several(y, D, x, ml_l=LINEAR, ml_m=LINEAR, names=("a",), **rest)


def test_two_levels_are_the_interactive_model(c):
    d = (c["level"] > 0).astype(int)
    rest = {"ml_g": LINEAR, "ml_m": Logistic(alpha=0.0), "n_folds": K, "units": c["units"]}
    rest["fold_ids"] = c["fold_ids"]
    means = treatments.potential_means(c["y"], d, c["x"], n_levels=2, names=("no", "yes"), **rest)
    effect = combine.contrasts(means, "no")
    ate = double_ml.irm(c["y"], d.astype(float), c["x"], **rest)
    np.testing.assert_allclose(effect.theta, [ate.theta], rtol=1e-6)
    np.testing.assert_allclose(effect.se, [ate.se], rtol=1e-6)
    assert effect.names == ("yes - no",)
    for reference, sentence in (("maybe", "Expected one of no, yes"), (5, "from 0 to 1")):
        with pytest.raises(UserError, match=sentence):
            combine.contrasts(means, reference)


def test_levels_with_learners_of_the_host(c):
    mean = HostLearner(lambda X, y, w, new: np.full(len(new), np.average(y, weights=w)))
    rest = {"ml_g": mean, "ml_m": mean, "n_folds": K, "fold_ids": c["fold_ids"]}
    found = treatments.potential_means(c["y"], c["level"], c["x"], n_levels=3, **rest)
    assert found.names == ("0", "1", "2") and np.all(np.diff(found.theta) > 0)


def test_a_combination_has_the_error_of_its_influence_values():
    psi = np.random.default_rng(1).normal(size=(40, 2))
    theta = jnp.array([1.0, 3.0], jnp.float32)
    both = Estimate.from_psi(theta, jnp.asarray(psi, jnp.float32)).on_host()
    total = combine.linear(both, np.array([[1.0, 2.0]]), names=("total",))
    assert float(total.theta[0]) == 7 and isinstance(total.psi, np.ndarray)
    expected = np.sqrt(np.sum((psi @ [1, 2]) ** 2)) / 40
    np.testing.assert_allclose(total.se, [expected], rtol=1e-5)
    pair = combine.together([both, total])
    assert pair.names == ("theta", "total") and pair.psi.shape == (40, 3)
    with pytest.raises(UserError, match="same units"):
        combine.together([both, Estimate.from_psi(jnp.float32(0), jnp.ones(3))])


def test_a_curve_of_conditional_effects_has_a_joint_band():
    rng = np.random.default_rng(2)
    age = rng.uniform(size=200)
    signal = 1 + age + rng.normal(size=200)
    fit = projection.best_linear(signal, np.column_stack([np.ones(200), age]))
    at = np.linspace(0, 1, 5)
    curve = combine.linear(fit, np.column_stack([np.ones(5), at]), names=[f"{a:g}" for a in at])
    np.testing.assert_allclose(curve.theta, fit.theta[0] + at * fit.theta[1], rtol=1e-5)
    assert np.all(np.asarray(curve.confint(joint=True))[:, 1] > np.asarray(curve.confint())[:, 1])
