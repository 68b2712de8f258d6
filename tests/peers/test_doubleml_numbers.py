"""The same numbers as DoubleML on the same nuisances, to 1e-6 and closer.

`doubleml.json` holds its numbers; `doubleml_numbers` makes them where it is installed.
"""

import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.estimators import combine, did, influence, projection, sensitivity
from jaxcore.estimators import quantile_effects as quantiles
from jaxcore.estimators.linear_iv import anderson_rubin
from jaxcore.estimators.nuisance import HostLearner
from tests.peers import doubleml_cases as cases

THEIRS = json.loads(Path(__file__).with_name("doubleml.json").read_text())


@pytest.fixture(scope="module")
def c():
    with jax.enable_x64(True):
        arrays = {k: v for k, v in cases.data().items() if k != "group"}
        yield {k: jnp.asarray(v, float) for k, v in arrays.items()} | {
            "group": cases.data()["group"]
        }


def same(estimate, name, rtol=1e-9):
    np.testing.assert_allclose(np.ravel(estimate.theta), THEIRS[name]["theta"], rtol=rtol)
    np.testing.assert_allclose(np.ravel(estimate.se), THEIRS[name]["se"], rtol=rtol)


def same_sensitivity(e, elements, name):
    """Version 0.11 gives each bound the error of the other.

    Its influence values have the sign of the derivative of the score, -1. That ours are right is
    tested by derivatives in `tests/estimators/test_omitted_variables.py`.
    """
    theirs, args = THEIRS[name], (e.theta, e.psi, elements)
    found = sensitivity.bounds(*args, 0.05, 0.04, 0.9, level=0.9)
    np.testing.assert_allclose(found.theta, theirs["bounds_theta"], rtol=1e-9)
    np.testing.assert_allclose(found.se, theirs["bounds_se"][::-1], rtol=1e-9)
    value = sensitivity.robustness_value(*args, rho=0.9, level=0.9)
    np.testing.assert_allclose(value.rv, theirs["rv"], atol=2e-5)  # the end of a minimisation


def test_partially_linear_regression(c):
    x, y, d = c["x"], c["y"], c["dose"]
    l, m = cases.l_of(x), 0.8 * x[:, 0]  # noqa: E741  # the paper's names
    e = influence.solve(influence.partially_linear(y, d, l, m))
    same(e, "plr")
    elements = sensitivity.plr_elements(y, d, l, m, e.theta)
    same_sensitivity(e, elements, "plr")
    l2, m2 = jnp.zeros_like(y), 0.2 * x[:, 1]
    short = influence.solve(influence.partially_linear(y, d, l2, m2))
    fewer = sensitivity.plr_elements(y, d, l2, m2, short.theta)
    found = sensitivity.benchmark(y, (e.theta, elements), (short.theta, fewer))
    theirs = THEIRS["plr_benchmark"]
    expected = [theirs[k] for k in ("cf_y", "cf_d", "rho", "delta_theta")]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    W = np.column_stack([np.ones(cases.N), x[:, 1]])
    same(projection.partialled_out(y, d, l, m, W), "plr_cate")
    groups = np.stack([c["group"] == g for g in "abc"], axis=1).astype(float)
    same(projection.partialled_out(y, d, l, m, groups), "plr_gate")


@pytest.mark.parametrize("target", ["ATE", "ATT"])
def test_interactive_regression(c, target):
    x, y, d = c["x"], c["y"], c["d"]
    m, g0, g1 = cases.m_of(np.asarray(x)), cases.g_of(x), cases.g_of(x, 1)
    m = jnp.asarray(m)
    score = influence.aipw(y, d, m, g0, g1) if target == "ATE" else influence.treated(y, d, m, g0)
    e = influence.solve(score)
    same(e, f"irm_{target}")
    elements = sensitivity.irm_elements(y, d, m, g0, g1, target=target)
    same_sensitivity(e, elements, f"irm_{target}")
    if target == "ATE":
        W = np.column_stack([np.ones(cases.N), x[:, 1]])
        same(projection.best_linear(score.psi_b, W), "irm_cate")
        same(projection.group_effects(score.psi_b, c["group"]), "irm_gate")


def test_instruments(c):
    x, y, d, z, dose = (c[k] for k in ("x", "y", "d", "z", "dose"))
    m = jnp.asarray(cases.m_of(np.asarray(x)))
    score = influence.partially_linear_iv(y, dose, z, cases.l_of(x), m, 0.8 * x[:, 0])
    same(influence.solve(score), "pliv")
    r = [jnp.asarray(cases.share_of(np.asarray(x), arm)) for arm in (0, 1)]
    score = influence.late(y, d, z, m, cases.g_of(x), cases.g_of(x, 1), *r)
    same(influence.solve(score), "iivm")
    for level, key in ((0.95, "set"), (0.5, "set_50")):
        found = anderson_rubin(score, level=level, centred=False).pieces().intervals
        np.testing.assert_allclose(found, THEIRS["iivm"][key], rtol=1e-8)


def test_potential_means_and_contrasts(c):
    x, y = c["x"], c["y"]
    each = []
    for level in range(3):
        m = jnp.asarray(cases.share_of(np.asarray(x), level / 3))
        at = (c["level"] == level).astype(float)
        score = influence.potential_mean(y, at, m, cases.g_of(x, level))
        each.append(influence.solve(score, names=(str(level),)))
    means = combine.together(each)
    same(means, "apos")
    found = combine.contrasts(means, "0")
    same(found, "apos_contrasts")
    assert found.names == ("1 - 0", "2 - 0")


