"""The moment on exact laws: influence function by differentiation, orthogonality, robustness."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.estimators.selective_iv import MODELS, Nuisances, moment_general, moment_uncentred
from tests.estimators.derivatives import derivative_error, nuisance_derivative
from tests.parity.selective_iv import DiscreteLaw

FILE = Path(__file__).parents[2] / "golden" / "selective_iv" / "discrete_law.npz"
BLOCKS = ("pi", "mu", "g", "delta", "rho")


@pytest.fixture(scope="module")
def file():
    with np.load(FILE) as arrays:
        return dict(arrays)


@pytest.fixture
def law(file):
    with jax.enable_x64(True):
        yield DiscreteLaw(jnp.asarray(file["in/P"]), jnp.asarray(file["in/y_values"]))


def theta_of(P, y):
    law = DiscreteLaw(P, y)
    return law.theta(law.nuisances())


def test_gateaux_derivative_is_the_influence_function(law):
    shape = law.P.shape
    true = law.nuisances()
    phi = law.moment_at(true) - law.theta(true)
    error = derivative_error(
        lambda p: theta_of(p.reshape(shape), law.y), law.P.reshape(-1), phi.reshape(-1)
    )
    assert float(error) < 1e-8


def test_mean_moment_is_orthogonal_in_every_nuisance(law):
    true = law.nuisances()

    def mean_u(nu):
        return jnp.sum(law.P * law.moment_at(nu))

    rng = np.random.default_rng(0)
    for name in BLOCKS:
        for _ in range(3):
            direction = {k: jnp.zeros_like(v) for k, v in true.items()}
            direction[name] = jnp.asarray(rng.normal(size=true[name].shape))
            first = nuisance_derivative(mean_u, true, direction)
            assert abs(float(first)) < 1e-10, name

            def along(t, direction=direction):
                return mean_u(jax.tree.map(lambda a, d: a + t * d, true, direction))

            # second derivatives in one nuisance vanish too, except in mu, which also moves D
            if name != "mu":
                assert abs(float(jax.grad(jax.grad(along))(0.0))) < 1e-9, name


def test_exactly_the_supersets_of_the_four_models_are_unbiased(law, file):
    true = law.nuisances()
    wrong = {k: jnp.asarray(file[f"in/wrong_{k}"]) for k in true}
    theta, unbiased, count = law.theta(true), [], 0
    for code in itertools.product((0, 1), repeat=5):
        right = dict(zip(BLOCKS, code, strict=True))
        mixed = {k: true[k] if right[k] else wrong[k] for k in true}
        bias = float(jnp.sum(law.P * law.moment_at(mixed)) - theta)
        expected = any(all(right[b] for b in kept) for kept in MODELS.values())
        assert (abs(bias) < 1e-12) == expected, (code, bias)
        count += expected
        unbiased.append(expected)
    assert count == 13


def test_general_moment_with_three_levels_has_the_gateaux_derivative():
    """A discrete law with three-level Z and A: the formula for any real Z and A."""
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        levels = jnp.array([0.0, 1.0, 2.5])
        y = jnp.array([-1.0, 0.5, 2.0])
        P = jnp.asarray(rng.dirichlet(np.full(2 * 27, 3.0)).reshape(2, 3, 3, 3))

        def nuisances(P):
            P = P / jnp.sum(P)
            x, xz = jnp.sum(P, axis=(1, 2, 3)), jnp.sum(P, axis=(2, 3))
            pi = xz @ levels / x
            mu = jnp.einsum("xzay,a->xz", P, levels) / xz
            m = jnp.einsum("xzay,y->xz", P, y) / xz
            a2 = jnp.einsum("xzay,a->xz", P, levels**2) / xz
            ay = jnp.einsum("xzay,a,y->xz", P, levels, y) / xz
            V, C = a2 - mu**2, ay - mu * m
            h = (levels[None] - pi[:, None]) * xz / x[:, None]
            d_h = jnp.sum(h * V, axis=1)
            delta = jnp.sum(h * C, axis=1) / d_h
            g = m - delta[:, None] * mu
            rho = jnp.sum((C - delta[:, None] * V) * xz, axis=1) / x
            return x, pi, mu, g, delta, rho, d_h

        def theta(p):
            x, *_, delta, _, _ = nuisances(p.reshape(P.shape))
            return jnp.sum(x * delta)

        _, pi, mu, g, delta, rho, d_h = nuisances(P)
        xi, zi, ai, yi = (i.reshape(-1) for i in np.indices(P.shape))
        u = moment_general(
            y[yi],
            levels[ai],
            levels[zi],
            pi[xi],
            mu[xi, zi],
            g[xi, zi],
            delta[xi],
            rho[xi],
            d_h[xi],
        )
        flat = P.reshape(-1)
        assert float(derivative_error(theta, flat, u - theta(flat))) < 1e-8


def test_general_moment_is_the_binary_one_for_binary_instruments():
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        Y, A, Z = (
            jnp.asarray(v)
            for v in (rng.normal(size=9), rng.integers(0, 2, 9) * 1.0, rng.integers(0, 2, 9) * 1.0)
        )
        pi, mu1, mu0, g, delta, rho = (jnp.asarray(v) for v in rng.uniform(0.2, 0.8, (6, 9)))
        d = mu1 * (1 - mu1) - mu0 * (1 - mu0)
        binary = moment_uncentred(
            Y, A, Z, Nuisances(pi=pi, mu1=mu1, mu0=mu0, g=g, delta=delta, rho=rho)
        )
        general = moment_general(
            Y, A, Z, pi, jnp.where(Z > 0.5, mu1, mu0), g, delta, rho, pi * (1 - pi) * d
        )
        np.testing.assert_allclose(binary, general, rtol=1e-10)
