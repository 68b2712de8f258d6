"""The simulation of the paper: a planner sees a pattern in images and treats where it is strong.

U is the response of an image to a filter, pi = sigmoid(U + noise) is the probability of treatment,
and Y = U + tau A + noise. At the level of scenes U is the largest (or the mean) response of each
image; at the level of pixels it is a map. `confounder` depends on the images alone, so that
replications share it; `assign` draws the rest.

Jerzak, Johansson and Daoud (2023), arXiv 2301.12985; constants are those of the authors' script.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.typing import Key

POOLS = ("max", "ave")
LEVELS = ("scene", "pixel")


class Assigned(NamedTuple):
    """A drawn sample: outcome, treatment, its true probability, the confounder; of equal shapes."""

    Y: Float[Array, "*units"]
    A: Float[Array, "*units"]
    propensity: Float[Array, "*units"]
    U: Float[Array, "*units"]


class Noise(NamedTuple):
    """What is random: normal noise of the log-odds and of the outcome, and a uniform."""

    treatment: Float[Array, "*units"]
    uniform: Float[Array, "*units"]
    outcome: Float[Array, "*units"]


def kernel(width: int) -> Float[np.ndarray, "k k"]:
    """The planner's filter: a falling line, centred, to which white noise responds with variance 1.

    >>> kernel(1).tolist(), kernel(2).round(2).tolist()
    ([[1.0]], [[-0.43, 0.43], [0.43, -0.43]])
    """
    if width < 1:
        raise UserError(f"Expected a filter of one pixel or more, found {width}.")
    line = np.fliplr(np.eye(width))
    if width == 1:
        return line
    return (line - line.mean()) / np.sqrt(0.001 + line.var(ddof=1) * width**2)


def moderation_kernel(width: int = 32) -> Float[np.ndarray, "k k"]:
    """The filter of the study of heterogeneity: ones around a square of minus ones in the middle.

    The square takes the pixels within a tenth of the width of the middle.

    >>> moderation_kernel(5)[2].tolist()
    [1.0, 1.0, -1.0, 1.0, 1.0]
    """
    if width < 1:
        raise UserError(f"Expected a filter of one pixel or more, found {width}.")
    inside = np.abs(np.arange(width) - (width - 1) / 2) <= 0.1 * width
    return np.where(inside[:, None] & inside[None], -1.0, 1.0)


def standardised(images: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
    """Images less their common mean, over 0.01 and their common standard deviation (n - 1).

    >>> standardised(jnp.array([[[0.0, 2.0]]])).round(2).tolist()
    [[[-0.699999988079071, 0.699999988079071]]]
    """
    return (images - jnp.mean(images)) / (0.01 + jnp.std(images, ddof=1))


def response(images: Float[Array, "n h w"], weights: Float[Array, "k k"]) -> Float[Array, "n h w"]:
    """Standardised cross-correlation with a filter, zeros around the images.

    An even filter reaches one pixel further to the right and to the bottom (TensorFlow's "same").

    >>> response(jnp.arange(9.0).reshape(1, 3, 3), jnp.ones((1, 1))).shape
    (1, 3, 3)
    """
    maps = lax.conv_general_dilated(
        images[..., None],
        weights.astype(images.dtype)[..., None, None],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )[..., 0]
    return (maps - jnp.mean(maps)) / jnp.std(maps, ddof=1)


def cropped(maps: Float[Array, "n h w"], widest: int) -> Float[Array, "n h2 w2"]:
    """Maps without borders, where zeros reach into the widest filter of a study.

    >>> cropped(jnp.zeros((1, 32, 32)), 8).shape, cropped(jnp.zeros((1, 8, 8)), 1).shape
    ((1, 25, 25), (1, 8, 8))
    """
    first, end = max(widest // 2 - 1, 0), widest // 2
    height, width = maps.shape[1:]
    if end + first >= min(height, width):
        raise UserError(
            f"Expected images larger than the widest filter, found {height} x {width} pixels and "
            f"a filter of {widest}."
        )
    return maps[:, first : height - end, first : width - end]


@functools.partial(jax.jit, static_argnames=("width", "pool", "level", "widest"))
def confounder(
    images: Float[Array, "n h w"],
    width: int,
    *,
    pool: str = "max",
    level: str = "scene",
    widest: int | None = None,
) -> Float[Array, "n *pixels"]:
    """What the planner sees: U of every scene, or of every pixel of the cropped images.

    Args:
      images: one band, in any unit; they are standardised together.
      width: of the true filter, in pixels.
      pool: "max" (is it there) or "ave" (how much of it), for scenes.
      level: "scene" or "pixel".
      widest: widest filter of the study, also of those that estimate; None takes ``width``.

    >>> images = jax.random.uniform(jax.random.key(0), (5, 16, 16))
    >>> confounder(images, 4).shape, confounder(images, 4, level="pixel").shape
    ((5,), (5, 13, 13))
    """
    if pool not in POOLS or level not in LEVELS:
        raise UserError(
            f"Expected pool {' or '.join(POOLS)} and level {' or '.join(LEVELS)}, found {pool!r} "
            f"and {level!r}."
        )
    weights = jnp.asarray(kernel(width), images.dtype)
    maps = cropped(response(standardised(images), weights), widest or width)
    if level == "pixel":
        return maps
    u = jnp.max(maps, axis=(1, 2)) if pool == "max" else jnp.mean(maps, axis=(1, 2))
    return (u - jnp.mean(u)) / jnp.std(u, ddof=1)


def assign(
    key: Key, u: Float[Array, "*units"], *, tau: float = 1.0, noise: float = 0.1
) -> Assigned:
    """Draw treatment and outcome of every unit.

    Args:
      key: PRNG key.
      u: the confounder.
      tau: the effect, the same for all.
      noise: standard deviation of what is added to log-odds and outcome.

    >>> drawn = assign(jax.random.key(0), jnp.zeros(4), noise=0.0)
    >>> drawn.propensity.tolist(), bool(jnp.all(drawn.Y == drawn.A))
    ([0.5, 0.5, 0.5, 0.5], True)
    """
    kt, ku, ko = jax.random.split(key, 3)
    drawn = Noise(
        noise * jax.random.normal(kt, u.shape, u.dtype),
        jax.random.uniform(ku, u.shape, u.dtype),
        noise * jax.random.normal(ko, u.shape, u.dtype),
    )
    return assigned(u, drawn, tau=tau)


def assigned(u: Float[Array, "*units"], noise: Noise, *, tau: float = 1.0) -> Assigned:
    """The sample that given noise makes.

    >>> zero = jnp.zeros(1)
    >>> assigned(zero, Noise(zero, zero + 0.4, zero)).Y.tolist()
    [1.0]
    """
    propensity = jax.nn.sigmoid(u + noise.treatment)
    a = (noise.uniform < propensity).astype(u.dtype)
    return Assigned(u + tau * a + noise.outcome, a, propensity, u)


def simulate_image_confounding(
    key: Key,
    images: Float[Array, "n h w"],
    width: int,
    pool: str = "max",
    *,
    level: str = "scene",
    widest: int | None = None,
    tau: float = 1.0,
    noise: float = 0.1,
) -> Assigned:
    """`confounder` and `assign` in one: a sample of the paper's simulation on given images.

    >>> images = gaussian_fields(jax.random.key(0), 6, size=16)
    >>> simulate_image_confounding(jax.random.key(1), images, 4).Y.shape
    (6,)
    """
    u = confounder(images, width, pool=pool, level=level, widest=widest)
    return assign(key, u, tau=tau, noise=noise)


def gaussian_fields(
    key: Key, n: int, *, size: int = 64, exponent: float = 1.5
) -> Float[Array, "n size size"]:
    """Stationary Gaussian random fields: noise whose amplitudes fall with the frequency.

    Images without objects. The network of the paper does not find the planner's filter in them,
    while its weights look perfect: the hard case of its documentation.

    Args:
      key: PRNG key.
      n: images.
      size: height and width.
      exponent: amplitudes are ``frequency ** -exponent``; the mean is zero.

    Returns:
      Images of mean 0 and variance 1 over all of them.

    >>> fields = gaussian_fields(jax.random.key(0), 2, size=8)
    >>> fields.shape, round(float(fields.var()), 4)
    ((2, 8, 8), 1.0)
    """
    white = jax.random.normal(key, (n, size, size))
    rows, cols = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(rows, cols)
    amplitude = np.where(radius > 0, np.where(radius > 0, radius, 1) ** -exponent, 0)
    spectrum = jnp.fft.rfft2(white)
    spectrum = spectrum * jnp.asarray(amplitude, spectrum.dtype)[None]
    fields = jnp.fft.irfft2(spectrum, s=(size, size))
    return fields / jnp.std(fields)


class Tutorial(NamedTuple):
    """A sample of `simulate_tutorial`."""

    Y: Float[Array, " n"]
    A: Float[Array, " n"]
    X: Float[Array, "n 2"]  # what a table holds
    images: Float[Array, "n size size 3"]  # the rest
    propensity: Float[Array, " n"]  # true


@functools.partial(jax.jit, static_argnames=("n", "size"))
def simulate_tutorial(key: Key, n: int = 1000, *, tau: float = 2.0, size: int = 64) -> Tutorial:
    """The tutorial's simulation: one confounder shows in the red of the images, two in a table.

    C, X1, X2 are standard normal, A has probability sigmoid(C + X1 + X2) and Y = tau A + C + X1 +
    X2 + noise. Red is C on a scale from 0 to 1, green and blue are uniform; row r of image i is
    multiplied by ``log(1 + r / size) ** u`` with u uniform on (0, 1/i), both counted from one.

    Args:
      key: PRNG key.
      n: units.
      tau: the effect.
      size: height and width of the images.

    >>> drawn = simulate_tutorial(jax.random.key(0), 4, size=8)
    >>> drawn.images.shape, drawn.X.shape
    ((4, 8, 8, 3), (4, 2))
    """
    kc, kx, ka, ke, kg, kr = jax.random.split(key, 6)
    c, x = jax.random.normal(kc, (n,)), jax.random.normal(kx, (n, 2))
    index = c + x[:, 0] + x[:, 1]
    propensity = jax.nn.sigmoid(index)
    a = (jax.random.uniform(ka, (n,)) < propensity).astype(c.dtype)
    y = tau * a + index + jax.random.normal(ke, (n,))
    red = (c - jnp.min(c)) / (jnp.max(c) - jnp.min(c))
    colour = jnp.concatenate([red[:, None], jax.random.uniform(kg, (n, 2))], axis=1)
    power = jax.random.uniform(kr, (n, size)) / jnp.arange(1, n + 1, dtype=c.dtype)[:, None]
    rows = jnp.log1p(jnp.arange(1, size + 1, dtype=c.dtype) / size)
    shade = rows[None] ** power
    images = jnp.broadcast_to(shade[:, :, None, None] * colour[:, None, None], (n, size, size, 3))
    return Tutorial(y, a, x, images, propensity)
