"""Derivatives of functionals and of mean moments, to check influence functions with."""

import jax
import jax.numpy as jnp

from jaxcore.estimators.influence import gateaux


def derivative_error(functional, p, psi) -> float:
    """Largest distance between a claimed influence function and the Gateaux derivatives."""
    assert psi.shape == p.shape
    return float(jnp.max(jnp.abs(gateaux(functional, p) - psi)))


def nuisance_derivative(moment, nuisances, direction) -> float:
    """Derivative of a mean moment in a direction of its nuisances (zero if orthogonal)."""
    return float(jax.jvp(moment, (nuisances,), (direction,))[1])
