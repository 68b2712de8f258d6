"""Parametric, constant-effect, baseline and sensitivity functions against twins and identities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators.genius import genius, genius_gmm, genius_plm
from jaxcore.estimators.linear_iv import ols, robust_set, tsls
from jaxcore.estimators.nuisance import basis
from jaxcore.estimators.selective_iv import (
    BLOCKS,
    Bases,
    Clip,
    Nuisances,
    bases,
    from_predictions,
    influence_function,
    moment_uncentred,
    mr_parametric,
    sensitivity_bounds,
    simulate,
)
from jaxcore.estimators.selective_iv.basis_selected import estimate_bases
from jaxcore.estimators.selective_iv.selected import estimate_selected
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import variance


@pytest.fixture(scope="module")
def sample():
    with jax.enable_x64(True):
        return jax.device_get(simulate.simulate_siv2(jax.random.key(3), 600))


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def nuisances(n, seed=0):
    rng = np.random.default_rng(seed)
    low, high = [0.2, 0.5, 0.1, -1, 0.5, 0.0], [0.8, 0.6, 0.2, 1, 1.5, 0.2]
    values = (jnp.asarray(rng.uniform(a, b, n)) for a, b in zip(low, high, strict=True))
    return Nuisances(**dict(zip(("pi", "mu1", "mu0", "g", "delta", "rho"), values, strict=True)))


def test_moment_by_hand(sample, double):
    nu = nuisances(600)
    Y, A, Z = sample.Y, sample.A, sample.Z
    n = {k: np.asarray(getattr(nu, k)) for k in ("pi", "mu1", "mu0", "g", "delta", "rho")}
    mu, f = np.where(Z == 1, n["mu1"], n["mu0"]), np.where(Z == 1, n["pi"], 1 - n["pi"])
    D = n["mu1"] * (1 - n["mu1"]) - n["mu0"] * (1 - n["mu0"])
    u = n["delta"] + (2 * Z - 1) / (f * D) * ((A - mu) * (Y - n["delta"] * A - n["g"]) - n["rho"])
    np.testing.assert_allclose(moment_uncentred(*map(jnp.asarray, (Y, A, Z)), nu), u, rtol=1e-12)
    phi = influence_function(*map(jnp.asarray, (Y, A, Z)), nu)
    np.testing.assert_allclose(phi, u - u.mean(), rtol=1e-9, atol=1e-9)


def test_one_sided_moment_is_weighted_aipw_among_z_one(sample, double):
    Y, A, Z = (jnp.asarray(v) for v in (sample.Y, sample.A * sample.Z, sample.Z))
    nu = nuisances(600)
    zero = jnp.zeros(600)
    one_sided = dataclasses.replace(nu, mu0=zero, rho=zero, g=nu.g * Z)
    clip = Clip(pi=(0.0, 1.0), mu=(0.0, 1.0), min_abs_D=0.0, one_sided=True)
    u = moment_uncentred(Y, A, Z, one_sided, clip=clip)
    treated = A / nu.mu1 * (Y - nu.g - nu.delta)
    untreated = (1 - A) / (1 - nu.mu1) * (Y - nu.g)
    aipw = nu.delta + Z / nu.pi * (treated - untreated)
    np.testing.assert_allclose(u, aipw, rtol=1e-10, atol=1e-10)


def test_clipping_is_counted_and_discarding_leaves_out(sample, double):
    Y, A, Z = (jnp.asarray(v) for v in (sample.Y, sample.A, sample.Z))
    nu = nuisances(600)
    clip = Clip(pi=(0.3, 0.7), min_abs_D=0.05)
    outside = (np.asarray(nu.pi) < 0.3) | (np.asarray(nu.pi) > 0.7)
    cut = from_predictions(Y, A, Z, nu, clip=clip)
    assert int(cut.diagnostics["n_outside_overlap"]) == outside.sum()
    assert float(cut.diagnostics["nuisances"].pi.min()) == 0.3
    out = from_predictions(Y, A, Z, nu, clip=dataclasses.replace(clip, overlap="discard"))
    u = np.asarray(out.diagnostics["u"])
    assert abs(float(out.theta) - u[~outside].mean()) < 1e-12


@pytest.mark.parametrize(
    "bad", [{"pi": (0.5, 0.5)}, {"mu": (-0.1, 1)}, {"min_abs_D": -1}, {"overlap": "trim"}]
)
def test_impossible_clips(bad):
    with pytest.raises(UserError, match="Expected"):
        Clip(**bad)


def test_parametric_with_right_models_beats_its_standard_error(double):
    s = simulate.simulate_siv1(jax.random.key(1), 20_000)
    e = mr_parametric(s.Y, s.A, s.Z, simulate.bases_siv1(s.Z, s.X))
    assert abs(float(e.theta) - 1) < 3 * float(e.se)
    assert 0.8 < float(e.diagnostics["se_sandwich"] / e.diagnostics["se_if"]) < 1.25


def test_parametric_weights_and_clusters(double):
    s = simulate.simulate_siv1(jax.random.key(1), 400)
    bases = simulate.bases_siv1(s.Z, s.X)
    times = np.random.default_rng(0).integers(1, 3, 400)
    again = np.repeat(np.arange(400), times)
    weighted = mr_parametric(s.Y, s.A, s.Z, bases, units=Units(jnp.asarray(times, jnp.float64)))
    repeated = mr_parametric(
        s.Y[again],
        s.A[again],
        s.Z[again],
        Bases(*(b[again] for b in bases)),
        units=Units(clusters=jnp.asarray(again)),
    )
    np.testing.assert_allclose(weighted.theta, repeated.theta, rtol=1e-9)
    # a unit that stands there twice is one unit: its cluster carries the weight
    ratio = float(repeated.se / weighted.se) * times.sum() / 400 / np.sqrt(400 / 399)
    assert abs(ratio - times.sum() / 400) < 1e-6


def test_parametric_refuses_other_errors(double):
    s = simulate.simulate_siv1(jax.random.key(1), 50)
    with pytest.raises(UserError, match="'sandwich' or 'if'"):
        mr_parametric(s.Y, s.A, s.Z, simulate.bases_siv1(s.Z, s.X), se="hc3")


def test_least_squares_baselines_by_hand(sample, double):
    Y, A, Z, X = sample
    W = np.c_[np.ones(600), X]
    D, Q = np.c_[A, W], np.c_[Z, W]
    for ours, inst in (
        (ols(*map(jnp.asarray, (Y, A, W))), D),
        (tsls(*map(jnp.asarray, (Y, A, Z, W))), Q),
    ):
        b = np.linalg.solve(inst.T @ D, inst.T @ Y)
        r = Y - D @ b
        inverse = np.linalg.inv(inst.T @ D)
        V = inverse @ (inst * (r**2)[:, None]).T @ inst @ inverse.T
        np.testing.assert_allclose(float(ours.theta), b[0], rtol=1e-9)
        np.testing.assert_allclose(float(ours.se), np.sqrt(V[0, 0]), rtol=1e-9)


def test_genius_without_covariates_by_hand(sample, double):
    Y, A, Z, _ = sample
    h = Z - Z.mean()
    e = A - np.where(Z == 1, A[Z == 1].mean(), A[Z == 0].mean())
    beta = np.mean(h * e * Y) / np.mean(h * e * A)
    ours = genius(*map(jnp.asarray, (Y, A, Z)))
    np.testing.assert_allclose(float(ours.theta), beta, rtol=1e-8)
    with pytest.raises(UserError, match="logistic, linear"):
        genius(*map(jnp.asarray, (Y, A, Z)), a_model="probit")


def test_gmm_with_one_instrument_is_genius(sample, double):
    Y, A, Z, _ = (jnp.asarray(v) for v in sample)
    one, many = genius(Y, A, Z), genius_gmm(Y, A, Z[:, None])
    np.testing.assert_allclose(float(many.theta), float(one.theta), rtol=1e-8)
    np.testing.assert_allclose(float(many.se), float(one.se), rtol=1e-6)
    assert abs(float(many.diagnostics["J"])) < 1e-12


def test_gmm_with_several_instruments_covers_the_effect(double):
    rng = np.random.default_rng(0)
    n = 20_000
    Z = rng.integers(0, 2, (n, 3)) * 1.0
    U = rng.normal(size=n)
    A = (1 + Z @ [0.5, 0.8, 0.3]) * rng.normal(size=n) + U
    Y = 2 * A + Z @ [1.0, -1.0, 0.5] + U + rng.normal(size=n)
    e = genius_gmm(jnp.asarray(Y), jnp.asarray(A), jnp.asarray(Z), a_model="linear")
    assert abs(float(e.theta) - 2) < 4 * float(e.se) < 0.2
    assert float(e.diagnostics["J"]) < 13.8  # 0.999 quantile with 2 degrees of freedom


def test_robust_sets_of_every_shape(double):
    rng = np.random.default_rng(0)
    a, noise = rng.normal(size=200), rng.normal(size=200)
    strong = robust_set(jnp.asarray(a + 1), jnp.asarray(2 * (a + 1) + 0.5 * noise))
    assert bool(strong.is_interval) and float(strong.roots[0]) < 2 < float(strong.roots[1])
    weak = robust_set(jnp.asarray(a), jnp.asarray(noise))
    assert not bool(weak.is_interval)
    assert weak.pieces().describe() == "the whole line" or "and" in weak.pieces().describe()
    rays = robust_set(jnp.asarray(a + 0.05), jnp.asarray(noise + 3))
    assert "(-inf" in rays.pieces().describe()
    for s in (strong, rays):  # the roots are where the statistic meets its critical value
        q, t = np.asarray(s.quadratic), np.asarray(s.roots)
        np.testing.assert_allclose(q[0] * t**2 + q[1] * t + q[2], 0, atol=1e-6 * abs(q).max())


def test_sensitivity_at_zero_is_the_interval_and_its_value_is_where_zero_enters(double):
    s = simulate.simulate_siv1(jax.random.key(5), 4000)
    nu = simulate.truth_siv1(s.X, s.Z)
    e = from_predictions(s.Y, s.A, s.Z, nu)
    u = e.diagnostics["u"]
    none = sensitivity_bounds(u, s.A, s.Z, nu, 0.0)
    np.testing.assert_allclose(none.limits, e.confint(), rtol=1e-9)
    value = float(none.robustness_value)
    at = sensitivity_bounds(u, s.A, s.Z, nu, value)
    assert value > 0 and abs(float(at.limits[0])) < 1e-6
    truth = float(jnp.mean(1 / (nu.mu1 * (1 - nu.mu1) - nu.mu0 * (1 - nu.mu0))))
    assert abs(float(none.nu) - truth) < 4 * float(none.nu_se)


def test_chunked_tables_equal_the_full_array(sample, double, monkeypatch):
    from jaxcore.estimators import chunks

    Y, A, Z, X = (jnp.asarray(v) for v in sample)
    B, mask = basis.library(["const", "lin"], X)
    masks = dict.fromkeys(BLOCKS, mask)
    ids = jnp.arange(600, dtype=jnp.int32) % 3
    w = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, 600))
    fits = bases.fit_bases(Y, A, Z, B, masks, ids, 3, clip=Clip(), weights=w)
    U = bases.all_moments(fits, Y, A, Z, B, ids, clip=Clip())
    smooth = {"criterion": "smooth", "units": Units(w)}
    full = jax.jit(lambda U: estimate_selected(U, ids, 3, **smooth))(U)
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", 10_000)
    part = jax.jit(lambda B: estimate_bases(Y, A, Z, B, masks, ids, 3, clip=Clip(), **smooth))(B)
    np.testing.assert_allclose(part.theta, full.theta, rtol=1e-9)
    np.testing.assert_allclose(part.se, full.se, rtol=1e-9)
    for name in ("T", "criterion", "theta_all", "se_all"):
        np.testing.assert_allclose(
            part.diagnostics[name], full.diagnostics[name], rtol=1e-8, err_msg=name
        )


def test_joint_fit_equals_the_parametric_equations(sample, double):
    """One basis and one fold: the joint fit solves what `mr_parametric` solves."""
    Y, A, Z, X = (jnp.asarray(v) for v in sample)
    B, mask = basis.library(["lin"], X)
    ids = jnp.zeros(600, jnp.int32)
    masks = dict.fromkeys(BLOCKS, mask)
    fits = bases.fit_bases(Y, A, Z, B, masks, ids, 1, clip=Clip(pi=(0, 1), mu=(0, 1)), ridge=0)
    BZ = bases.with_instrument(B, Z)
    one, zero = (bases.with_instrument(B, jnp.full(600, z)) for z in (1.0, 0.0))
    e = mr_parametric(Y, A, Z, Bases(B, BZ, one, zero, BZ, B, B))
    c = e.diagnostics["coefficients"]
    for ours, theirs in (
        (fits.pi, c.alpha),
        (fits.mu, c.beta),
        (fits.g, c.kappa),
        (fits.delta, c.psi),
        (fits.rho, c.eta),
    ):
        np.testing.assert_allclose(np.ravel(ours), theirs, rtol=1e-7, atol=1e-9)


def test_orthogonal_partially_linear_form_targets_the_weighted_effect(double):
    s = simulate.simulate_siv1(jax.random.key(9), 50_000)
    nu = simulate.truth_siv1(s.X, s.Z)
    mu = jnp.where(s.Z > 0.5, nu.mu1, nu.mu0)
    v1, v0 = nu.mu1 * (1 - nu.mu1), nu.mu0 * (1 - nu.mu0)
    v = nu.pi * v1 + (1 - nu.pi) * v0
    e = genius_plm(s.Y, s.A, s.Z, nu.pi, mu, nu.g + nu.delta * mu, v, nu.rho + nu.delta * v)
    weight = nu.pi * (1 - nu.pi) * (v1 - v0)
    target = float(jnp.sum(weight * nu.delta) / jnp.sum(weight))
    assert abs(float(e.theta) - target) < 4 * float(e.se)


def test_efficiency_bound_of_the_first_design(double):
    s = simulate.simulate_siv1(jax.random.key(0), 200_000)
    u = moment_uncentred(s.Y, s.A, s.Z, simulate.truth_siv1(s.X, s.Z))
    assert abs(float(variance(u - u.mean())) * 200_000 - 207.1) < 5
