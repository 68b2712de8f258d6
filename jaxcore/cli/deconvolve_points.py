"""Point sources of ``jaxcore deconvolve --point``: fitted beside an extended image."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcore.cli.deconvolve_inputs import Field, Options
from jaxcore.errors import UserError

POINTS, EXTENDED = "POINTS", "EXTENDED"
"""EXTNAME of the table of the sources, and of the image without them."""
_ROUNDS = 6  # of fitting positions


class Sources(NamedTuple):
    """Point sources of every plane.

    Attributes:
      positions: (n, m, 2), row and column in pixels of the result, from 0.
      fluxes: (n, m), sums of pixels of the result.
    """

    positions: np.ndarray
    fluxes: np.ndarray


def restore_points(
    field: Field, psf: np.ndarray, factor: int, reach: int, options: Options
) -> tuple[dict[str, np.ndarray], Sources]:
    """Images of all steps, in units of the noise, and the sources.

    Raises:
      UserError: the image is too large to be computed at once, or does not hold the points.
    """
    import jax.numpy as jnp

    from jaxcore.models.deconvolution.chain import FWHM, chain_points
    from jaxcore.models.deconvolution.fields import continued, placed_psfs, plan_tiles

    count, h, w = field.planes.shape
    if max(h, w) > options.tile:
        raise UserError(
            f"Expected an image of at most {options.tile} pixels a side for --point, found "
            f"{h} x {w}: cut it out, or raise --tile."
        )
    xy = np.array(options.points, float)
    outside = ~((xy >= 0.5) & (xy <= [w + 0.5, h + 0.5])).all(1)
    if outside.any():
        x, y = xy[outside][0]
        raise UserError(
            f"Expected --point X Y inside the image, from 1 to {w} and from 1 to {h}, found "
            f"{x:g} {y:g}."
        )
    # The middle of the first pixel is 1 in FITS; that of the first finer ones lies before it.
    places = (xy[:, ::-1] - 0.5) * factor - 0.5
    block = plan_tiles((h, w), reach).block
    grid = (block[0] * factor, block[1] * factor)
    run = chain_points(
        target=options.fwhm or FWHM,
        fit_rounds=_ROUNDS if options.fit_points else 0,
        debias=options.steps[-1] == "debias",
        details=options.details,
    )
    weights = None
    if field.weights is not None:
        weights = jnp.asarray(continued(field.weights, block), jnp.float32)
    placed = np.broadcast_to(placed_psfs(psf, grid), (count, *grid))
    parts, found = run(
        jnp.asarray(continued(field.planes, block), jnp.float32),
        jnp.asarray(placed, jnp.float32),
        weights,
        jnp.asarray(np.broadcast_to(places, (count, *places.shape)), jnp.float32),
    )
    sides = (slice(h * factor), slice(w * factor))
    images = {name: np.array(part)[(..., *sides)] for name, part in parts.items()}
    fluxes = np.asarray(found.fluxes, float) * field.sigma[:, None]
    return images, Sources(np.asarray(found.positions, float), fluxes)


def table(sources: Sources, header: Any, scale: float) -> Mapping[str, np.ndarray]:
    """Columns for a table, with places on the sky if the result has some."""
    from jaxcore.data.astro import sky

    count, m = sources.fluxes.shape
    y, x = (sources.positions[..., axis].ravel() + 1 for axis in (0, 1))
    columns = {"PLANE": np.repeat(np.arange(count), m), "X": x, "Y": y}
    coordinates = sky(header)
    if coordinates is not None:
        ra, dec = coordinates.all_pix2world(x, y, 1)
        columns |= {"RA": np.asarray(ra), "DEC": np.asarray(dec)}
    return {**columns, "FLUX": sources.fluxes.ravel() * scale}


def lines(columns: Mapping[str, np.ndarray]) -> list[str]:
    """What the user is told of the first sources."""
    told = [
        f"point source {i} at {x:.2f} {y:.2f}, flux {flux:.6g}"
        for i, (x, y, flux) in enumerate(
            zip(columns["X"], columns["Y"], columns["FLUX"], strict=True), 1
        )
    ]
    more = [f"... {len(told) - 8} more, HDU {POINTS}"] * (len(told) > 8)
    return told[:8] + more
