"""Galaxies that never were: shapes drawn from a population, and their images; pure JAX.

Lengths are in pixels of the rendered image, places are (row, column) from its middle pixel
``(h // 2, w // 2)``, angles count from the columns to the rows.
"""

import dataclasses
import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxcore.bounds import Index, Positive
from jaxcore.errors import UserError
from jaxcore.ops.grids import rebin
from jaxcore.serial import Serial

Range: TypeAlias = tuple[float, float]
"""Lowest and highest value."""

_SOFT = 0.25  # squared pixels, added to squared radii: no galaxy is a cusp
_SPREAD = (0.75, 0.5)  # of the logarithms of index and radius, as in the COSMOS catalogue
_BULGE_INDEX, _BULGE_SIZE = 4.0, 0.25  # Sersic index; radius over that of the disc
_ARMS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Population(Serial):
    """What galaxies there are.

    The defaults are single Sersic profiles with up to five clumps. Index and radius are
    log-normal about their middle values, as wide as in the COSMOS catalogue, and clipped; all else
    is uniform.
    """

    # Sersic index: lowest, middle, highest
    sersic: tuple[Positive, Positive, Positive] = (0.5, 1.4, 4.0)
    # half-light radius along the major axis, pixels: lowest, middle, highest
    radius: tuple[Positive, Positive, Positive] = (1.5, 5.8, 8.0)
    axis_ratio: Range = (0.2, 1.0)  # minor over major axis
    offset: float = 2.0  # from the middle of the stamp along each axis, pixels, at most
    flux: Positive = 100.0  # of a whole galaxy
    clumps: Index = 5  # at most so many
    clump_share: Range = (0.1, 0.4)  # of the flux that all clumps of a galaxy hold together
    clump_sigma: Range = (0.7, 1.3)  # of a round Gaussian, pixels
    clump_place: Range = (0.4, 1.8)  # from the centre, half-light radii
    bulge: Range = (0.0, 0.0)  # share of the smooth flux in a bulge of index 4
    arms: Range = (0.0, 0.0)  # contrast of two spiral arms: 0 for none, below 1

    def problems(self) -> list[str]:
        """What does not fit together."""
        found = []
        for name in ("sersic", "radius", "axis_ratio", "clump_share", "clump_sigma", "clump_place"):
            values = getattr(self, name)
            if list(values) != sorted(values) or values[0] <= 0:
                found.append(f"{name} must be positive and in rising order, found {values}")
        for name in ("bulge", "arms", "clump_share", "axis_ratio"):
            low, *_, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                found.append(f"{name} must be from 0 to 1, found {getattr(self, name)}")
        return found


class Galaxies(NamedTuple):
    """Shapes of ``n`` galaxies; the fields of one have no leading axis."""

    flux: Float[Array, "*n"]  # without clumps
    sersic: Float[Array, "*n"]
    radius: Float[Array, "*n"]
    axis_ratio: Float[Array, "*n"]
    angle: Float[Array, "*n"]
    centre: Float[Array, "*n 2"]
    bulge: Float[Array, "*n"]
    arms: Float[Array, "*n"]
    pitch: Float[Array, "*n"]
    phase: Float[Array, "*n"]
    clump_flux: Float[Array, "*n k"]  # 0 for those that are not there
    clump_place: Float[Array, "*n k 2"]
    clump_sigma: Float[Array, "*n k"]


Shapes: TypeAlias = Float[Array, "rows 3"] | Float[np.ndarray, "rows 3"]
"""Sersic index, half-light radius (pixels) and axis ratio of real galaxies, one per row."""


@functools.partial(jax.jit, static_argnames="population")
def draw_galaxies(
    keys: Key[Array, " n"], population: Population, shapes: Shapes | None = None
) -> Galaxies:
    """Draw one galaxy per key; each depends on its own key alone.

    Args:
      keys: of the galaxies.
      population: what there is.
      shapes: of real galaxies, from which rows are drawn instead; clipped to the population's
        ranges.

    >>> drawn = draw_galaxies(jax.random.split(jax.random.key(0), 4), Population())
    >>> drawn.radius.shape, drawn.clump_place.shape
    ((4,), (4, 5, 2))
    """
    return jax.vmap(lambda key: _draw(key, population, shapes))(keys)


