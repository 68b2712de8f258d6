"""Bands of a sensor, and the standardisation of images and tables before a network sees them."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError


@dataclasses.dataclass(frozen=True)
class BandSpec:
    """Which bands images have, in order, and what their numbers mean: ``scale * stored + offset``.

    >>> landsat = BandSpec(("red", "nir"), scale=2.75e-5, offset=-0.2)
    >>> landsat.select(("nir",)).names, landsat.physical(np.array([[10_000, 20_000]])).round(3)
    (('nir',), array([[0.075, 0.35 ]], dtype=float32))
    """

    names: tuple[str, ...]
    scale: float | tuple[float, ...] = 1.0  # of every band, or of each
    offset: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names or len(set(self.names)) != len(self.names):
            raise UserError(f"Expected different names of bands, found {list(self.names)}.")
        for what in ("scale", "offset"):
            value = getattr(self, what)
            if np.size(value) not in (1, len(self.names)) or not np.all(np.isfinite(value)):
                raise UserError(
                    f"Expected one finite {what}, or one for each of {len(self.names)} bands, "
                    f"found {value}."
                )
            if np.ndim(value):
                object.__setattr__(self, what, tuple(map(float, value)))

    def check(self, bands: int) -> None:
        """Refuse images with another number of bands.

        Raises:
          UserError: with both numbers.
        """
        if bands != len(self.names):
            raise UserError(
                f"Expected images of {len(self.names)} bands ({', '.join(self.names)}), found "
                f"{bands}."
            )

    def physical(self, images: np.ndarray) -> Float[np.ndarray, "*b h w c"]:
        """Stored numbers as float32 in physical units; bands are the last axis."""
        self.check(images.shape[-1])
        scale, offset = (np.asarray(v, np.float64) for v in (self.scale, self.offset))
        return (images * scale + offset).astype(np.float32)

    def places(self, names: Sequence[str]) -> tuple[int, ...]:
        """Numbers of some bands.

        Raises:
          UserError: one that is not here.
        """
        absent = [name for name in names if name not in self.names]
        if absent:
            raise UserError(
                f"Expected bands of {', '.join(self.names)}, found {', '.join(absent)}."
            )
        return tuple(self.names.index(name) for name in names)

    def select(self, names: Sequence[str]) -> "BandSpec":
        """The same for some of the bands, in the order given."""
        places = self.places(names)
        parts = [
            tuple(np.broadcast_to(value, len(self.names))[list(places)].tolist())
            for value in (self.scale, self.offset)
        ]
        return BandSpec(tuple(names), *parts)


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of every band.

    >>> Moments((2.0,), (4.0,)).standardise(np.array([[6.0]])).tolist()
    [[1.0]]
    """

    mean: tuple[float, ...]
    sd: tuple[float, ...]

    def standardise(self, images: np.ndarray) -> Float[np.ndarray, "*b h w c"]:
        """Images less the mean, over the standard deviation, in float32.

        Raises:
          UserError: another number of bands.
        """
        if images.shape[-1] != len(self.mean):
            raise UserError(f"Expected images of {len(self.mean)} bands, found {images.shape[-1]}.")
        mean, sd = np.asarray(self.mean, np.float32), np.asarray(self.sd, np.float32)
        return (images.astype(np.float32) - mean) / sd


