"""Sensitivity to omitted variables: bounds, robustness values, benchmarks, contours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import influence, plots, sensitivity
from jaxcore.estimators.units import Units

N = 120


@pytest.fixture(scope="module")
def c():
    rng = np.random.default_rng(0)
    x = rng.normal(size=N)
    m = 0.5 + 0.2 * np.tanh(x)
    d = (rng.uniform(size=N) < m).astype(float)
    y = 1.0 + d + x + rng.normal(size=N)
    with jax.enable_x64(True):
        yield {k: jnp.asarray(v) for k, v in {"x": x, "m": m, "d": d, "y": y}.items()}


def fitted(c, kind, weights=None):
    """Estimate and elements, of given nuisances."""
    units = Units(weights=weights)
    y, d, m, x = c["y"], c["d"], c["m"], c["x"]
    if kind == "plr":
        e = influence.solve(influence.partially_linear(y, d, 1.4 + x, m), units)
        return e, sensitivity.plr_elements(y, d, 1.4 + x, m, e.theta, units)
    g0, g1 = 0.9 * x, 1.8 + x
    score = influence.aipw(y, d, m, g0, g1) if kind == "ATE" else influence.treated(y, d, m, g0)
    elements = sensitivity.irm_elements(y, d, m, g0, g1, units, target=kind)
    return influence.solve(score, units), elements


@pytest.mark.parametrize("kind", ["plr", "ATE"])
def test_errors_of_the_bounds_are_those_of_derivatives(c, kind):
    """A bound is a function of the units' weights; its derivatives are the influence values.

    The residual variance of the partially linear model is flat in the estimate only on average, so
    the derivative there is taken at the estimate.
    """
    whole, _ = fitted(c, kind)

    def bound(weights):
        e, elements = fitted(c, kind, weights)
        if kind == "plr":
            y, d, m, x = c["y"], c["d"], c["m"], c["x"]
            units = Units(weights=weights)
            elements = sensitivity.plr_elements(y, d, 1.4 + x, m, whole.theta, units)
        return sensitivity.bounds(e.theta, e.psi, elements, 0.2, 0.1).theta

    psi = jax.jacobian(bound)(jnp.ones(N)) * N
    found = sensitivity.bounds(whole.theta, whole.psi, fitted(c, kind)[1], 0.2, 0.1)
    np.testing.assert_allclose(found.se, jnp.sqrt(jnp.sum(psi**2, axis=1)) / N, rtol=1e-6)
    assert found.limits[0] < found.theta[0] < whole.theta < found.theta[1] < found.limits[1]


@pytest.mark.parametrize("kind", ["plr", "ATE", "ATT"])
@pytest.mark.parametrize("null", [0.0, 3.0])
def test_at_the_robustness_value_the_bound_reaches_the_null(c, kind, null):
    e, elements = fitted(c, kind)
    value = sensitivity.robustness_value(e.theta, e.psi, elements, null=null)
    assert 0 < value.rva < value.rv < 1
    side = 0 if null < e.theta else 1
    at = sensitivity.bounds(e.theta, e.psi, elements, value.rv, value.rv)
    np.testing.assert_allclose(at.theta[side], null, atol=1e-9)
    at = sensitivity.bounds(e.theta, e.psi, elements, value.rva, value.rva)
    np.testing.assert_allclose(at.limits[side], null, atol=1e-9)


def test_an_effect_that_is_not_significant_has_no_robustness(c):
    e, elements = fitted(c, "ATE")
    value = sensitivity.robustness_value(e.theta, e.psi, elements, null=float(e.theta - e.se))
    assert value.rva == 0 < value.rv


def test_few_clusters_lower_the_robustness(c):
    e, elements = fitted(c, "ATE")
    units = Units(clusters=jnp.arange(N) // 20)
    alone = sensitivity.robustness_value(e.theta, e.psi, elements)
    few = sensitivity.robustness_value(e.theta, e.psi, elements, units=units)
    assert few.rva != alone.rva and few.rv == alone.rv


def test_weights_are_repeated_units(c):
    times = np.random.default_rng(1).integers(1, 4, N)
    again = {k: jnp.repeat(v, jnp.asarray(times)) for k, v in c.items()}
    for kind in ("plr", "ATE", "ATT"):
        one = fitted(c, kind, jnp.asarray(times, float))[1]
        two = fitted(again, kind)[1]
        np.testing.assert_allclose(one[:2], two[:2], rtol=1e-9)


def test_a_left_out_confounder_is_within_the_bounds_of_its_own_strength():
    """The long estimate lies inside the bounds of the short one at the benchmark's strength."""
    rng = np.random.default_rng(2)
    n = 400
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(n, 3)))
        d = x @ jnp.array([1.0, 0.5, 0.0]) + jnp.asarray(rng.normal(size=n))
        y = d + x @ jnp.array([1.0, 1.0, 0.0]) + jnp.asarray(rng.normal(size=n))

        def fit(X):
            B = jnp.concatenate([jnp.ones((n, 1)), X], axis=1)
            l, m = (B @ jnp.linalg.lstsq(B, v)[0] for v in (y, d))  # noqa: E741  # the paper's
            e = influence.solve(influence.partially_linear(y, d, l, m))
            return e, sensitivity.plr_elements(y, d, l, m, e.theta)

        groups = {"strong": [0], "both": [0, 1], "none": [2]}
        found = sensitivity.benchmarks(fit, y, x, groups)
        assert found["none"].cf_y < 0.02 and found["none"].cf_d < 0.02
        assert found["both"].cf_y > found["strong"].cf_y > 0.1
        long, _ = fit(x)
        for name in ("strong", "both"):
            rest = np.array([j for j in range(3) if j not in groups[name]])
            short, elements = fit(x[:, rest])
            b = found[name]
            strength = float(b.cf_y), min(float(b.cf_d), 0.99)
            low, high = sensitivity.bounds(short.theta, short.psi, elements, *strength).theta
            # in a sample the formula for the treatment's side is exact up to its shift of scale
            assert low - 0.1 < long.theta < high + 0.1
    for columns in ([], [0, 1, 2], [7]):
        with pytest.raises(UserError, match="some but not all"):
            sensitivity.benchmarks(fit, y, x, {"g": columns})


def test_contours_are_bounds_and_can_be_drawn(c):
    pytest.importorskip("matplotlib")
    e, elements = fitted(c, "ATE")
    grid, values = sensitivity.contour(
        e.theta, e.psi, elements, largest=0.6, points=4, limit=True, level=0.9
    )
    at = sensitivity.bounds(e.theta, e.psi, elements, grid[1], grid[3], level=0.9)
    np.testing.assert_allclose(values[1, 3], at.limits[0], rtol=1e-12)
    ax = plots.sensitivity_contour(
        grid, values, scenario=(0.1, 0.2), benchmarks={"$age$": (0.3, 0.2), "far": (0.9, 0.9)}
    )
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["scenario", r"\$age\$"]
    for options, sentence in (
        ({"side": "left"}, "'lower' or 'upper'"),
        ({"largest": 1}, "0 and 1"),
    ):
        with pytest.raises(UserError, match=sentence):
            sensitivity.contour(e.theta, e.psi, elements, **options)


def test_refusals(c):
    e, elements = fitted(c, "ATE")
    with pytest.raises(UserError, match="'ATE' or 'ATT'"):
        sensitivity.irm_elements(c["y"], c["d"], c["m"], c["x"], c["x"], target="LATE")
    with pytest.raises(UserError, match="between 0 and 1"):
        sensitivity.bounds(e.theta, e.psi, elements, level=95)
