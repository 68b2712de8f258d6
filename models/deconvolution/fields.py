"""Images of any size: periodic continuation, overlapping tiles, batches of equal shape.

All methods work on periodic images. Here an image is continued beyond its last row and column by
its two mirror images, one fading into the other, over at least the reach of the PSF, so that
nothing of one border shows at the other. Large images are cut into tiles that overlap: what a tile
takes from its neighbours on every side is at least twice that reach, and only its core is kept. One
core fades into the next, since a network scales every tile by its own brightest pixel.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.models.deconvolution.psf import place_psf
from jaxcore.models.deconvolution.tikhonov import Choice, choose_lam
from jaxcore.ops.starlet import fold

Restorer: TypeAlias = Callable[[Array, Array, Array | None, Array], Mapping[str, Array]]
"""(images (b, h, w), PSFs (b, H, W), weights (b, h, w) or None, regularisation (b,)) -> named
images (b, H, W)."""

HALO, SPLINES = 2, 64
"""What tiles overlap on every side: reaches of the PSF; pixels, for splines of four scales, as far
as an eighth of the tile allows."""
FADE = 4
"""Where cores fade into each other: the overlap over this, on both sides of their border."""
LARGEST = 2048
"""Side of the part of an image from which the regularisation is chosen."""


class Plan(NamedTuple):
    """How images are cut; all sizes in pixels of the observation.

    Attributes:
      core: height and width of what is kept of a tile.
      halo: rows and columns around it that a tile shares with its neighbours.
      block: height and width of what is computed.
      starts: row and column of the first pixel of every core.
    """

    core: tuple[int, int]
    halo: int
    block: tuple[int, int]
    starts: tuple[tuple[int, int], ...]


def plan_tiles(
    shape: tuple[int, int], reach: int, tile: int | None = None, margin: int = 0
) -> Plan:
    """How to cut images of a shape.

    Args:
      shape: height and width.
      reach: of the PSF, in pixels of the observation; see `reach_of`.
      tile: largest side of what is computed at once; None for whole images.
      margin: rows and columns by which whole images are continued on every side, for functions
        that do not take them for periodic.

    Raises:
      UserError: the tile leaves no room between its overlaps.

    >>> plan_tiles((50, 60), 6).block
    (60, 72)
    >>> plan_tiles((300, 500), 6, 128).starts[:3]
    ((0, 0), (0, 90), (0, 180))
    """
    reach = max(reach, 1)
    lengths = [_fast(n + 2 * margin + reach) for n in shape]
    if tile is None or max(lengths) <= tile:
        return Plan(shape, margin, (lengths[0], lengths[1]), ((0, 0),))
    halo = max(HALO * reach, min(SPLINES, tile // 8), margin)
    side = next(n for n in range(tile, 0, -1) if _fast(n) == n)
    core = side - 2 * halo - reach
    if core < reach:
        raise UserError(
            f"Expected tiles of at least {_fast(2 * halo + 2 * reach)} pixels "
            f"for a PSF that reaches {reach} pixels far, found {tile}."
        )
    cores = (min(core, shape[0]), min(core, shape[1]))
    rows, cols = ([*range(0, n - c, c), n - c] for n, c in zip(shape, cores, strict=True))
    blocks = [_fast(c + 2 * halo + reach) for c in cores]
    return Plan(cores, halo, (blocks[0], blocks[1]), tuple(itertools.product(rows, cols)))


def _fast(length: int) -> int:
    """The next length that Fourier transforms are quick for."""
    return int(scipy.fft.next_fast_len(length, real=True) or length)


def continued(
    x: Float[np.ndarray, "*b h w"], shape: tuple[int, int]
) -> Float[np.ndarray, "*b h2 w2"]:
    """Continue images at the bottom and the right so that they are periodic without a jump.

    >>> continued(np.array([[0.0, 1.0, 2.0]]), (1, 7))[0].round(2).tolist()
    [0.0, 1.0, 2.0, 2.0, 1.25, 0.75, 0.0]
    """
    for axis, size in ((-2, shape[0]), (-1, shape[1])):
        length, more = x.shape[axis], size - x.shape[axis]
        if more <= 0:
            continue
        places = np.arange(length, size)
        behind = np.take(x, fold(places, length, "symmetric"), axis)
        before = np.take(x, fold(places - size, length, "symmetric"), axis)
        fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(more) / max(more - 1, 1))
        fade = fade.reshape((-1, 1) if axis == -2 else (-1,)).astype(x.dtype)
        x = np.concatenate([x, behind + fade * (before - behind)], axis)
    return x


def restore_field(
    restore: Restorer,
    images: Float[np.ndarray, "n h w"],
    psf: Float[np.ndarray, "m k l"],
    *,
    weights: Float[np.ndarray, "n h w"] | None = None,
    lam: Float[np.ndarray, "n"] | None = None,
    factor: int = 1,
    reach: int,
    tile: int | None = None,
    margin: int = 0,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Restore images of one size, each whole or tile by tile, some at once.

    Args:
      restore: a compiled function; it is compiled once, as all calls have one shape.
      images: observations without missing pixels.
      psf: one for each image or one for all, of any size, on the grid of the result.
      weights: of the pixels; None for 1.
      lam: regularisation of every image, the same for all its tiles.
      factor: fine pixels along the side of a pixel of the observations.
      reach: of the PSF in pixels of the observations.
      tile: largest side of what is computed at once, in pixels of the observations.
      margin: see `plan_tiles`.
      batch: tiles of one call.
      progress: called with (calls done, calls in all).

    Returns:
      The named images of ``restore``, whole, float32.

    >>> double = lambda y, psf, weights, lam: {"image": 2 * y}
    >>> x = np.random.default_rng(0).normal(size=(1, 70, 50)).astype(np.float32)
    >>> out = restore_field(double, x, np.ones((1, 3, 3)), reach=3, tile=32)
    >>> bool(np.allclose(out["image"], 2 * x))
    True
    """
    shape = (images.shape[-2], images.shape[-1])
    plan = plan_tiles(shape, reach, tile, margin)
    jobs = list(itertools.product(range(len(images)), plan.starts))
    batch = min(batch, len(jobs))
    grid = _times(plan.block, factor)
    placed = placed_psfs(psf, grid)
    strength = np.zeros(len(images)) if lam is None else np.asarray(lam)
    out: dict[str, np.ndarray] = {}
    shares = tuple(_shares(plan, shape, axis, factor) for axis in (0, 1))
    calls = math.ceil(len(jobs) / batch)
    for call in range(calls):
        some = jobs[call * batch : (call + 1) * batch]
        filled = [*some, *[some[-1]] * (batch - len(some))]  # one shape, one program
        numbers = [number for number, _ in filled]
        y = np.stack(list(_blocks(images, filled, plan))).astype(np.float32)
        certain = None
        if weights is not None:
            certain = jnp.asarray(np.stack(list(_blocks(weights, filled, plan))), y.dtype)
        psfs = jnp.asarray(placed[[n % len(placed) for n in numbers]], y.dtype)
        strengths = jnp.asarray(strength[numbers], y.dtype)
        parts = restore(jnp.asarray(y), psfs, certain, strengths)
        for name, part in parts.items():
            values = np.asarray(part)
            if name not in out:
                sides = _times(shape, factor)
                out[name] = np.zeros((len(images), *sides), values.dtype)
            for value, (number, start) in zip(values, some, strict=False):
                _keep(out[name][number], value, start, plan, factor, shares)
        if progress is not None:
            progress(call + 1, calls)
    return out


