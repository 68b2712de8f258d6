"""Which parts of an image a number depends on: gradients, their averages, and covering up.

A score is any function from images (b, h, w, c), or sequences (b, t, h, w, c), and covariates
(b, p) or None to one number for each, in which rows do not see each other: `log_odds` of a network.
Maps are formed in chunks of rows, each one program.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from jaxcore.errors import UserError
from jaxcore.estimators.chunks import map_chunks
from jaxcore.typing import Key

Score: TypeAlias = Callable[[Array, Array | None], Array]
"""From images and covariates to one number for each."""

ROWS = 64
"""Images of a chunk."""


def log_odds(logit: Score, clip: float = 1e-3) -> Score:
    """``log(e / (1 - e))`` of the probability ``e`` clipped to [clip, 1 - clip].

    Args:
      logit: log-odds of a network, (b,) or (b, 1).
      clip: beyond it the score is flat, so gradients vanish; 0 clips nothing.

    >>> score = log_odds(lambda images, covariates: 100 * images.sum((1, 2, 3)), clip=0.1)
    >>> round(float(score(jnp.ones((1, 2, 2, 1)), None)[0]), 3)  # log(9)
    2.197
    """

    def score(images: Array, covariates: Array | None) -> Array:
        z = logit(images, covariates).reshape(images.shape[0])
        if not clip:
            return z
        bound = float(np.log1p(-clip) - np.log(clip))
        return jnp.clip(z, -bound, bound)

    return score


def probability(logit: Score) -> Score:
    """The probability itself, of which the maps of 2023 are the gradients."""

    def score(images: Array, covariates: Array | None) -> Array:
        return jax.nn.sigmoid(logit(images, covariates).reshape(images.shape[0]))

    return score


def gradients(
    score: Score,
    images: Float[Array, "b *t h w c"],
    covariates: Float[Array, "b p"] | None = None,
    *,
    rows: int = ROWS,
) -> Float[Array, "b *t h w c"]:
    """Slope of the score along every pixel and band.

    Args:
      score: see the module.
      images: standardised.
      covariates: standardised.
      rows: images at once.

    >>> score = lambda images, covariates: (images**2).sum((1, 2, 3))
    >>> gradients(score, jnp.full((2, 1, 1, 3), 4.0)).ravel().tolist()
    [8.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    """

    def slopes(x: Array, columns: Array | None) -> Array:
        return jax.grad(lambda x: jnp.sum(score(x, columns)))(x)

    return _mapped(slopes, images, covariates, rows)


def covariate_gradients(
    score: Score,
    images: Float[Array, "b *t h w c"],
    covariates: Float[Array, "b p"],
    *,
    rows: int = ROWS,
) -> Float[Array, "b p"]:
    """Slope of the score along every column of the table, for each unit."""

    def slopes(x: Array, columns: Array | None) -> Array:
        return jax.grad(lambda columns: jnp.sum(score(x, columns)))(columns)

    return _mapped(slopes, images, covariates, rows)


def table_salience(
    score: Score,
    images: Float[Array, "b *t h w c"],
    covariates: Float[Array, "b p"],
    deviations: Float[Array, " p"],
    *,
    rows: int = ROWS,
) -> Float[Array, " p"]:
    """Mean slope along every column, on the columns' own scale.

    Args:
      score: see the module.
      images: of some units, such as 25 drawn at random.
      covariates: their standardised columns.
      deviations: by which each column was divided.
      rows: units at once.
    """
    slopes = covariate_gradients(score, images, covariates, rows=rows)
    return jnp.mean(slopes, axis=0) / deviations


def magnitude(slopes: Float[Array, "*b h w c"], shift: float = 1e-6) -> Float[Array, "*b h w"]:
    """Length of the slopes over the bands; the published code adds ``shift`` to every one."""
    return jnp.sqrt(jnp.sum(jnp.square(slopes + shift), axis=-1))


def direction(slopes: Float[Array, "*b h w c"]) -> Float[Array, "*b h w"]:
    """Mean of the slopes over the bands, with its sign."""
    return jnp.mean(slopes, axis=-1)


def for_display(maps: Float[Array, "b h w"], floor: float = 1e-3) -> Float[Array, "b h w"]:
    """Maps with a spread that can be seen, each by itself.

    Positive entries are divided by ``floor`` plus their (n - 1) standard deviation; then
    ``sign(s) log(1 + |s|)``.

    >>> [round(float(s), 2) for s in for_display(jnp.array([[[0.0, 1.0, 3.0]]])).ravel()]
    [0.0, 0.53, 1.14]
    """
    positive = maps > 0
    axes = tuple(range(1, maps.ndim))
    count = jnp.sum(positive, axes, keepdims=True).astype(maps.dtype)
    mean = jnp.sum(jnp.where(positive, maps, 0), axes, keepdims=True) / jnp.maximum(count, 1)
    squares = jnp.where(positive, jnp.square(maps - mean), 0)
    spread = jnp.sqrt(jnp.sum(squares, axes, keepdims=True) / jnp.maximum(count - 1, 1))
    scaled = jnp.where(positive, maps / (floor + spread), maps)
    return jnp.sign(scaled) * jnp.log1p(jnp.abs(scaled))


def coarse(maps: Float[Array, "b h w"], size: int = 3) -> Float[Array, "b h2 w2"]:
    """Means over squares that do not overlap, as the maps of 2023; a remainder is left out.

    >>> coarse(jnp.ones((1, 7, 6))).shape
    (1, 2, 2)
    """
    height, width = (side // size * size for side in maps.shape[1:])
    cut = maps[:, :height, :width]
    parts = cut.reshape(maps.shape[0], height // size, size, width // size, size)
    return jnp.mean(parts, axis=(2, 4))


def integrated_gradients(
    score: Score,
    images: Float[Array, "b *t h w c"],
    covariates: Float[Array, "b p"] | None = None,
    *,
    baseline: float | Float[Array, "*t h w c"] = 0.0,
    steps: int = 32,
    rows: int = ROWS,
) -> Float[Array, "b *t h w c"]:
    """What each pixel and band adds to the score on the straight way from a baseline.

    The sum over an image is its score less that of the baseline, up to the error of the midpoint
    rule; covariates stay.

    Args:
      score: see the module.
      images: standardised.
      covariates: standardised.
      baseline: an image, or the value of all its pixels; 0 is the mean of each band.
      steps: of the midpoint rule.
      rows: images at once.

    References:
      Sundararajan, Taly, Yan 2017, "Axiomatic attribution for deep networks".

    >>> score = lambda images, covariates: (images**2).sum((1, 2, 3))
    >>> integrated_gradients(score, jnp.full((1, 1, 1, 2), 3.0)).ravel().tolist()
    [9.0, 9.0]
    """
    _at_least_one("steps", steps)

    def added(x: Array, columns: Array | None) -> Array:
        start = jnp.broadcast_to(jnp.asarray(baseline, x.dtype), x.shape[1:])[None]
        way = x - start

        def slopes(total: Array, share: Array) -> tuple[Array, None]:
            here = jax.grad(lambda x: jnp.sum(score(x, columns)))(start + share * way)
            return total + here, None

        shares = jnp.asarray((np.arange(steps) + 0.5) / steps, x.dtype)
        total, _ = jax.lax.scan(slopes, jnp.zeros_like(x), shares)
        return way * total / steps

    return _mapped(added, images, covariates, rows)


def smooth_gradients(
    score: Score,
    images: Float[Array, "b *t h w c"],
    covariates: Float[Array, "b p"] | None = None,
    *,
    key: Key,
    noise: float = 0.15,
    draws: int = 32,
    rows: int = ROWS,
) -> Float[Array, "b *t h w c"]:
    """`gradients`, averaged over images with noise.

    Args:
      score: see the module.
      images: standardised.
      covariates: standardised.
      key: of the noise, which differs from image to image and does not depend on ``rows``.
      noise: standard deviation, in those of the bands.
      draws: images with noise for each.
      rows: images at once.

    References:
      Smilkov et al. 2017, "SmoothGrad".
    """
    _at_least_one("draws", draws)

    def mean(x: Array, columns: Array | None, own: Array) -> Array:
        keys = jax.random.wrap_key_data(own)

        def slopes(total: Array, draw: Array) -> tuple[Array, None]:
            each = jax.vmap(jax.random.fold_in, (0, None))(keys, draw)
            normal = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(each)
            here = jax.grad(lambda x: jnp.sum(score(x, columns)))(x + noise * normal)
            return total + here, None

        total, _ = jax.lax.scan(slopes, jnp.zeros_like(x), jnp.arange(draws))
        return total / draws

    own = jax.random.key_data(jax.random.split(key, images.shape[0]))
    return _mapped(mean, images, covariates, rows, own)


def occlusion(
    score: Score,
    images: Float[Array, "b *t h w c"],
    covariates: Float[Array, "b p"] | None = None,
    *,
    window: int = 4,
    stride: int = 4,
    baseline: float = 0.0,
    rows: int = ROWS,
) -> Float[Array, "b i j"]:
    """Score less that of the image in which a square window is covered.

    Args:
      score: see the module.
      images: standardised.
      covariates: standardised.
      window: side of the square in pixels.
      stride: from one window to the next; windows that leave the image are left out.
      baseline: value under the window; 0 is the mean of each band. A sequence is covered in all
        its images.
      rows: images at once.

    Raises:
      UserError: the window is larger than the image.

    >>> score = lambda images, covariates: images.sum((1, 2, 3))
    >>> occlusion(score, jnp.ones((1, 4, 6, 1)), window=2, stride=2).tolist()
    [[[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]]
    """
    height, width = images.shape[-3:-1]
    _at_least_one("stride", stride)
    if not 1 <= window <= min(height, width):
        raise UserError(f"window must be from 1 to {min(height, width)}, found {window}.")
    tops, lefts = (np.arange(0, side - window + 1, stride) for side in (height, width))
    corners = jnp.asarray(np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2))
    places = [jnp.arange(side) for side in (height, width)]

    def differences(x: Array, columns: Array | None) -> Array:
        def covered(corner: Array) -> Array:
            along = [(p >= c) & (p < c + window) for p, c in zip(places, corner, strict=True)]
            inside = (along[0][:, None] & along[1][None])[..., None]
            inside = inside.reshape((1,) * (x.ndim - 3) + inside.shape)
            return score(jnp.where(inside, jnp.asarray(baseline, x.dtype), x), columns)

        return (score(x, columns)[None] - jax.lax.map(covered, corners)).T

    found = _mapped(differences, images, covariates, rows)
    return found.reshape(-1, len(tops), len(lefts))


def extremes(
    propensity: Float[np.ndarray, " n"],
    treatment: Float[np.ndarray, " n"],
    places: Shaped[np.ndarray, " n"],
    count: int = 3,
) -> tuple[Int[np.ndarray, " i"], Int[np.ndarray, " j"]]:
    """Units whose maps are shown: controls of the lowest and treated of the highest propensity.

    Args:
      propensity: of each unit.
      treatment: 0 or 1.
      places: image or location of each; of every one, one unit at most is taken.
      count: most units of each arm.

    Returns:
      Rows of controls, from the lowest propensity, and of treated ones, from the highest.

    >>> extremes(np.array([0.2, 0.1, 0.9, 0.8]), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 2)
    (array([1]), array([2, 3]))
    """
    found, seen = [], set()
    for arm, order in ((0, np.argsort(propensity)), (1, np.argsort(-np.asarray(propensity)))):
        rows: list[int] = []
        for row in order[np.asarray(treatment)[order] == arm].tolist():
            if len(rows) < count and places[row] not in seen:
                rows.append(row)
                seen.add(places[row])
        found.append(np.asarray(rows, int))
    return found[0], found[1]


def _mapped(
    fn: Callable[..., Array], images: Array, covariates: Array | None, rows: int, *more: Array
) -> Array:
    _at_least_one("rows", rows)
    if covariates is None:
        return map_chunks(lambda x, *rest: fn(x, None, *rest), [images, *more], rows)
    return map_chunks(fn, [images, covariates, *more], rows)


def _at_least_one(name: str, number: int) -> None:
    if number < 1:
        raise UserError(f"{name} must be at least 1, found {number}.")
