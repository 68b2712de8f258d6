"""The simulation study of the paper: what a network that sees images takes of their confounding."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.data.geo.bands import average_pool
from jaxcore.data.geo.keyed import read_images
from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding import propensity
from jaxcore.estimators.image_confounding.filter_network import fit_filter, windows
from jaxcore.estimators.image_confounding.simulate import assign, confounder, gaussian_fields
from jaxcore.estimators.image_confounding.weighting import effect
from jaxcore.estimators.monte_carlo import Replication, Study
from jaxcore.typing import Key

CLIP = 0.01
"""Propensities are kept this far from 0 and 1."""
TAU = 1.0


def scenes(n: int, *, images: str | None, side: int, band: int, seed: int) -> Float[Array, "n h w"]:
    """One band of ``n`` scenes: crops at random places of images in a file, or Gaussian fields.

    Args:
      n: scenes.
      images: a file of `read_images`; None draws fields.
      side: height and width in pixels.
      band: of the images in the file.
      seed: of the places, or of the fields.
    """
    if images is None:
        return gaussian_fields(jax.random.key(seed), n, size=side)
    found = read_images(Path(images)).images
    many, height, width, bands = found.shape
    if side > min(height, width) or not 0 <= band < bands:
        raise UserError(
            f"Expected images of at least {side} pixels and a band {band}, found {height} x "
            f"{width} pixels and {bands} bands in {images}."
        )
    rng = np.random.default_rng(seed)
    which = rng.integers(0, many, n)
    top, left = rng.integers(0, height - side + 1, n), rng.integers(0, width - side + 1, n)
    crops = [
        np.asarray(found[np.array([i])])[0, t : t + side, x : x + side, band]
        for i, t, x in zip(which, top, left, strict=True)
    ]
    return jnp.asarray(np.stack(crops), jnp.float32)


def image_study(
    n: int,
    *,
    images: str | None = None,
    width: int = 8,
    widths: tuple[int, ...] = (2, 4, 8),
    pooled: tuple[tuple[int, int], ...] = (),
    pool: str = "max",
    side: int = 32,
    band: int = 0,
    steps: int = 300,
    seed: int = 0,
) -> Study:
    """Difference in means, weights of the true propensities, and of networks (Hajek).

    Scenes are drawn once; treatment, outcome and the networks of every replication anew.

    Args:
      n: scenes.
      images: file of images to cut them from; None takes Gaussian fields, the hard case.
      width: of the filter that the planner sees with.
      widths: of the filters of the networks.
      pooled: further networks that see coarser scenes: pixels averaged over, and width.
      pool: "max" or "ave", what the planner looks for.
      side: of a scene, pixels.
      band: of the images.
      steps: updates of a network.
      seed: of the scenes.
    """
    seen, widest = scenes(n, images=images, side=side, band=band, seed=seed), max(width, *widths)
    u = confounder(seen, width, pool=pool, widest=widest)
    inputs = [windows(seen, w, widest) for w in widths]
    for size, w in pooled:
        coarse = jnp.asarray(average_pool(seen[..., None], size))[..., 0]
        inputs.append(windows(coarse, w, max(1, widest // size)))
    names = [f"filter {w}" for w in widths] + [f"pixels / {s}, filter {w}" for s, w in pooled]
    train = functools.partial(fit_filter, steps=steps)

    def draw(key: Key) -> Replication:
        for_data, for_fits = jax.random.split(key)
        s = assign(for_data, u, tau=TAU)
        found = [effect("difference", s.Y, s.A, s.propensity)]
        e = propensity.clip(s.propensity, CLIP).e
        found.append(effect("hajek", s.Y, s.A, e))
        alike: list[Any] = []
        for i, one in enumerate(inputs):
            e = train(jax.random.fold_in(for_fits, i), one, s.A).propensity
            found.append(effect("hajek", s.Y, s.A, propensity.clip(e, CLIP).e))
            alike.append(jnp.corrcoef(jnp.stack([e, s.propensity]))[0, 1])
        theta = jnp.stack([*(one.theta for one in found), *alike])
        se = jnp.stack([*(one.se for one in found), *(jnp.nan * x for x in alike)])
        return Replication(theta, se)

    extras = tuple(f"correlation with the true propensity, {name}" for name in names)
    every = ("naive", "true propensities", *names)
    return Study(names=every, extras=extras, truth=TAU, draw=draw)