def placed_psfs(
    psf: Float[np.ndarray, "m k l"], grid: tuple[int, int]
) -> Float[np.ndarray, "m h w"]:
    """PSFs of sum one on a grid, in its middle; what does not fit is cut off.

    >>> round(float(placed_psfs(np.ones((1, 3, 3)), (5, 5)).sum()), 5)
    1.0
    """
    placed = np.stack([np.asarray(place_psf(jnp.asarray(p, float), grid)) for p in psf])
    return placed / placed.sum((-2, -1), keepdims=True)


def _blocks(
    images: np.ndarray, jobs: list[tuple[int, tuple[int, int]]], plan: Plan
) -> Iterator[np.ndarray]:
    """Tiles with what surrounds them, beyond the border mirrored, continued to be periodic."""
    for number, start in jobs:
        block = images[number]
        if plan.halo:
            for axis in (0, 1):
                first = start[axis] - plan.halo
                places = np.arange(first, first + plan.core[axis] + 2 * plan.halo)
                block = np.take(block, fold(places, images.shape[axis + 1], "symmetric"), axis)
        yield continued(block, plan.block)


Shares: TypeAlias = Mapping[int, tuple[int, Float[np.ndarray, "k"]]]
"""Start of a core along an axis -> the first pixel its tile has a share of, and its shares."""


