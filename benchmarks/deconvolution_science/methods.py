"""The methods that are compared, as one compiled program for batches of one size."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.data.astro.galaxies import Galaxies, Population, draw_galaxies, render
from jaxcore.data.astro.telescopes import Telescope, observe, seeing
from jaxcore.models import deconvolution, sunet
from jaxcore.models.sunet import SUNetConfig
from jaxcore.ops.grids import factor_between, upsample_flux
from jaxcore.ops.starlet import Starlet
from jaxcore.train.tasks.deconvolution import scales_of
from jaxcore.typing import Params

BATCH = 20


class Seen(NamedTuple):
    """The arrays of `Observed`, on the host."""

    target: Any
    observed: Any
    psf: Any
    sigma: Any


Restore = Callable[[Seen], dict[str, Any]]
"""Name of a method -> restored stamps."""

NAMES = (
    "observed",
    "tikhonov",
    "network",
    "debias",
    "tikhonov_debias",
    "sparse",
    "richardson_lucy",
)
"""Observed and enlarged; steps 1 to 3; step 3 without the network; two classical methods."""


def methods(params: Params, cfg: SUNetConfig, side: int) -> Restore:
    """All methods, for stamps of one size in any number.

    Args:
      params: of the trained network.
      cfg: its configuration.
      side: of restored stamps.
    """
    dictionary = Starlet(scales_of(side))
    target = jnp.asarray(seeing((side, side), 2.0, profile="gaussian"))

    @jax.jit
    def program(y: jax.Array, psf: jax.Array, sigma: jax.Array) -> dict[str, jax.Array]:
        common = {"sigma": sigma[:, None], "dictionary": dictionary}
        out = sunet.deconvolve(y[:, None], psf[:, None], params, cfg, **common)
        assert out.sunet is not None
        alone = {"sigma": sigma, "dictionary": dictionary}
        first = out.tikhonov[:, 0]
        classical = {"sigma": sigma, "target_psf": target}
        return {
            "observed": upsample_flux(y, factor_between(y.shape, psf.shape)),
            "tikhonov": first,
            "network": out.sunet[:, 0],
            "debias": out.image[:, 0],
            "tikhonov_debias": deconvolution.debias(first, y, psf, **alone).image,
            "sparse": deconvolution.sparse_starlet(y, psf, **classical),
            "richardson_lucy": deconvolution.richardson_lucy(y, psf, **classical),
        }

    def restore(seen: Seen) -> dict[str, Any]:
        count = len(seen.observed)
        parts = []
        for first in range(0, count, BATCH):
            rows = np.minimum(np.arange(first, first + BATCH), count - 1)  # the last one filled up
            args = (np.asarray(a)[rows] for a in (seen.observed, seen.psf, seen.sigma))
            parts.append({name: np.asarray(a) for name, a in program(*args).items()})
        return {name: np.concatenate([p[name] for p in parts])[:count] for name in NAMES}

    return restore


def galaxies(seed: int, count: int, population: Population) -> Galaxies:
    """Galaxies of a stream that no training has."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1_000_003), count)
    return draw_galaxies(keys, population)


def look(drawn: Galaxies, telescope: Telescope, side: int, seed: int) -> Seen:
    """Observations of galaxies."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1_000_033), len(drawn.flux))
    return Seen(*map(np.asarray, observe(keys, render(drawn, side), telescope)))


def medians(values: Mapping[str, Any]) -> dict[str, float]:
    """Of every method, rounded."""
    return {name: round(float(np.median(v)), 4) for name, v in values.items()}