def moments(batches: Iterable[np.ndarray]) -> Moments:
    """Mean and standard deviation of bands from batches of images, as causalimages takes them.

    The mean is that of the batches' means. The variance is the mean of the batches' variances
    (n - 1, over all pixels of all images) and ``1 + 1/m`` times the variance of the m means: that
    of multiple imputation, a little more than the variance of the pixels. One pass; memory of one
    batch.

    Args:
      batches: arrays of images, bands last; of any sizes.

    Raises:
      UserError: no batch, another number of bands, missing pixels, or a band without variation.

    >>> moments([np.array([[0.0], [2.0]]), np.array([[0.0], [2.0]])])
    Moments(mean=(1.0,), sd=(1.4142135623730951,))
    """
    means, variances = [], []
    for batch in batches:
        pixels = np.asarray(batch, np.float64).reshape(-1, np.shape(batch)[-1])
        if means and pixels.shape[1] != len(means[0]):
            raise UserError(f"Expected images of {len(means[0])} bands, found {pixels.shape[1]}.")
        if len(pixels) < 2:
            raise UserError("Expected batches of at least two pixels, found a smaller one.")
        means.append(pixels.mean(axis=0))
        variances.append(pixels.var(axis=0, ddof=1))
    if not means:
        raise UserError("Expected at least one batch of images, found none.")
    m = len(means)
    between = np.var(means, axis=0, ddof=1) if m > 1 else 0.0
    sd = np.sqrt(np.mean(variances, axis=0) + (1 + 1 / m) * between)
    if not np.all(np.isfinite(sd)):
        raise UserError("Expected images without missing pixels, found some.")
    if not np.all(sd > 0):
        flat = [str(i) for i in np.flatnonzero(~(sd > 0))]
        raise UserError(f"Expected bands that vary, found band {', '.join(flat)} constant.")
    return Moments(tuple(np.mean(means, axis=0).tolist()), tuple(sd.tolist()))


def moments_of(images: Any, *, batches: int = 34, batch_size: int = 16, seed: int = 0) -> Moments:
    """`moments` of random batches of a set of images, which may be larger than memory.

    Args:
      images: anything with a length (``shape[0]``) that gives images for an array of rows.
      batches: how many; all images are taken where they are fewer than these hold.
      batch_size: images in each.
      seed: of the choice.

    >>> moments_of(np.arange(8.0).reshape(2, 2, 2, 1), batch_size=1).mean
    (3.5,)
    """
    n = int(images.shape[0])
    rows = np.random.default_rng(seed).permutation(n)[: batches * batch_size]
    starts = range(0, len(rows), batch_size)
    return moments(images[np.sort(rows[start : start + batch_size])] for start in starts)


def standardise_table(X: np.ndarray) -> Float[np.ndarray, "n p"]:
    """Columns less their means, over 0.001 and their standard deviations (n - 1), in [-4, 4].

    Raises:
      UserError: missing values, or a constant column.

    >>> standardise_table(np.array([[0.0], [2.0]])).round(3).tolist()
    [[-0.707], [0.707]]
    """
    X = np.asarray(X, np.float64)
    if X.size == 0:
        return X
    if not np.all(np.isfinite(X)):
        raise UserError(
            f"Expected a table without missing values, found {int(np.sum(~np.isfinite(X)))}."
        )
    constant = [str(j) for j in np.flatnonzero(np.ptp(X, axis=0) == 0)]
    if constant:
        raise UserError(f"Expected columns that vary, found column {', '.join(constant)} constant.")
    return np.clip((X - X.mean(axis=0)) / (0.001 + X.std(axis=0, ddof=1)), -4, 4)


def average_pool(images: Float[Any, "*b h w c"], size: int) -> Float[Any, "*b h2 w2 c"]:
    """Means of squares of ``size`` pixels: coarser images. What remains at the borders is cut off.

    NumPy in, NumPy out; JAX arrays stay JAX arrays.

    >>> average_pool(np.arange(4.0).reshape(2, 2, 1), 2).tolist()
    [[[1.5]]]
    """
    *lead, height, width, bands = images.shape
    if not 1 <= size <= min(height, width):
        raise UserError(
            f"Expected to pool 1 to {min(height, width)} pixels of images of {height} x {width}, "
            f"found {size}."
        )
    rows, cols = height // size, width // size
    cut = images[..., : rows * size, : cols * size, :]
    return cut.reshape(*lead, rows, size, cols, size, bands).mean(axis=(-4, -2))
