"""Running an image network on images of any size: padding, tiles, self-ensemble."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxcore.errors import UserError
from jaxcore.ops.padding import crop, pad_to, round_up

Blend = Literal["linear", "uniform"]
ImageFunction = Callable[[np.ndarray], Any]
"""NHWC float32 images -> images of the same batch, height and width."""


def restore(
    fn: ImageFunction,
    image: Float[np.ndarray, "*b h w c"],
    *,
    multiple: int,
    tile: int | None = None,
    overlap: int = 32,
    blend: Blend = "linear",
    ensemble: bool = False,
    bucket: int | None = None,
    least: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "*b h w o"]:
    """Apply an image-to-image network to images of any size.

    Args:
      fn: the network, NHWC -> NHWC of the same height and width. Pass a jitted function: it is
        compiled once per size it sees, so once per tile size, or once per padded size.
      image: one image (HWC) or a batch of equal size (NHWC); floats.
      multiple: heights and widths the network accepts are multiples of this. Other sizes are
        padded by reflection at the bottom and the right, and cropped afterwards.
      tile: side of square tiles in pixels, a multiple of ``multiple``; None for whole images.
        Images that fit in one tile are not cut.
      overlap: pixels shared by neighbouring tiles at the least.
      blend: weights inside the overlap: "linear" ramps, or "uniform" for the plain mean.
      ensemble: average over the eight flips and quarter turns (eight times the work).
      bucket: pad whole images to multiples of this instead of ``multiple``, so that a folder of
        many sizes compiles a few times only; a multiple of ``multiple``.
      least: smallest height and width the network accepts, a multiple of ``multiple``; smaller
        images are padded to it.
      progress: called with (network calls done, network calls in all).

    Returns:
      float32 array on the host, of the height and width of ``image``; not clipped.

    Raises:
      UserError: wrong number of axes, an empty image, values that are not finite, or options
        that do not fit together.

    Note:
      A network with global statistics (attention over the whole map, global pooling) gives other
      numbers on tiles, and slightly other ones on padded images, than on the image itself.

    >>> restore(lambda x: 1 - x, np.zeros((37, 50, 3), np.float32), multiple=8).shape
    (37, 50, 3)
    """
    image = np.asarray(image)
    images = _as_batch(image)
    check_options(multiple, tile, overlap, blend, bucket, least)
    turns = range(8 if ensemble else 1)
    sizes = [_turn(images, k).shape[1:3] for k in turns]
    total = sum(_count_tiles(size, multiple, tile, overlap, least) for size in sizes)
    done = 0

    def counted(x: np.ndarray) -> np.ndarray:
        nonlocal done
        y = np.asarray(fn(x), np.float32)
        if y.shape[:3] != x.shape[:3]:
            raise UserError(
                f"The network must keep batch, height and width {x.shape[:3]}, "
                f"it returned {y.shape[:3]}."
            )
        done += 1
        if progress is not None:
            progress(done, total)
        return y

    def one(x: np.ndarray) -> np.ndarray:
        if tile is not None and max(x.shape[1:3]) > tile:
            return tiled(
                counted, x, tile=tile, overlap=overlap, blend=blend, multiple=multiple, least=least
            )
        side = multiple if bucket is None else bucket
        padded = pad_to(x, *(max(round_up(n, side), least) for n in x.shape[1:3]))
        return crop(counted(padded), *x.shape[1:3])

    result = np.mean([_turn_back(one(_turn(images, k)), k) for k in turns], axis=0)
    return result.reshape(*image.shape[:-1], result.shape[-1])


def tiled(
    fn: ImageFunction,
    image: Float[np.ndarray, "b h w c"],
    *,
    tile: int,
    overlap: int,
    blend: Blend = "linear",
    multiple: int = 1,
    least: int = 1,
) -> Float[np.ndarray, "b h w o"]:
    """Apply a function tile by tile and blend the results.

    Every tile has the same size, so a jitted function is compiled once; the last tile of a row
    or column is flush with the border. An axis shorter than a tile is padded by reflection to a
    multiple of ``multiple`` and gives tiles of that length.

    Args:
      fn: NHWC -> NHWC of the same height and width.
      image: batch of images.
      tile: side of a tile in pixels.
      overlap: pixels shared by neighbours at the least, below ``tile``.
      blend: "linear" ramps or "uniform" mean where tiles overlap.
      multiple: see above.
      least: smallest side of a tile.

    >>> x = np.arange(100.0, dtype=np.float32).reshape(1, 10, 10, 1)
    >>> bool(np.allclose(tiled(lambda t: 2 * t, x, tile=4, overlap=1), 2 * x))
    True
    """
    height, width = image.shape[1:3]
    sides = [min(tile, max(round_up(n, multiple), least)) for n in (height, width)]
    padded = pad_to(image, max(height, sides[0]), max(width, sides[1]))
    ramps = [_ramp(side, overlap, blend) for side in sides]
    weight = ramps[0][:, None, None] * ramps[1][None, :, None]
    total: np.ndarray | None = None
    weights = np.zeros((*padded.shape[1:3], 1), np.float32)
    for rows, cols in _tiles(padded.shape[1:3], sides, overlap):
        y = np.asarray(fn(padded[:, rows, cols]), np.float32)
        if total is None:
            total = np.zeros((*padded.shape[:3], y.shape[-1]), np.float32)
        total[:, rows, cols] += y * weight
        weights[rows, cols] += weight
    assert total is not None  # there is always one tile
    return crop(total / weights, height, width)


def _tiles(size: tuple[int, ...], sides: list[int], overlap: int) -> Iterator[tuple[slice, slice]]:
    for top in _starts(size[0], sides[0], overlap):
        for left in _starts(size[1], sides[1], overlap):
            yield slice(top, top + sides[0]), slice(left, left + sides[1])


def _starts(length: int, side: int, overlap: int) -> list[int]:
    step = max(side - overlap, 1)
    return [*range(0, length - side, step), length - side]


def _count_tiles(
    size: tuple[int, ...], multiple: int, tile: int | None, overlap: int, least: int
) -> int:
    if tile is None or max(size) <= tile:
        return 1
    sides = [min(tile, max(round_up(n, multiple), least)) for n in size]
    counts = [
        len(_starts(max(n, side), side, overlap)) for n, side in zip(size, sides, strict=True)
    ]
    return counts[0] * counts[1]


def _ramp(side: int, overlap: int, blend: Blend) -> np.ndarray:
    """Weight along one axis of a tile: positive, falling towards both ends over the overlap."""
    if blend == "uniform" or overlap == 0:
        return np.ones(side, np.float32)
    index = np.arange(side)
    distance = np.minimum(index, side - 1 - index) + 1
    return np.minimum(distance / (overlap + 1), 1.0).astype(np.float32)


def _turn(images: np.ndarray, k: int) -> np.ndarray:
    """Element ``k`` of the symmetries of the square: ``k % 4`` quarter turns, then a flip."""
    turned = np.rot90(images, k % 4, (1, 2))
    return turned[:, :, ::-1] if k >= 4 else turned


def _turn_back(images: np.ndarray, k: int) -> np.ndarray:
    return np.rot90(images[:, :, ::-1] if k >= 4 else images, -(k % 4), (1, 2))


def _as_batch(image: np.ndarray) -> np.ndarray:
    if image.ndim not in (3, 4) or 0 in image.shape:
        raise UserError(
            "Expected an image of shape (height, width, channels) or a batch of such, "
            f"found {tuple(image.shape)}."
        )
    if not jnp.issubdtype(image.dtype, jnp.floating):  # bfloat16 too, unlike NumPy's
        raise UserError(f"Expected floating-point images in [0, 1], found {image.dtype}.")
    images = image.astype(np.float32).reshape(-1, *image.shape[-3:])
    bad = images.size - int(np.isfinite(images).sum())
    if bad:
        raise UserError(f"Expected finite pixel values, found {bad} that are NaN or infinite.")
    return images


def check_options(
    multiple: int, tile: int | None, overlap: int, blend: str, bucket: int | None, least: int = 1
) -> None:
    """Check options of `restore` before there is an image.

    Raises:
      UserError: they do not fit together.
    """
    for name, value in (("tile", tile), ("bucket", bucket)):
        if value is not None and (value < 1 or value % multiple):
            raise UserError(f"{name} must be a positive multiple of {multiple}, found {value}.")
    if tile is not None and tile < least:
        raise UserError(f"tile must be at least {least}, found {tile}.")
    if tile is not None and not 0 <= overlap < tile:
        raise UserError(f"overlap must be from 0 to below the tile {tile}, found {overlap}.")
    if blend not in ("linear", "uniform"):
        raise UserError(f"blend must be 'linear' or 'uniform', found {blend!r}.")
