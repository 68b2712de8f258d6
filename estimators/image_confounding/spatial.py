"""Places on the globe: blocks for folds and bootstraps, and correlation of neighbours."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxcore.data.columns import array_of
from jaxcore.errors import UserError
from jaxcore.estimators.columns import label_numbers
from jaxcore.estimators.variance import tail

RADIUS = 6371.0088
"""Mean radius of the Earth in km."""


class Moran(NamedTuple):
    """Moran's I, what it is expected to be without spatial correlation, and its z and p."""

    value: float
    expected: float
    z: float
    p_value: float


def check_coordinates(coords: Any, n: int) -> Float[np.ndarray, "n 2"]:
    """Longitude and latitude in degrees, checked.

    Raises:
      UserError: another shape, missing values, or numbers that are no degrees.

    >>> check_coordinates([[33.0, 2.0]], 1).tolist()
    [[33.0, 2.0]]
    """
    a = array_of(coords, "the coordinates")
    if a.shape != (n, 2) or a.dtype.kind not in "iuf":
        raise UserError(
            f"Expected longitude and latitude of {n} places, found an array of shape {a.shape} and "
            f"type {a.dtype}."
        )
    a = a.astype(np.float64)
    if not np.all(np.isfinite(a)):
        raise UserError(
            f"Expected finite coordinates, found {int(np.sum(~np.isfinite(a).all(axis=1)))} of {n} "
            "places without."
        )
    if np.any(np.abs(a[:, 0]) > 360) or np.any(np.abs(a[:, 1]) > 90):
        raise UserError(
            "Expected longitude in [-180, 360] and latitude in [-90, 90] degrees, found "
            f"{a[:, 0].min():g} to {a[:, 0].max():g} and {a[:, 1].min():g} to {a[:, 1].max():g}: "
            "metres, or latitude first."
        )
    return a


def blocks(coords: Any, size: float) -> Int[np.ndarray, " n"]:
    """Number of the square of a grid that each place lies in: 0, 1, ...

    Rows of the grid are parallels ``size`` apart; in each row squares are as wide as they are high.
    Use them as clusters: `crossfit.fold_ids` then keeps a block in one fold, and
    `resampling.bootstrap` draws whole blocks.

    Args:
      coords: longitude and latitude in degrees, a row for each place.
      size: side of a square in km.

    >>> blocks([[33.0, 2.0], [33.01, 2.01], [40.0, 2.0]], 100.0).tolist()
    [0, 0, 1]
    """
    place = check_coordinates(coords, len(array_of(coords, "the coordinates")))
    if not np.isfinite(size) or size <= 0:
        raise UserError(f"Expected a positive size of blocks in km, found {size:g}.")
    step = size / RADIUS  # radians
    row = np.floor(np.radians(place[:, 1]) / step).astype(np.int64)
    shrink = np.cos(np.clip((row + 0.5) * step, -1.5, 1.5))
    east = np.radians(place[:, 0] % 360)
    column = np.floor(east * shrink / step).astype(np.int64)
    _, first, number = np.unique(
        np.stack([row, column], axis=1), axis=0, return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(first))[number.ravel()]


def moran(values: Any, coords: Any, *, neighbours: int = 8) -> Moran:
    """Moran's I with the nearest places as neighbours, and its normal test under permutation.

    Args:
      values: one for each place, such as the mean weighted residual of each image.
      coords: longitude and latitude in degrees.
      neighbours: of each place; weights are equal and sum to one.

    References:
      Moran (1950); variance under randomisation of Cliff and Ord (1981).

    Raises:
      UserError: fewer places than neighbours and two, or values that do not vary.

    >>> line = np.stack([np.arange(20.0), np.zeros(20)], axis=1)
    >>> moran(np.arange(20.0), line, neighbours=2).value > 0.8
    True
    """
    from scipy.spatial import KDTree

    x = np.asarray(array_of(values, "the values"), np.float64)
    place = check_coordinates(coords, len(x))
    n = len(x)
    if not 1 <= neighbours < n - 2:
        raise UserError(f"Expected 1 to {n - 3} neighbours among {n} places, found {neighbours}.")
    z = x - x.mean()
    if not np.all(np.isfinite(x)) or not z @ z > 0:
        raise UserError("Expected finite values that vary, found others.")
    long, lat = np.radians(place).T
    ball = np.stack([np.cos(lat) * np.cos(long), np.cos(lat) * np.sin(long), np.sin(lat)], axis=1)
    near = _others(np.asarray(KDTree(ball).query(ball, k=neighbours + 1)[1]))
    value = float(z @ z[near].mean(axis=1) / (z @ z))
    # Weights are 1/k, so that their sum is n; both directions make s1 and s2.
    incoming = np.bincount(near.ravel(), minlength=n) / neighbours
    pair = np.arange(n).repeat(neighbours), near.ravel()
    code = np.sort(pair[0] * n + pair[1])
    back = pair[1] * n + pair[0]
    found = code[np.minimum(np.searchsorted(code, back), code.size - 1)] == back
    s1 = (n * neighbours + float(found.sum())) / neighbours**2
    s2, s0 = float(np.sum((1 + incoming) ** 2)), float(n)
    kurtosis = n * float(np.sum(z**4)) / float(z @ z) ** 2
    expected = -1 / (n - 1)
    square = n * ((n * n - 3 * n + 3) * s1 - n * s2 + 3 * s0**2)
    square -= kurtosis * (n * (n - 1) * s1 - 2 * n * s2 + 6 * s0**2)
    variance = square / ((n - 1) * (n - 2) * (n - 3) * s0**2) - expected**2
    t = (value - expected) / variance**0.5
    return Moran(value, expected, t, float(tail(np.asarray(t))))


def _others(near: Int[np.ndarray, "n k1"]) -> Int[np.ndarray, "n k"]:
    """Nearest places without the place itself, which need not come first among equal ones."""
    itself = near == np.arange(len(near))[:, None]
    itself[~itself.any(axis=1), -1] = True
    return near[~itself].reshape(len(near), -1)


def means_by_image(values: Any, image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the values of each image's units, and the first unit of each image.

    >>> means_by_image([1.0, 3.0, 5.0], ["a", "a", "b"])[0].tolist()
    [2.0, 5.0]
    """
    x = np.asarray(array_of(values, "the values"), np.float64)
    _, number = label_numbers(array_of(image, "the image keys"), "image")
    count = np.bincount(number)
    first = np.full(len(count), len(x))
    np.minimum.at(first, number, np.arange(len(x)))
    return np.bincount(number, x) / count, first