def same_quantile(found, y, weight, name):
    """Their root may lie a rounding error to the left of the unit that is the quantile."""
    theta, psi = found
    np.testing.assert_allclose([theta], THEIRS[name]["theta"], rtol=1e-9)
    jump = jnp.where(y == theta, weight, 0) / quantiles.density(y, weight, theta)
    errors = [float(jnp.sqrt(jnp.mean(p**2) / cases.N)) for p in (psi, psi + jump)]
    assert np.min(np.abs(np.array(errors) / THEIRS[name]["se"] - 1)) < 1e-6


@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("tau", [0.25, 0.5])
def test_quantiles(c, arm, tau):
    x, y, d, z = (c[k] for k in ("x", "y", "d", "z"))
    m = jnp.asarray(cases.m_of(np.asarray(x)))
    at, ps = (d, m) if arm else (1 - d, 1 - m)
    g = jnp.asarray(cases.share_of(np.asarray(x), tau))
    found = quantiles.potential_quantile(y, at, ps, g, tau)
    same_quantile(found, y, at / ps, f"pq_{arm}_{tau}")
    r0, r1 = (jnp.asarray(cases.share_of(np.asarray(x), a)) for a in (0, 1))
    share = jnp.mean(influence.aipw(d, z, m, r0, r1).psi_b)
    sign = 2.0 * arm - 1
    found = quantiles.local_quantile(y, at, z, m, 0.5 * g, 0.7 * g, share, tau, sign)
    weight = sign * (z / m - (1 - z) / (1 - m)) * at / share
    theirs = THEIRS[f"lpq_{arm}_{tau}"]["theta"][0]
    if abs(found[0] - theirs) < 1e-8:
        same_quantile(found, y, weight, f"lpq_{arm}_{tau}")
        return
    # weights of both signs can have several roots; ours is the first of them
    rest = sign * (0.7 * g * (1 - z / m) - 0.5 * g * (1 - (1 - z) / (1 - m))) / share
    before, after = (
        np.mean(np.asarray(weight) * (np.asarray(y) <= theirs + e) + np.asarray(rest)) - tau
        for e in (-1e-9, 1e-9)
    )
    assert before * after < 0 and found[0] < theirs


@pytest.mark.parametrize("kind", ["observational", "experimental"])
def test_differences_of_two_periods(c, kind):
    x, y, d, after = (c[k] for k in ("x", "y", "d", "after"))
    m, trial = jnp.asarray(cases.m_of(np.asarray(x))), kind == "experimental"
    score = did.panel(y, d, m, cases.g_of(x), cases.g_of(x, 1), experimental=trial)
    same(influence.solve(score), f"did_{kind}")
    g = jnp.stack(
        [jnp.stack([cases.g_of(x, arm) + 0.2 * t * x[:, 1] for t in (0, 1)]) for arm in (0.0, 1.0)]
    )
    score = did.cross_sections(y, d, after, m, g, experimental=trial)
    same(influence.solve(score), f"did_cs_{kind}")


@pytest.mark.parametrize("control", ["never", "not yet"])
@pytest.mark.parametrize("base", ["varying", "universal"])
def test_staggered_differences(control, base):
    p = cases.panel()
    ids = np.arange(cases.N) % 2
    with jax.enable_x64(True):
        found = did.group_time(
            p["y"],
            p["first"],
            p["x"],
            p["times"],
            ml_g=HostLearner(lambda X, y, w, new: cases.l_of(new)),
            ml_m=HostLearner(lambda X, y, w, new: cases.m_of(new)),
            fold_ids=ids,
            n_folds=2,
            control=control,
            base=base,
        )
    kind = "standard" if base == "varying" else base
    name = f"{control.replace(' ', '_')}_treated, {kind}"
    theirs = THEIRS[name]
    assert [list(cell) for cell in found.cells] == theirs["cells"]
    if base == "universal" and control == "not yet":
        # theirs compares the past with units that are treated by the base period; ours does not
        kept = [i for i, cell in enumerate(found.cells) if cell.time > cell.before]
        np.testing.assert_allclose(
            found.estimate.theta[kept], np.take(theirs["theta"], kept), rtol=1e-9
        )
        return
    same(found.estimate, name)
    for by, key in (("group", "group"), ("time", "time"), ("event", "eventstudy")):
        averages = did.aggregate(found, by, known_shares=True)
        np.testing.assert_allclose(averages.theta, theirs[key]["theta"], rtol=1e-9, err_msg=by)
        np.testing.assert_allclose(averages.se, theirs[key]["se"], rtol=1e-9, err_msg=by)
        exact = did.aggregate(found, by)
        np.testing.assert_allclose(exact.theta, averages.theta, rtol=1e-12)


def test_the_stored_numbers_are_those_of_the_installed_doubleml():
    pytest.importorskip("doubleml")
    fresh = importlib.import_module("tests.peers.doubleml_numbers").numbers()

    def compare(a, b, where):
        if isinstance(a, dict):
            for key in a:
                compare(a[key], b[key], f"{where}/{key}")
        elif isinstance(a, list) and a and not isinstance(a[0], str):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-9, err_msg=where)
        elif isinstance(a, float):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=where)

    compare({k: v for k, v in THEIRS.items() if k != "doubleml"}, fresh, "")
