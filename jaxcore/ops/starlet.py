"""The starlet: the isotropic undecimated wavelet transform with B3 splines, and its noise.

Images lie in the last two axes; planes stand before them, finest first, the coarse one last.
"""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError

Boundary: TypeAlias = Literal["reflect", "symmetric", "wrap", "constant"]
Generation: TypeAlias = Literal[1, 2]

SPLINE = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""The B3 spline, filter of every scale."""
MAD_OF_A_GAUSSIAN = 0.6744897501960817
"""Median of the absolute value of a standard normal number."""


class Starlet(NamedTuple):
    """A transform, for functions that take one with all its choices.

    >>> Starlet(3).planes(jnp.zeros((8, 8))).shape
    (4, 8, 8)
    """

    n_scales: int
    generation: Generation = 1
    boundary: Boundary = "reflect"

    @property
    def per_scale(self) -> int:
        """Planes of every scale."""
        return 1

    def planes(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b j h w"]:
        """See `starlet`."""
        return starlet(x, self.n_scales, self.generation, self.boundary)

    def image(self, planes: Float[Array, "*b j h w"]) -> Float[Array, "*b h w"]:
        """See `inverse_starlet`."""
        return inverse_starlet(planes, self.generation, self.boundary)

    def norms(self) -> np.ndarray:
        """See `starlet_noise_norms`."""
        return starlet_noise_norms(self.n_scales, self.generation)

    def transfer(self, shape: tuple[int, int]) -> np.ndarray:
        """See `starlet_transfer`."""
        return starlet_transfer(shape, self.n_scales, self.generation)

    def noise_maps(self, variance: Float[Array, "*b h w"]) -> Float[Array, "*b j h w"]:
        """See `starlet_noise_maps`."""
        return starlet_noise_maps(variance, *self)


def fold(index: np.ndarray, length: int, boundary: Boundary) -> np.ndarray:
    """Places inside an axis that stand for places outside of it, however far they are.

    Args:
      index: places, negative ones and those behind the end too.
      length: of the axis.
      boundary: "reflect" (about the middle of the border pixel), "symmetric" (about its edge) or
        "wrap"; names as in ``numpy.pad``.

    >>> fold(np.arange(-3, 6), 3, "reflect").tolist()
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    >>> fold(np.arange(-3, 6), 3, "symmetric").tolist()
    [2, 1, 0, 0, 1, 2, 2, 1, 0]
    """
    if boundary == "wrap" or length == 1:
        return index % length
    if boundary == "reflect":
        place = index % (2 * length - 2)
        return np.minimum(place, 2 * length - 2 - place)
    if boundary == "symmetric":
        place = index % (2 * length)
        return np.minimum(place, 2 * length - 1 - place)
    raise UserError(
        f"Expected a boundary that repeats pixels (reflect, symmetric or wrap), found {boundary!r}."
    )


def _pad(x: Array, reach: int, axis: int, boundary: Boundary) -> Array:
    length = x.shape[axis]
    if boundary == "constant":
        pads = [(0, 0)] * x.ndim
        pads[axis] = (reach, reach)
        return jnp.pad(x, pads)
    outside = (np.arange(-reach, 0), np.arange(length, length + reach))
    before, after = (
        jnp.take(x, fold(index, length, boundary), axis=axis, mode="clip") for index in outside
    )
    return jnp.concatenate([before, x, after], axis=axis)


def smooth(
    x: Float[Array, "*b h w"], scale: int, boundary: Boundary = "reflect"
) -> Float[Array, "*b h w"]:
    """Filter both axes with the B3 spline whose five taps are ``2**scale`` pixels apart.

    Args:
      x: images.
      scale: 0 is the finest.
      boundary: see `starlet`.

    >>> smooth(jnp.ones((4, 4)), 3)[0, 0]
    Array(1., dtype=float32)
    """
    step = 2**scale
    for axis in (-2, -1):
        length = x.shape[axis]
        padded = _pad(x, 2 * step, x.ndim + axis, boundary)

        def part(tap: int, padded: Array = padded, length: int = length, axis: int = axis) -> Array:
            return jax.lax.slice_in_dim(padded, tap * step, tap * step + length, axis=axis)

        ends, inner, centre = SPLINE[:3]
        x = (part(0) + part(4)) * ends + (part(1) + part(3)) * inner + part(2) * centre
    return x


def _check(shape: Sequence[int], n_scales: int, generation: int, boundary: str) -> None:
    if len(shape) < 2 or not np.issubdtype(type(n_scales), np.integer) or n_scales < 1:
        raise UserError(
            "Expected images in the last two axes and at least one scale, found the shape "
            f"{tuple(shape)} and {n_scales!r} scales."
        )
    if generation not in (1, 2) or boundary not in ("reflect", "symmetric", "wrap", "constant"):
        raise UserError(
            "Expected generation 1 or 2 and a boundary reflect, symmetric, wrap or constant, "
            f"found {generation!r} and {boundary!r}."
        )


@functools.partial(jax.jit, static_argnames=("n_scales", "generation", "boundary"))
def starlet(
    x: Float[Array, "*b h w"],
    n_scales: int,
    generation: Generation = 1,
    boundary: Boundary = "reflect",
) -> Float[Array, "*b j h w"]:
    """Starlet transform: ``n_scales`` wavelet planes and the coarse plane, all of full size.

    With ``c_0 = x`` and ``c_{j+1} = h_j * c_j`` the wavelet planes are ``c_j - c_{j+1}`` in
    generation 1 and ``c_j - h_j * c_{j+1}`` in generation 2, whose reconstruction makes positive
    images of positive planes.

    Args:
      x: images in the last two axes.
      n_scales: number of wavelet planes; plane ``j`` shows structure of about ``2**j`` pixels.
      generation: 1 or 2.
      boundary: what is beyond the borders: "reflect" (mirrored about the border pixel),
        "symmetric" (about its edge), "wrap" (periodic) or "constant" (zeros).

    Returns:
      ``n_scales + 1`` planes before the axes of the image, finest first, the coarse one last.

    Raises:
      UserError: an argument is out of its range.

    References:
      Starck, Fadili, Murtagh 2007, "The undecimated wavelet decomposition and its
      reconstruction", IEEE Transactions on Image Processing 16.

    >>> x = jnp.zeros((32, 32)).at[16, 16].set(1.0)
    >>> planes = starlet(x, 3)
    >>> planes.shape, bool(jnp.allclose(planes.sum(0), x, atol=1e-6))
    ((4, 32, 32), True)
    """
    _check(x.shape, n_scales, generation, boundary)
    coarse, planes = x, []
    for scale in range(n_scales):
        smoother = smooth(coarse, scale, boundary)
        base = smoother if generation == 1 else smooth(smoother, scale, boundary)
        planes.append(coarse - base)
        coarse = smoother
    return jnp.stack([*planes, coarse], axis=-3)


@functools.partial(jax.jit, static_argnames=("generation", "boundary"))
def inverse_starlet(
    planes: Float[Array, "*b j h w"],
    generation: Generation = 1,
    boundary: Boundary = "reflect",
) -> Float[Array, "*b h w"]:
    """The image whose planes these are: the exact inverse of :func:`starlet`.

    Args:
      planes: wavelet planes, finest first, and the coarse one.
      generation: as in the transform.
      boundary: as in the transform.

    Raises:
      UserError: an argument is out of its range.

    >>> x = jnp.arange(64.0).reshape(8, 8)
    >>> again = inverse_starlet(starlet(x, 2, generation=2), generation=2)
    >>> bool(jnp.allclose(again, x, atol=1e-4))
    True
    """
    _check(planes.shape[:-1], planes.shape[-3] - 1 if planes.ndim > 2 else 0, generation, boundary)
    if generation == 1:
        return jnp.sum(planes, axis=-3)
    image = planes[..., -1, :, :]
    for scale in reversed(range(planes.shape[-3] - 1)):
        image = smooth(image, scale, boundary) + planes[..., scale, :, :]
    return image


def _splines(n_scales: int) -> list[np.ndarray]:
    """In one dimension and without borders: the filter that makes ``c_j``, for ``j`` up to ``n``.

    >>> [len(line) for line in _splines(2)]
    [1, 5, 13]
    """
    lines = [np.ones(1)]
    for scale in range(n_scales):
        lines.append(np.convolve(lines[-1], _spread(scale)))
    return lines


def _spread(scale: int) -> np.ndarray:
    taps = np.zeros(4 * 2**scale + 1)
    taps[:: 2**scale] = SPLINE
    return taps


def _pair(n_scales: int, generation: Generation) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lines ``a`` and ``b`` of equal length: the wavelet of a scale is a x a - b x b."""
    lines, pairs = _splines(n_scales), []
    for scale in range(n_scales):
        b = lines[scale + 1]
        if generation == 2:
            b = np.convolve(b, _spread(scale))
        pairs.append((np.pad(lines[scale], (len(b) - len(lines[scale])) // 2), b))
    return pairs


def starlet_noise_norms(n_scales: int, generation: Generation = 1) -> np.ndarray:
    """Standard deviation of every wavelet plane of white noise with standard deviation 1.

    The norm of each wavelet, in float64 and without borders.

    >>> starlet_noise_norms(3).round(6).tolist()
    [0.890796, 0.200664, 0.085508]
    >>> starlet_noise_norms(3, generation=2).round(6).tolist()
    [0.942883, 0.229989, 0.100292]
    """
    squares = [
        (a @ a) ** 2 - 2 * (a @ b) ** 2 + (b @ b) ** 2 for a, b in _pair(n_scales, generation)
    ]
    return np.sqrt(np.array(squares))


def starlet_transfer(
    shape: tuple[int, int], n_scales: int, generation: Generation = 1
) -> Float[np.ndarray, "j h w2"]:
    """Transfer function of every wavelet on a periodic image, real, as ``rfft2`` orders it.

    Args:
      shape: height and width of the image.
      n_scales: number of wavelet planes.
      generation: 1 or 2.

    >>> starlet_transfer((8, 6), 2).shape
    (2, 8, 4)
    """
    angles = 2 * np.pi * np.fft.fftfreq(shape[0]), 2 * np.pi * np.fft.rfftfreq(shape[1])
    ends, inner, centre = SPLINE[:3]
    low, out = np.ones((shape[0], shape[1] // 2 + 1)), []
    for scale in range(n_scales):
        rows, cols = (
            centre + 2 * inner * np.cos(2**scale * a) + 2 * ends * np.cos(2 * 2**scale * a)
            for a in angles
        )
        filtered = low * rows[:, None] * cols
        out.append(low - (filtered if generation == 1 else filtered * rows[:, None] * cols))
        low = filtered
    return np.stack(out)


@functools.partial(jax.jit, static_argnames=("n_scales", "generation", "boundary"))
def starlet_noise_maps(
    variance: Float[Array, "*b h w"],
    n_scales: int,
    generation: Generation = 1,
    boundary: Boundary = "reflect",
) -> Float[Array, "*b j h w"]:
    """Standard deviation of every wavelet coefficient of independent noise.

    The variance map is filtered with the square of each wavelet. Close to the borders mirrored
    pixels count as independent ones.

    Args:
      variance: of the noise of every pixel.
      n_scales: number of wavelet planes.
      generation: 1 or 2.
      boundary: as in `starlet`.

    >>> maps = starlet_noise_maps(jnp.full((32, 32), 4.0), 2)
    >>> bool(jnp.allclose(maps[:, 16, 16], 2 * starlet_noise_norms(2)))
    True
    """
    _check(variance.shape, n_scales, generation, boundary)

    def filtered(line: np.ndarray) -> Array:
        out = variance
        for axis in (-2, -1):
            matrix = jnp.asarray(_matrix(line, out.shape[axis], boundary), out.dtype)
            product = jnp.matmul(jnp.moveaxis(out, axis, -1), matrix.T, precision="highest")
            out = jnp.moveaxis(product, -1, axis)
        return out

    planes = [
        filtered(a * a) - 2 * filtered(a * b) + filtered(b * b)
        for a, b in _pair(n_scales, generation)
    ]
    return jnp.sqrt(jnp.maximum(jnp.stack(planes, axis=-3), 0))


def _matrix(line: np.ndarray, length: int, boundary: Boundary) -> np.ndarray:
    """Filter of one axis as a matrix, borders folded in."""
    reach = len(line) // 2
    rows = np.broadcast_to(np.arange(length)[:, None], (length, len(line)))
    places = rows + np.arange(-reach, reach + 1)
    values = np.broadcast_to(line, places.shape)
    if boundary == "constant":
        inside = (places >= 0) & (places < length)
        rows, places, values = rows[inside], places[inside], values[inside]
    else:
        places = fold(places, length, boundary)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (rows, places), values)
    return matrix


@functools.partial(jax.jit, static_argnames="boundary")
def mad_sigma(x: Float[Array, "*b h w"], boundary: Boundary = "reflect") -> Float[Array, "*b"]:
    """Standard deviation of white noise in images, from the finest plane of their starlets.

    The median of the absolute deviations from the median, over its value for a normal
    distribution and the norm of the wavelet. NaN pixels do not count, nor do their neighbours.

    Args:
      x: images in the last two axes.
      boundary: see `starlet`.

    Returns:
      One number per image, in its units.

    >>> noise = jax.random.normal(jax.random.key(0), (128, 128))
    >>> 0.98 < float(mad_sigma(3 * noise)) / 3 < 1.02
    True
    """
    finest = (x - smooth(x, 0, boundary)).reshape(*x.shape[:-2], -1)
    deviation = jnp.abs(finest - jnp.nanmedian(finest, axis=-1, keepdims=True))
    scale = 1 / (MAD_OF_A_GAUSSIAN * float(starlet_noise_norms(1)[0]))
    return jnp.nanmedian(deviation, axis=-1) * scale
