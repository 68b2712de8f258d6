"""`Estimate`: intervals, tables, pictures; aggregation; bootstrap."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.errors import UserError
from jaxcore.estimators import bootstrap, plots
from jaxcore.estimators.estimate import Estimate, aggregate_repeats
from jaxcore.estimators.units import Units


@pytest.fixture(scope="module")
def pair():
    psi = jnp.asarray(np.random.default_rng(0).normal(size=(200, 2)), jnp.float32)
    psi = psi - psi.mean(axis=0)[None]
    return Estimate.from_psi(jnp.array([1.0, -2.0]), psi, names=("a", "b"), estimator="two")


def test_wald_interval_and_p_value(pair):
    from scipy.stats import norm

    se = np.asarray(pair.se)
    np.testing.assert_allclose(se, np.sqrt((np.asarray(pair.psi) ** 2).mean(0) / 200), rtol=1e-5)
    for level in (0.5, 0.95, 0.999):
        z = norm.ppf(0.5 + level / 2)
        expected = np.stack([np.asarray(pair.theta) - z * se, np.asarray(pair.theta) + z * se], -1)
        np.testing.assert_allclose(np.asarray(pair.confint(level)), expected, rtol=1e-5)
    p = 2 * norm.sf(np.abs((np.asarray(pair.theta) - 0.9) / se))
    np.testing.assert_allclose(np.asarray(pair.pvalue(0.9)), p, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("level", [0.0, 1.0, -1, 95])
def test_levels_outside_zero_and_one_are_refused(pair, level):
    with pytest.raises(UserError, match="between 0 and 1"):
        pair.confint(level)


def test_joint_interval_is_wider_and_common(pair):
    single, joint = np.asarray(pair.confint()), np.asarray(pair.confint(joint=True, n_boot=4000))
    ratio = (joint[:, 1] - joint[:, 0]) / (single[:, 1] - single[:, 0])
    assert 1.08 < ratio[0] < 1.25  # two nearly independent estimates: 2.236 / 1.960 = 1.14
    assert abs(ratio[0] - ratio[1]) < 1e-5


def test_bootstrap_statistics_are_standard_normal(pair):
    for kind in bootstrap.KINDS:
        t = np.asarray(pair.bootstrap(4000, kind, seed=3))
        assert t.shape == (4000, 2)
        assert abs(t.mean()) < 0.05 and abs(t.std() - 1) < 0.05, kind


def test_bootstrap_batches_do_not_change_the_draws(pair):
    key = jax.random.key(1)
    a, b = (
        bootstrap.multiplier(key, pair.psi, pair.se, n_boot=10, batch_size=size) for size in (10, 3)
    )
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-5)


def test_bootstrap_by_cluster_uses_one_multiplier_per_cluster():
    psi = jnp.ones(10).at[5:].set(-1.0)
    clusters = jnp.array([0] * 5 + [1] * 5)
    two, se = Units(clusters=clusters), jnp.float32(1.0)
    t = bootstrap.multiplier(jax.random.key(0), psi, se, n_boot=500, kind="rademacher", units=two)
    assert set(np.round(np.asarray(t), 4).tolist()) == {-1.0, 0.0, 1.0}


def test_unknown_kind_of_bootstrap(pair):
    with pytest.raises(UserError, match="normal, rademacher, bayes"):
        pair.bootstrap(10, "wild")


def test_critical_value_is_the_quantile_of_the_largest():
    t = np.random.default_rng(0).normal(size=(101, 3)).astype(np.float32)
    ours = float(bootstrap.critical_value(jnp.asarray(t), 0.9))
    assert abs(ours - np.quantile(np.abs(t).max(axis=1), 0.9)) < 1e-5


def test_summary_names_every_estimate_and_notice(pair):
    import dataclasses

    text = dataclasses.replace(pair, notices=("mind the gap",)).summary(0.9)
    assert text.startswith("two, 200 units")
    assert "[90%" in text and "\na " in text and "\nb " in text
    assert "note: mind the gap" in text


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_to_frame(pair, library):
    pytest.importorskip(library)
    frame = pair.to_frame(library=library)
    assert list(frame["name"]) == ["a", "b"]
    assert json.loads(json.dumps(list(frame["estimate"]))) == [1.0, -2.0]


def test_to_frame_without_the_library(pair):
    with pytest.raises(UserError, match="not installed"):
        pair.to_frame(library="no_such_library")


def test_plot_draws_one_line_per_estimate(pair):
    pytest.importorskip("matplotlib")
    ax = pair.plot()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    with pytest.raises(UserError, match="at least one estimate"):
        plots.intervals([])


def test_estimate_is_a_pytree_that_passes_through_jit_and_vmap():
    def one(psi):
        return Estimate.from_psi(jnp.mean(psi), psi - jnp.mean(psi))

    out = jax.jit(jax.vmap(one))(jnp.asarray(np.random.default_rng(0).normal(size=(3, 8))))
    assert out.theta.shape == (3,) and out.psi.shape == (3, 8)


def test_host_estimates_stay_on_the_host():
    with jax.enable_x64(True):
        psi = jnp.asarray(np.linspace(-1, 1, 9))
        e = Estimate.from_psi(jnp.float64(1.0), psi).on_host()
    assert e.confint().dtype == np.float64
    assert isinstance(e.confint(), np.ndarray)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=7),
    st.sampled_from(["median", "mean"]),
)
def test_aggregate_repeats(values, how):
    theta = np.array(values, np.float32)
    se = np.linspace(0.5, 1.5, len(theta)).astype(np.float32)
    agg = {"median": np.median, "mean": np.mean}[how]
    centre = agg(theta)
    ours = aggregate_repeats(jnp.asarray(theta), jnp.asarray(se), how=how)
    np.testing.assert_allclose(float(ours[0]), centre, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        float(ours[1]), np.sqrt(agg(se**2 + (theta - centre) ** 2)), rtol=1e-4
    )


def test_aggregate_refuses_other_rules():
    with pytest.raises(UserError, match="'median' or 'mean'"):
        aggregate_repeats(jnp.ones(2), jnp.ones(2), how="mode")


def test_names_from_a_table_are_shown_as_they_are(pair, tmp_path):
    """They can do nothing to a terminal, and are no formulas of matplotlib."""
    named = dataclasses.replace(pair, names=("\x1b]0;owned\x07", r"$\frac$"))
    summary = named.summary()
    assert r"\x1b]0;owned\x07" in summary and "\x1b" not in summary
    axes = named.plot()
    axes.figure.savefig(tmp_path / "a.png")
