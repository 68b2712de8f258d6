"""Sparse deconvolution: a sum of few positive or negative splines of all sizes."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jaxcore.errors import UserError
from jaxcore.ops.grids import factor_between, rebin, replicate
from jaxcore.ops.spectra import aligned, convolve, correlate, power, psf_to_tf
from jaxcore.ops.starlet import Starlet, inverse_starlet


def _atoms(tf: Complex[Array, "*b h w2"], shape: tuple[int, int], starlet: Starlet) -> Array:
    """The blurred atom of every plane, about the middle of the image."""
    h, w = shape
    planes = starlet.n_scales + 1
    points = jnp.zeros((planes, planes, h, w), tf.real.dtype)
    points = points.at[jnp.arange(planes), jnp.arange(planes), h // 2, w // 2].set(1)
    atoms = inverse_starlet(points, 2, starlet.boundary)
    tf = tf[..., None, :, :]
    return convolve(jnp.broadcast_to(atoms, (*tf.shape[:-3], *atoms.shape)), tf)


def penalties(
    y: Float[Array, "*b h w"],
    tf: Complex[Array, "*b h2 w3"],
    sigma: float | Float[Array, "*b"],
    k: float,
    k_first: float,
    starlet: Starlet,
    weights: Float[Array, "*b h w"] | None = None,
) -> tuple[Float[Array, "*b j h2 w2"], Float[Array, "*b j h3 w4"]]:
    """Coefficients of zero to start from, and the weight of their absolute values.

    The weight is ``k`` standard deviations of what noise gives to the correlation with an atom,
    one for each plane unless pixels have weights of their own; that of the coarse plane is 0.
    """
    batch, (h, w) = y.shape[:-2], (tf.shape[-2], y.shape[-1] * tf.shape[-2] // y.shape[-2])
    # Sums of pixels have about the norm of the pixels times their number along an axis.
    factor = h // y.shape[-2]
    squares = _atoms(tf, (h, w), starlet).astype(y.dtype) ** 2
    sums = jnp.sum(squares, axis=(-2, -1), keepdims=True)
    if weights is not None:
        certain = replicate(aligned(weights, y.ndim), factor)[..., None, :, :].astype(y.dtype)
        sums = jnp.maximum(correlate(certain, psf_to_tf(squares)), 0)
    strength = jnp.full(starlet.n_scales + 1, k, y.dtype).at[0].set(k_first).at[-1].set(0)
    limits = jnp.sqrt(sums) * factor * aligned(strength[:, None, None], sums.ndim)
    level = jnp.broadcast_to(jnp.asarray(sigma, y.dtype), batch)[..., None, None, None]
    start = jnp.zeros((*batch, starlet.n_scales + 1, h, w), y.dtype)
    return start, aligned(limits, y.ndim + 1) * level


def compose(planes: Float[Array, "*b j h w"], starlet: Starlet) -> Float[Array, "*b h w"]:
    """The sum of splines that coefficients stand for."""
    return inverse_starlet(planes, 2, starlet.boundary)


def difference_to(
    y: Float[Array, "*b h w"], weights: Float[Array, "*b h w"] | None
) -> Callable[[Array], Array]:
    """What observations have more than a model of them, times the weights of their pixels."""
    if weights is None:
        return lambda model: y - model
    certain = aligned(weights, y.ndim).astype(y.dtype)
    known = jnp.where(certain > 0, y, 0)
    return lambda model: certain * (known - model)


def shrink(values: Array, limit: Array, positivity: bool, background: bool = False) -> Array:
    """Nearer to zero by ``limit``, and not below it if values are positive.

    With ``background`` the last plane, the coarse one, may be negative all the same.

    >>> shrink(jnp.array([-3.0, 0.5, 3.0]), jnp.array([1.0]), positivity=False).tolist()
    [-2.0, 0.0, 2.0]
    """
    if not positivity:
        return jnp.maximum(jnp.abs(values) - limit, 0) * jnp.sign(values)
    if not background:
        return jnp.maximum(values - limit, 0)
    floor = jnp.zeros((*[1] * (values.ndim - 3), values.shape[-3], 1, 1), values.dtype)
    return jnp.maximum(values - limit, floor.at[..., -1, :, :].set(-jnp.inf))


T = TypeVar("T")


def fista(descend: Callable[[T], T], start: T, n_iter: int, momentum: bool = True) -> T:
    """Repeat a step of proximal gradient descent, each from a point ahead of the last one.

    Args:
      descend: one step, of a tree of arrays.
      start: where to start.
      n_iter: number of steps.
      momentum: False repeats the plain step.

    >>> round(float(fista(lambda x: x - 0.5 * (x - 3), jnp.zeros(()), 40)), 4)
    3.0
    """

    def iterate(_: int, carry: tuple[T, T, Array]) -> tuple[T, T, Array]:
        old, ahead, t = carry
        new = descend(ahead)
        if not momentum:
            return new, new, t
        faster = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        share = (t - 1) / faster
        ahead = jax.tree.map(lambda a, b: a + share.astype(a.dtype) * (a - b), new, old)
        return new, ahead, faster

    return jax.lax.fori_loop(0, n_iter, iterate, (start, start, jnp.ones((), float)))[0]


@functools.partial(
    jax.jit, static_argnames=("starlet", "n_iter", "positivity", "background", "momentum")
)
def sparse_starlet(
    y: Float[Array, "*b h w"],
    psf: Float[Array, "*b h2 w2"],
    *,
    sigma: float | Float[Array, "*b"] | None = None,
    k: float = 1.0,
    k_first: float = 1.0,
    n_iter: int = 200,
    positivity: bool = True,
    background: bool = False,
    momentum: bool = True,
    weights: Float[Array, "*b h w"] | None = None,
    target_psf: Float[Array, "*b h2 w2"] | None = None,
    starlet: Starlet = Starlet(4, 2),
) -> Float[Array, "*b h2 w2"]:
    """Minimise ``|y - h * x|^2 / 2 sigma^2 + sum_j k_j W_j |a_j|`` for ``x`` of coefficients ``a``.

    ``x`` is the reconstruction from starlet planes of generation 2, a sum of splines, which
    positive coefficients make positive; the coarse plane is free. ``W_j`` is the standard
    deviation that noise gives to the gradient of a coefficient.

    Args:
      y: observations.
      psf: on the grid of the restored image; see `restore_tikhonov`.
      sigma: standard deviation of the noise in a pixel of ``y``.
      k: weight of the coefficients, in standard deviations of the noise.
      k_first: the same for the finest plane.
      n_iter: number of steps; after 50 large structure is there, after 200 small.
      positivity: keep coefficients from getting negative.
      background: let the coarse plane get negative: needed where the sky may be, and it keeps the
        flux of faint images from growing; a little more noise passes.
      momentum: FISTA; False is ISTA, which needs many more steps.
      weights: of the pixels of ``y``, from 0 to 1, the least variance over that of the pixel; 0
        for those that are missing (which may be NaN); None for 1.
      target_psf: the PSF that the restored image shall have; None for none. Structure below two
        pixels cannot be found: a Gaussian of two pixels is sensible.
      starlet: the planes; generation 2 is always used.

    Raises:
      UserError: there is no noise level.

    References:
      Beck, Teboulle 2009, "A fast iterative shrinkage-thresholding algorithm for linear inverse
      problems"; Starck, Fadili, Murtagh 2007 for positive reconstructions.

    >>> from jaxcore.models.deconvolution import gaussian_psf
    >>> psf = jnp.asarray(gaussian_psf((32, 32), 4.0), "float32")
    >>> y = convolve(jnp.zeros((32, 32)).at[16, 16].set(100.0), psf_to_tf(psf))
    >>> bool(sparse_starlet(y, psf, sigma=0.1)[16, 16] > 2 * y[16, 16])
    True
    """
    if sigma is None:
        raise UserError("Expected sigma, the noise level, for the sparse method, found none.")
    factor, tf = factor_between(y.shape, psf.shape), psf_to_tf(psf)
    start, limit = penalties(y, tf, sigma, k, k_first, starlet, weights)
    difference = difference_to(y, weights)
    step = 1 / (jnp.max(power(tf)) * factor**2 * (starlet.n_scales + 1))

    def seen(planes: Array) -> Array:
        return rebin(convolve(compose(planes, starlet), tf), factor)

    back = jax.linear_transpose(seen, start)

    def descend(planes: Array) -> Array:
        moved = planes + step * back(difference(seen(planes)))[0]
        return shrink(moved, step * limit, positivity, background)

    x = compose(fista(descend, start, n_iter, momentum), starlet)
    return x if target_psf is None else convolve(x, psf_to_tf(target_psf))
