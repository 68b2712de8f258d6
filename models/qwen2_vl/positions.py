"""Where tokens and patches stand: plain NumPy, before anything is compiled."""

from collections.abc import Sequence

import flax.struct
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxcore.data.images.vision_inputs import Grid
from jaxcore.errors import UserError
from jaxcore.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig

_ALONE = -1  # segment of rows that only fill up


@flax.struct.dataclass
class Patches:
    """The patches of several images, one after the other.

    Attributes:
      values: of each patch: band, moment, height, width; normalised.
      places: row and column of each patch in its image.
      segments: number of the image (of a video: the moment) that each belongs to; patches attend
        to those of their own only.
    """

    values: Float[Array, "n p"] | Float[np.ndarray, "n p"]
    places: Int[Array, "n 2"] | Int[np.ndarray, "n 2"]
    segments: Int[Array, " n"] | Int[np.ndarray, " n"]


def join_patches(
    values: Sequence[Float[np.ndarray, "_ p"]],
    grids: Sequence[Grid],
    cfg: VisionConfig,
    *,
    bucket: int = 1,
) -> Patches:
    """The patches of images of `jaxcore.data.images.vision_inputs.PatchInputs` as one input.

    Args:
      values: patches of each image, cell after cell.
      grids: how many each has.
      cfg: sizes of the tower.
      bucket: fill up to a multiple of so many cells, so that few programs are compiled; the
        vectors behind those of the images are to be left alone.

    Raises:
      UserError: values and grids do not belong together.

    >>> rows = [np.zeros((24, 12)), np.zeros((8, 12))]
    >>> joined = join_patches(rows, [(1, 4, 6), (1, 2, 4)], Qwen2VLConfig.tiny().vision, bucket=10)
    >>> joined.values.shape, joined.places[:5].tolist(), np.unique(joined.segments).tolist()
    ((40, 12), [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2]], [-1, 0, 1])
    """
    if not values or len(values) != len(grids):
        raise UserError(
            f"Expected the patches of at least one image and as many grids, found {len(values)} "
            f"and {len(grids)}."
        )
    places, segments, merge, count = [], [], cfg.merge, 0
    for rows, (frames, height, width) in zip(values, grids, strict=True):
        _check_grid((frames, height, width), merge)
        if rows.shape != (frames * height * width, cfg.patch_values):
            raise UserError(
                f"Expected {frames * height * width} patches of {cfg.patch_values} values for a "
                f"grid of {frames}x{height}x{width}, found {tuple(rows.shape)}."
            )
        at = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
        cells = at.reshape(height // merge, merge, width // merge, merge, 2).swapaxes(1, 2)
        places.append(np.tile(cells.reshape(-1, 2), (frames, 1)))
        segments.append(np.repeat(np.arange(count, count + frames), height * width))
        count += frames
    out = [np.concatenate(part) for part in (list(values), places, segments)]
    missing = -len(out[0]) % (bucket * cfg.cell)
    fills = (0, 0, _ALONE)
    padded = [
        np.pad(part, [(0, missing), *[(0, 0)] * (part.ndim - 1)], constant_values=fill)
        for part, fill in zip(out, fills, strict=True)
    ]
    return Patches(padded[0], padded[1].astype(np.int32), padded[2].astype(np.int32))


def image_tokens(grid: Grid, cfg: VisionConfig) -> int:
    """Vectors that an image becomes.

    >>> image_tokens((1, 4, 6), VisionConfig())
    6
    """
    _check_grid(grid, cfg.merge)
    return int(np.prod(grid)) // cfg.cell


def position_ids(
    tokens: Int[np.ndarray, "b t"],
    grids: Sequence[Grid],
    cfg: Qwen2VLConfig,
    valid: Bool[np.ndarray, "b t"] | None = None,
) -> tuple[Int[np.ndarray, "3 b t"], Int[np.ndarray, " b"]]:
    """Positions of tokens in time, height and width.

    A text counts on along all three. An image (or video) takes the places of its merged grid from
    the current position on; what follows stands behind its longest side, whatever its duration.

    Args:
      tokens: prompts, with the image (or video) token once for each vector of an image.
      grids: of the images, in the order of the prompts.
      cfg: sizes and options.
      valid: False for padding, whose positions are 0.

    Returns:
      The positions, and for each row what is to be added to the number of tokens before one, for
      tokens that are generated: the largest position and one, less the number of tokens.

    Raises:
      UserError: the numbers of images, or of tokens for them, do not fit.

    References:
      Wang et al. 2024, "Qwen2-VL", section 2.1.

    >>> tokens = np.array([[5, 10, 10, 10, 10, 10, 10, 7]])
    >>> places, delta = position_ids(tokens, [(1, 4, 6)], Qwen2VLConfig.tiny())
    >>> places[:, 0].tolist(), delta.tolist()
    ([[0, 1, 1, 1, 1, 1, 1, 4], [0, 1, 1, 1, 2, 2, 2, 4], [0, 1, 2, 3, 1, 2, 3, 4]], [-3])
    """
    tokens = np.asarray(tokens)
    there = np.ones(tokens.shape, bool) if valid is None else np.asarray(valid, bool)
    out, deltas = np.zeros((3, *tokens.shape), np.int32), np.zeros(len(tokens), np.int32)
    left = list(grids)
    for b, row in enumerate(tokens):
        here = np.flatnonzero(there[b])
        places, last = _row(row[here], left, cfg)
        out[:, b, here] = places
        deltas[b] = last + 1 - len(here)
    if left:
        raise UserError(
            f"Expected places in the prompts for {len(grids)} image(s), found some for "
            f"{len(grids) - len(left)}."
        )
    return out, deltas


def _row(row: np.ndarray, grids: list[Grid], cfg: Qwen2VLConfig) -> tuple[np.ndarray, int]:
    """Positions of one prompt, which takes its grids from the list, and the largest of them."""
    merge = cfg.vision.merge
    image = (row == cfg.image_token) | (row == cfg.video_token)
    out, start, current = np.zeros((3, len(row)), np.int32), 0, 0
    while start < len(row):
        if not image[start]:
            after = np.flatnonzero(image[start:])
            size = int(after[0]) if len(after) else len(row) - start
            out[:, start : start + size] = current + np.arange(size)
            current += size
        else:
            if not grids:
                raise UserError("Expected an image for every place in the prompts, found too few.")
            grid = grids.pop(0)
            size = image_tokens(grid, cfg.vision)
            found = int(np.cumprod(row[start : start + size] == row[start]).sum())
            if found != size:
                raise UserError(
                    f"Expected {size} tokens for an image of {grid[0]}x{grid[1]}x{grid[2]} "
                    f"patches, found {found}."
                )
            merged = (grid[0], grid[1] // merge, grid[2] // merge)
            out[:, start : start + size] = current + np.indices(merged).reshape(3, -1)
            current += max(merged[1:])
        start += size
    return out, int(out.max(initial=-1))


def _check_grid(grid: Grid, merge: int) -> None:
    frames, height, width = grid
    if min(grid) < 1 or height % merge or width % merge:
        raise UserError(
            f"Expected a grid of whole cells of {merge}x{merge} patches, found "
            f"{frames}x{height}x{width}."
        )
