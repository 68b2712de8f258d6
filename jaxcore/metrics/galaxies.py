"""How well images of galaxies are restored: errors, photometry, residuals, shapes, clumps.

Images lie in the last two axes; leading axes are those of a batch.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.ops.starlet import MAD_OF_A_GAUSSIAN, starlet

_LEAST_PIXELS = 4  # of a clump


def nmse(image: Float[Array, "*b h w"], target: Float[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Squared error over the squared norm of the target.

    >>> float(nmse(jnp.ones((4, 4)), jnp.full((4, 4), 2.0)))
    0.25
    """
    error = jnp.sum((image - target) ** 2, axis=(-2, -1))
    return error / jnp.sum(target**2, axis=(-2, -1))


def aperture(
    shape: tuple[int, ...], radius: float, centre: tuple[float, float] | None = None
) -> Float[np.ndarray, "h w"]:
    """Share of every pixel inside a circle, from 5 x 5 samples of each.

    Args:
      shape: of the images; the last two sides are used.
      radius: pixels.
      centre: row and column; None is the middle pixel ``(h // 2, w // 2)``.

    >>> float(aperture((8, 8), 1.0).sum().round(1))
    3.2
    """
    h, w = shape[-2:]
    middle = (h // 2, w // 2) if centre is None else centre
    rows, cols = (
        (np.arange(5 * n) + 0.5) / 5 - 0.5 - place for n, place in zip((h, w), middle, strict=True)
    )
    inside = rows[:, None] ** 2 + cols[None, :] ** 2 <= radius**2
    return inside.reshape(h, 5, w, 5).mean((1, 3))


def aperture_flux(
    image: Float[Array, "*b h w"], radius: float, centre: tuple[float, float] | None = None
) -> Float[Array, "*b"]:
    """Sum inside a circle, border pixels by their share; nothing is subtracted.

    Args:
      image: without background.
      radius: pixels.
      centre: row and column; None is the middle pixel.

    >>> float(aperture_flux(jnp.ones((9, 9)), 2.0).round(1))
    12.5
    """
    weights = jnp.asarray(aperture(image.shape, radius, centre), image.dtype)
    return jnp.einsum("...hw,hw->...", image, weights, precision="highest")


def flux_error(
    image: Float[Array, "*b h w"], target: Float[Array, "*b h w"], radius: float
) -> Float[Array, "*b"]:
    """Flux inside a circle over that of the target, minus one.

    >>> round(float(flux_error(jnp.full((9, 9), 0.9), jnp.ones((9, 9)), 3.0)), 3)
    -0.1
    """
    return aperture_flux(image, radius) / aperture_flux(target, radius) - 1


def magnitude_error(flux_error: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Difference in magnitudes that a relative flux error makes; positive is too faint.

    >>> round(float(magnitude_error(jnp.array(-0.1))), 4)
    0.1144
    """
    return -2.5 * jnp.log10(jnp.maximum(1 + flux_error, 1e-6))


def reduced_chi2(
    residual: Float[Array, "*b h w"],
    sigma: float | Float[Array, "*b"],
    radius: float | None = None,
) -> Float[Array, "*b"]:
    """Mean of the squared residual over its variance: 1 where only noise is left.

    Args:
      residual: observation minus blurred restored image.
      sigma: standard deviation of the noise in a pixel.
      radius: of a circle in the middle that alone counts, pixels; None counts all.

    >>> float(reduced_chi2(jnp.full((4, 4), 2.0), 2.0))
    1.0
    """
    shape = residual.shape
    weights = np.ones(shape[-2:]) if radius is None else aperture(shape, radius)
    weights = jnp.asarray(weights / weights.sum(), residual.dtype)
    mean = jnp.einsum("...hw,hw->...", residual**2, weights, precision="highest")
    return mean / jnp.asarray(sigma, residual.dtype) ** 2


def autocorrelation(residual: Float[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Correlation of neighbouring pixels, mean of rows and columns: about 0 for white noise.

    >>> float(autocorrelation(jnp.tile(jnp.array([1.0, -1.0]), (4, 2))))
    0.0
    """
    r = residual - jnp.mean(residual, axis=(-2, -1), keepdims=True)
    power = jnp.mean(r**2, axis=(-2, -1))
    both = [jnp.mean(r * jnp.roll(r, 1, axis), axis=(-2, -1)) for axis in (-2, -1)]
    return (both[0] + both[1]) / 2 / jnp.maximum(power, 1e-30)


@functools.partial(jax.jit, static_argnames="radius")
def half_light_radius(image: Float[Array, "*b h w"], radius: float) -> Float[Array, "*b"]:
    """Radius of the circle about the middle that holds half of the flux inside a larger one.

    Args:
      image: without background.
      radius: of the larger circle, pixels.

    >>> disc = aperture((41, 41), 10.0)
    >>> round(float(half_light_radius(jnp.asarray(disc, "float32"), 15.0)), 1)
    7.1
    """
    radii = np.linspace(0, radius, max(int(4 * radius), 8) + 1)[1:]
    circles = np.stack([aperture(image.shape, float(r)) for r in radii])
    weights = jnp.asarray(circles, image.dtype)
    grown = jnp.einsum("...hw,rhw->...r", image, weights, precision="highest")
    share = grown / grown[..., -1:]
    above = jnp.argmax(share >= 0.5, axis=-1)
    below = jnp.maximum(above - 1, 0)
    low, high = (
        jnp.take_along_axis(share, index[..., None], axis=-1)[..., 0] for index in (below, above)
    )
    step = float(radii[0])
    part = jnp.where(high > low, (0.5 - low) / jnp.where(high > low, high - low, 1), 0)
    return step * (below.astype(image.dtype) + 1 + jnp.where(above > 0, part, 0))


class Ellipticity(NamedTuple):
    """Two components of ``(1 - q^2) / (1 + q^2)``, along columns and along the diagonal."""

    e1: Float[Array, "*b"]
    e2: Float[Array, "*b"]


@functools.partial(jax.jit, static_argnames="n_iter")
def ellipticity(image: Float[Array, "*b h w"], sigma: float = 4.0, n_iter: int = 20) -> Ellipticity:
    """Shape from adaptive second moments: an elliptical Gaussian weight that fits itself.

    Args:
      image: about the middle, without background.
      sigma: of the weight to begin with, pixels.
      n_iter: of the fit.

    References:
      Bernstein, Jarvis 2002, Astronomical Journal 123; Hirata, Seljak 2003.

    >>> rows, cols = jnp.mgrid[-20.0:21.0, -20.0:21.0]
    >>> round_one = jnp.exp(-(rows**2 + cols**2) / 18.0)
    >>> bool(jnp.abs(jnp.stack(ellipticity(round_one))).max() < 1e-3)
    True
    """
    h, w = image.shape[-2:]
    rows, cols = jnp.mgrid[0:h, 0:w]
    places = jnp.stack([cols - w // 2, rows - h // 2]).astype(image.dtype)

    def one(image: Array) -> Array:
        def iterate(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            centre, moments = carry
            offset = places - centre[:, None, None]
            inverse = jnp.linalg.inv(moments)
            distance = jnp.einsum("ihw,ij,jhw->hw", offset, inverse, offset)
            weighted = image * jnp.exp(-0.5 * distance)
            total = jnp.maximum(jnp.sum(weighted), 1e-30)
            shift = jnp.einsum("ihw,hw->i", offset, weighted) / total
            second = 2 * jnp.einsum("ihw,jhw,hw->ij", offset, offset, weighted) / total
            second = second + 0.05 * jnp.eye(2, dtype=second.dtype)
            sane = jnp.isfinite(second).all() & (jnp.linalg.det(second) > 1e-3)
            sane = sane & (jnp.abs(centre + shift) < min(h, w) / 4).all()
            return (
                jnp.where(sane, centre + shift, centre),
                jnp.where(sane, second, moments),
            )

        start = (jnp.zeros(2, image.dtype), sigma**2 * jnp.eye(2, dtype=image.dtype))
        return jax.lax.fori_loop(0, n_iter, iterate, start)[1]

    flat = jax.vmap(one)(image.reshape(-1, h, w))
    moments = flat.reshape(*image.shape[:-2], 2, 2)
    trace = moments[..., 0, 0] + moments[..., 1, 1]
    return Ellipticity(
        (moments[..., 0, 0] - moments[..., 1, 1]) / trace, 2 * moments[..., 0, 1] / trace
    )


class Clumps(NamedTuple):
    """Clumps of one image."""

    places: Float[np.ndarray, "n 2"]  # row and column
    fluxes: Float[np.ndarray, " n"]  # sum of the fine structure of their pixels


@jax.jit
def _fine_structure(image: Array) -> Array:
    planes = starlet(image, 4)
    return planes[..., 1, :, :] + planes[..., 2, :, :]


def detect_clumps(
    image: Float[np.ndarray, "h w"],
    *,
    k: float = 5.0,
    contrast: float = 0.15,
    centre: tuple[float, float] | None = None,
    exclude: float = 2.5,
    smallest: int = _LEAST_PIXELS,
) -> Clumps:
    """Local maxima of the second and third starlet plane together that stand out.

    The noise is that of these planes themselves, from the median of their absolute values, so that
    the correlated noise of restored images counts as it is. Most of the image must be sky.

    Args:
      image: restored.
      k: how many standard deviations a maximum must reach.
      contrast: which share of the largest value of the planes it must reach, too.
      centre: row and column of the nucleus; None is the middle pixel.
      exclude: radius around it whose maxima do not count, pixels.
      smallest: connected pixels above the limit that make a clump.

    Returns:
      Places of the maxima, the brightest first.

    Raises:
      UserError: not one image.

    >>> image = np.zeros((33, 33))
    >>> image[19:22, 23:26] = 50.0
    >>> detect_clumps(image).places.tolist()
    [[20.0, 24.0]]
    """
    from scipy import ndimage

    image = np.asarray(image, np.float32)
    if image.ndim != 2:
        raise UserError(f"Expected one image, found an array of the shape {image.shape}.")
    fine = np.asarray(_fine_structure(jnp.asarray(image)))
    noise = float(np.median(np.abs(fine))) / MAD_OF_A_GAUSSIAN
    limit = max(k * noise, contrast * float(fine.max()), 1e-12)
    labelled: Any = ndimage.label(fine > limit)
    labels, count = labelled
    if not count:
        return Clumps(np.zeros((0, 2)), np.zeros(0))
    sizes = ndimage.sum_labels(np.ones_like(fine), labels, np.arange(1, count + 1))
    large = np.concatenate([[False], sizes >= smallest])
    rows, cols = np.nonzero((fine == ndimage.maximum_filter(fine, 3)) & large[labels])
    middle = (image.shape[0] // 2, image.shape[1] // 2) if centre is None else centre
    away = np.hypot(rows - middle[0], cols - middle[1]) > exclude
    rows, cols = rows[away], cols[away]
    order = np.argsort(-fine[rows, cols])
    fluxes = ndimage.uniform_filter(np.maximum(fine, 0), 3)[rows, cols] * 9
    return Clumps(np.stack([rows, cols], 1)[order].astype(float), fluxes[order])


class Matches(NamedTuple):
    """Detected clumps against those that are there."""

    found: int  # of those that are there
    present: int
    right: int  # of those detected
    detected: int


def match_clumps(
    detected: Float[np.ndarray, "n 2"], present: Float[np.ndarray, "m 2"], distance: float = 2.0
) -> Matches:
    """Count clumps with a partner within a distance.

    Args:
      detected: places.
      present: places of those that are there.
      distance: pixels.

    >>> match_clumps(np.array([[1.0, 1.0], [9.0, 9.0]]), np.array([[2.0, 1.0]]))
    Matches(found=1, present=1, right=1, detected=2)
    """
    apart = np.linalg.norm(detected[:, None] - present[None], axis=-1)
    near = apart <= distance
    return Matches(int(near.any(0).sum()), len(present), int(near.any(1).sum()), len(detected))
