"""A galaxy with a clump, as deconvolution sees it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.models import deconvolution as d


class Stamp(NamedTuple):
    """All on one grid, float32."""

    truth: jax.Array
    noisy: jax.Array
    psf: jax.Array


def stamp(side=64, sigma=0.02, seed=0) -> Stamp:
    """The galaxy behind seeing of 6 pixels, with white noise."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices((side, side)) - side // 2
    truth = np.exp(-np.hypot(rows, 1.6 * cols) / 5)
    truth += 0.8 * np.exp(-((rows - 6) ** 2 + (cols + 4) ** 2) / 3)
    truth, psf = (jnp.asarray(a, jnp.float32) for a in (truth, d.moffat_psf((side, side), 6.0)))
    noise = jnp.asarray(sigma * rng.normal(size=truth.shape), jnp.float32)
    return Stamp(truth, d.convolve(truth, d.psf_to_tf(psf)) + noise, psf)


def error(x, truth) -> float:
    """Squared error over the squared norm of the truth."""
    return float(jnp.sum((x - truth) ** 2) / jnp.sum(truth**2))