def _shares(plan: Plan, shape: tuple[int, int], axis: int, factor: int) -> Shares:
    """Shares of tiles along an axis, in pixels of the result; in every pixel they add up to one."""
    length, core, reach = (n * factor for n in (shape[axis], plan.core[axis], plan.halo // FADE))
    total, found = np.zeros(length), {}
    for start in sorted({starts[axis] for starts in plan.starts}):
        low, high = start * factor, start * factor + core
        before, behind = (reach if low > 0 else 0), (reach if high < length else 0)
        first, last = max(low - before, 0), min(high + behind, length)
        places, share = np.arange(first, last) + 0.5, np.ones(last - first)
        if before:
            share = share * _rise((places - low) / (2 * reach))
        if behind:
            share = share * _rise((high - places) / (2 * reach))
        total[first:last] += share
        found[start] = (first, share)
    return {start: (i, share / total[i : i + len(share)]) for start, (i, share) in found.items()}


def _rise(place: np.ndarray) -> np.ndarray:
    """From 0 at minus one half to 1 at one half, as a cosine does."""
    return 0.5 + 0.5 * np.sin(np.pi * np.clip(place, -0.5, 0.5))


def _keep(
    whole: np.ndarray,
    block: np.ndarray,
    start: tuple[int, int],
    plan: Plan,
    factor: int,
    shares: tuple[Shares, ...],
) -> None:
    """Add the share of a tile; of whole numbers, which cannot fade, those of its core."""
    if whole.dtype.kind in "iu":
        places = [(s * factor, np.ones(c * factor)) for s, c in zip(start, plan.core, strict=True)]
    else:
        places = [of[s] for of, s in zip(shares, start, strict=True)]
    here = tuple(slice(first, first + len(share)) for first, share in places)
    moves = [(plan.halo - s) * factor for s in start]
    inner = tuple(slice(p.start + m, p.stop + m) for p, m in zip(here, moves, strict=True))
    if whole.dtype.kind in "iu":
        whole[here] = block[inner]
    else:
        (_, rows), (_, cols) = places
        whole[here] += (rows[:, None] * cols).astype(whole.dtype) * block[inner]


def choose_field_lam(
    images: Float[np.ndarray, "n h w"],
    psf: Float[np.ndarray, "m k l"],
    choice: Choice,
    *,
    factor: int = 1,
    reach: int,
) -> Float[np.ndarray, "n"]:
    """Regularisation of every image, from the whole of it or the middle of a large one.

    Args:
      images: in units of their noise, without missing pixels.
      psf: one for each image or one for all.
      choice: see `choose_lam`.
      factor: fine pixels along the side of a pixel of the images.
      reach: of the PSF in pixels of the images.

    >>> x = np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32)
    >>> choose_field_lam(x, np.ones((1, 3, 3)) / 9, "sure", reach=1).shape
    (2,)
    """
    h, w = images.shape[-2:]
    top, left = max(h - LARGEST, 0) // 2, max(w - LARGEST, 0) // 2
    middle = images[:, top : top + LARGEST, left : left + LARGEST]
    block = plan_tiles((middle.shape[-2], middle.shape[-1]), reach).block
    out = []
    for number, plane in enumerate(middle):
        place = place_psf(jnp.asarray(psf[number % len(psf)], float), _times(block, factor))
        y = jnp.asarray(continued(plane, block), float)
        out.append(float(choose_lam(y, place / jnp.sum(place), choice, sigma=1.0)))
    return np.array(out)


def _times(pair: tuple[int, int], factor: int) -> tuple[int, int]:
    return pair[0] * factor, pair[1] * factor
