"""PyWavelets' stationary wavelet transforms of images, compiled: another dictionary than starlets.

Images lie in the last two axes and are periodic; planes stand before them, finest first, three of
each scale (details along rows, columns and both), the coarse one last.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pywt
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.ops.starlet import Boundary

_pywt: Any = pywt  # ships no types

PARTS = 3
"""Planes of every scale: horizontal, vertical and diagonal details."""


class Stationary(NamedTuple):
    """A transform, for functions that take one with all its choices; see `Starlet`.

    >>> Stationary(2, "haar").planes(jnp.zeros((8, 8))).shape
    (7, 8, 8)
    """

    n_scales: int
    wavelet: str = "db2"

    @property
    def per_scale(self) -> int:
        """Planes of every scale."""
        return PARTS

    @property
    def boundary(self) -> Boundary:
        """What is beyond the borders."""
        return "wrap"

    def planes(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b j h w"]:
        """See `stationary`."""
        return stationary(x, self.n_scales, self.wavelet)

    def image(self, planes: Float[Array, "*b j h w"]) -> Float[Array, "*b h w"]:
        """See `inverse_stationary`."""
        return inverse_stationary(planes, self.wavelet)

    def norms(self) -> np.ndarray:
        """Standard deviation of every plane of white noise of standard deviation one.

        >>> Stationary(1, "db2").norms().round(6).tolist()
        [1.0, 1.0, 1.0]
        """
        return np.concatenate([_norms_of_scale(_bank(self.wavelet), j) for j in self._scales()])

    def noise_maps(self, variance: Float[Array, "*b h w"]) -> Float[Array, "*b j h w"]:
        """Not known here.

        Raises:
          UserError: always.
        """
        raise UserError("Expected one noise level for stationary wavelets, found a variance map.")

    def transfer(self, shape: tuple[int, int]) -> Float[np.ndarray, "j h w2"]:
        """Modulus of every plane's transfer function on a periodic image, as ``rfft2`` orders it.

        Args:
          shape: height and width.
        """
        rows, cols = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
        lows = [np.ones_like(rows), np.ones_like(cols)]
        out = []
        for scale in self._scales():
            low, high = (
                [_response(line, 2**scale, f) for f in (rows, cols)]
                for line in _bank(self.wavelet)[:2]
            )
            sides = ((high, low), (low, high), (high, high))
            out += [np.outer(lows[0] * a[0], lows[1] * b[1]) for a, b in sides]
            lows = [base * part for base, part in zip(lows, low, strict=True)]
        return np.stack(out)

    def _scales(self) -> range:
        return range(self.n_scales)


def _bank(name: str) -> tuple[np.ndarray, ...]:
    """Filters of a wavelet: low and high of the analysis, then of the reconstruction."""
    if name not in _pywt.wavelist(kind="discrete"):
        raise UserError(f"Expected a discrete wavelet of PyWavelets, such as db2, found {name!r}.")
    return tuple(np.array(line) for line in _pywt.Wavelet(name).filter_bank)


def _response(line: np.ndarray, step: int, frequencies: np.ndarray) -> np.ndarray:
    places = step * np.arange(len(line))
    return np.abs(np.exp(-2j * np.pi * frequencies[:, None] * places) @ line)


def _spread(line: np.ndarray, scale: int) -> np.ndarray:
    taps = np.zeros((len(line) - 1) * 2**scale + 1)
    taps[:: 2**scale] = line
    return taps


def _norms_of_scale(bank: tuple[np.ndarray, ...], scale: int) -> np.ndarray:
    coarse = np.ones(1)
    for before in range(scale):
        coarse = np.convolve(coarse, _spread(bank[0], before))
    low, high = (np.linalg.norm(np.convolve(coarse, _spread(line, scale))) for line in bank[:2])
    return np.array([high * low, low * high, high * high])


def _filter(x: Array, line: np.ndarray, scale: int, axis: int, delay: int) -> Array:
    """``sum_m line[m] x[i + delay - m 2**scale]`` along a periodic axis."""
    step = 2**scale
    parts = [
        jnp.roll(x, m * step - delay, axis) * float(tap) for m, tap in enumerate(line) if tap != 0
    ]
    return functools.reduce(jnp.add, parts)


def _check(shape: tuple[int, ...], n_scales: int) -> None:
    if len(shape) < 2 or n_scales < 1 or any(side % 2**n_scales for side in shape[-2:]):
        raise UserError(
            f"Expected images whose height and width are multiples of {2 ** max(n_scales, 1)} for "
            f"{n_scales} scales, at least one, found the shape {tuple(shape)}."
        )


@functools.partial(jax.jit, static_argnames=("n_scales", "wavelet"))
def stationary(
    x: Float[Array, "*b h w"], n_scales: int, wavelet: str = "db2"
) -> Float[Array, "*b j h w"]:
    """Stationary wavelet transform, with the numbers of ``pywt.swt2``.

    Args:
      x: images in the last two axes, periodic, sides multiples of ``2**n_scales``.
      n_scales: number of scales.
      wavelet: a discrete wavelet of PyWavelets, such as "haar", "db2", "sym4", "bior4.4".

    Returns:
      ``3 n_scales + 1`` planes, finest first: details that ``pywt.swt2`` calls horizontal,
      vertical and diagonal, for each scale, and the coarse plane.

    Raises:
      UserError: unknown wavelet, or sides that do not fit.

    >>> planes = stationary(jnp.ones((8, 8)), 2)
    >>> planes.shape, float(planes[-1, 0, 0].round(3))
    ((7, 8, 8), 4.0)
    """
    _check(x.shape, n_scales)
    low, high = _bank(wavelet)[:2]
    coarse, planes = x, []
    for scale in range(n_scales):
        delay = len(low) * 2**scale // 2

        def along(
            y: Array, line: np.ndarray, axis: int, scale: int = scale, delay: int = delay
        ) -> Array:
            return _filter(y, line, scale, axis, delay)

        rows = [along(coarse, line, -2) for line in (low, high)]
        planes += [along(rows[1], low, -1), along(rows[0], high, -1), along(rows[1], high, -1)]
        coarse = along(rows[0], low, -1)
    return jnp.stack([*planes, coarse], axis=-3)


@functools.partial(jax.jit, static_argnames="wavelet")
def inverse_stationary(
    planes: Float[Array, "*b j h w"], wavelet: str = "db2"
) -> Float[Array, "*b h w"]:
    """The image whose planes these are: the exact inverse of :func:`stationary`.

    Args:
      planes: three of every scale, finest first, and the coarse one.
      wavelet: as in the transform.

    Raises:
      UserError: unknown wavelet, or a number of planes or sides that do not fit.

    >>> x = jnp.arange(64.0).reshape(8, 8)
    >>> bool(jnp.allclose(inverse_stationary(stationary(x, 2)), x, atol=1e-3))
    True
    """
    count = planes.shape[-3] if planes.ndim > 2 else 0
    if count % PARTS != 1:
        raise UserError(f"Expected three planes of every scale and a coarse one, found {count}.")
    n_scales = count // PARTS
    _check(planes.shape, n_scales)
    low, high = _bank(wavelet)[2:]
    image = planes[..., -1, :, :]
    for scale in reversed(range(n_scales)):
        delay = (len(low) // 2 - 1) * 2**scale
        first = PARTS * scale
        horizontal, vertical, diagonal = (planes[..., first + i, :, :] for i in range(PARTS))

        def along(
            lower: Array, upper: Array, axis: int, scale: int = scale, delay: int = delay
        ) -> Array:
            both = [(lower, low), (upper, high)]
            parts = [_filter(y, line, scale, axis, delay) for y, line in both]
            return (parts[0] + parts[1]) / 2

        image = along(along(image, vertical, -1), along(horizontal, diagonal, -1), -2)
    return image