def _draw(key: Key[Array, ""], p: Population, shapes: Shapes | None) -> Galaxies:
    # All numbers at once: a generator per number would take seconds to compile.
    for_shape, for_numbers = jax.random.split(key)
    numbers = jax.random.uniform(for_numbers, (10 + 5 * p.clumps,))
    taken = 0

    def uniform(ends: Range, shape: tuple[int, ...] = ()) -> Array:
        nonlocal taken
        start, taken = taken, taken + int(np.prod(shape))
        return ends[0] + (ends[1] - ends[0]) * numbers[start:taken].reshape(shape)

    axis_ratio = uniform(p.axis_ratio)
    if shapes is None:
        middle = jnp.log(jnp.asarray((p.sersic[1], p.radius[1]), float))
        spread = jnp.asarray(_SPREAD, float)
        index, radius = jnp.exp(middle + spread * jax.random.normal(for_shape, (2,)))
    else:
        row = jax.random.randint(for_shape, (), 0, len(shapes))
        index, radius, axis_ratio = jnp.asarray(shapes, float)[row]
        axis_ratio = jnp.clip(axis_ratio, *p.axis_ratio)
    radius = jnp.clip(radius, p.radius[0], p.radius[2])
    angle = uniform((0.0, np.pi))
    centre = uniform((-p.offset, p.offset), (2,))
    count = jnp.floor(uniform((0.0, p.clumps + 1.0)))
    there = np.arange(p.clumps) + 0.5 < count
    weights = jnp.where(there, uniform((0.5, 1.0), (p.clumps,)), 0)
    share = jnp.where(count > 0, uniform(p.clump_share), 0)
    distance = radius * uniform(p.clump_place, (p.clumps,))
    turn = uniform((0.0, 2 * np.pi), (p.clumps,))
    along, across = distance * jnp.cos(turn), axis_ratio * distance * jnp.sin(turn)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    place = jnp.stack([along * sin + across * cos, along * cos - across * sin], axis=-1)
    return Galaxies(
        flux=p.flux * (1 - share),
        sersic=jnp.clip(index, p.sersic[0], p.sersic[2]),
        radius=radius,
        axis_ratio=axis_ratio,
        angle=angle,
        centre=centre,
        bulge=uniform(p.bulge),
        arms=uniform(p.arms),
        pitch=uniform((0.2, 0.5)),
        phase=uniform((0.0, 2 * np.pi)),
        clump_flux=p.flux * share * weights / jnp.maximum(jnp.sum(weights), 1e-9),
        clump_place=centre[None] + place,
        clump_sigma=uniform(p.clump_sigma, (p.clumps,)),
    )


@functools.partial(jax.jit, static_argnames=("side", "oversampling"))
def render(galaxies: Galaxies, side: int, oversampling: int = 3) -> Float[Array, "n h w"]:
    """Images before any telescope: what falls into every pixel.

    Every part of a galaxy holds exactly its flux inside the stamp.

    Args:
      galaxies: as `draw_galaxies` makes them.
      side: height and width.
      oversampling: samples along the side of a pixel.

    Raises:
      UserError: a side or oversampling below 1.

    References:
      Sersic 1963; Ciotti, Bertin 1999, Astronomy & Astrophysics 352, equation 18.

    >>> drawn = draw_galaxies(jax.random.split(jax.random.key(0), 2), Population())
    >>> render(drawn, 32).sum((1, 2)).round(2).tolist()
    [100.0, 100.0]
    """
    if side < 1 or oversampling < 1:
        raise UserError(f"Expected a side and an oversampling, found {side} and {oversampling}.")
    return jax.vmap(lambda one: _render(one, side, oversampling))(galaxies)


def _render(g: Galaxies, side: int, oversampling: int) -> Array:
    samples = (np.arange(side * oversampling) + 0.5) / oversampling - 0.5 - side // 2
    places = jnp.asarray(samples, g.radius.dtype)
    row, col = places[:, None] - g.centre[0], places[None, :] - g.centre[1]
    cos, sin = jnp.cos(g.angle), jnp.sin(g.angle)
    along, across = col * cos + row * sin, (row * cos - col * sin) / g.axis_ratio
    squared = along**2 + across**2
    disc = _sersic(squared, g.sersic, g.radius) * _spiral(g, along, across, squared)
    bulge = _sersic(squared, jnp.asarray(_BULGE_INDEX, disc.dtype), _BULGE_SIZE * g.radius)
    smooth = (1 - g.bulge) * _unit(disc) + g.bulge * _unit(bulge)
    total = g.flux * rebin(smooth, oversampling)
    if g.clump_flux.shape[0] == 0:
        return total
    # Round Gaussians are products of lines: cheap without samples between pixels.
    lines = [
        _unit_line(places[None] - g.clump_place[:, axis, None], g.clump_sigma[:, None])
        for axis in (0, 1)
    ]
    rows, cols = (line.reshape(-1, side, oversampling).sum(-1) for line in lines)
    return total + jnp.einsum("k,kh,kw->hw", g.clump_flux, rows, cols, precision="highest")


def _sersic(squared: Array, index: Array, radius: Array) -> Array:
    b = 2 * index - 1 / 3 + 4 / (405 * index) + 46 / (25515 * index**2)
    return jnp.exp(-b * ((squared + _SOFT) / radius**2) ** (0.5 / index))


def _spiral(g: Galaxies, along: Array, across: Array, squared: Array) -> Array:
    """Logarithmic arms that fade towards the centre."""
    winding = jnp.log((squared + _SOFT) / g.radius**2) / (2 * jnp.tan(g.pitch))
    wave = jnp.cos(_ARMS * (jnp.arctan2(across, along) - winding) + g.phase)
    return 1 + g.arms * wave * squared / (squared + 0.1 * g.radius**2)


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.sum(x), 1e-30)


def _unit_line(offset: Array, sigma: Array) -> Array:
    line = jnp.exp(-0.5 * (offset / sigma) ** 2)
    return line / jnp.maximum(jnp.sum(line, axis=-1, keepdims=True), 1e-30)
