"""Pictures for people: plots, and images side by side with a line of text under each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxcore.errors import UserError

_LINE = 18  # height of a caption, pixels
_GAP = 4  # white space between cells, pixels

Cell = tuple[np.ndarray, str]
"""An image with values in [0, 1], (height, width, 3) or (height, width), and its caption."""


def new_figure(width: float, height: float) -> Any:
    """An empty figure of Matplotlib that belongs to no window.

    Args:
      width: inches.
      height: inches.

    Raises:
      UserError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "Expected matplotlib for plots (pip install 'jaxcore[plots]'), found it is not "
            "installed."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def grid(rows: Sequence[Sequence[Cell]]) -> UInt8[np.ndarray, "h w 3"]:
    """Lay captioned images out in rows; rows and cells may differ in size.

    Values outside [0, 1] are clipped.

    >>> grid([[(np.zeros((8, 60, 3)), "in"), (np.ones((8, 60)), "out")]]).shape
    (34, 132, 3)
    """
    lines = [_row([_cell(image, text) for image, text in row]) for row in rows]
    width = max(line.shape[1] for line in lines)
    return np.concatenate([_fill(line, line.shape[0], width) for line in lines])


def to_uint8(image: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    """Round an image in [0, 1] to 8 bits; values outside are clipped.

    >>> to_uint8(np.array([[[-1.0, 0.5, 2.0]]])).tolist()
    [[[0, 128, 255]]]
    """
    return np.round(np.clip(np.asarray(image, np.float64), 0, 1) * 255).astype(np.uint8)


def _cell(image: np.ndarray, text: str) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = np.asarray(image)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    pixels = to_uint8(image)
    caption = Image.new("RGB", (pixels.shape[1], _LINE), "white")
    ImageDraw.Draw(caption).text((2, 3), text, fill="black")
    cell = np.concatenate([pixels, np.asarray(caption)])
    return np.pad(cell, ((_GAP, _GAP), (_GAP // 2, _GAP // 2), (0, 0)), constant_values=255)


def _row(cells: Sequence[np.ndarray]) -> np.ndarray:
    height = max(cell.shape[0] for cell in cells)
    row = np.concatenate([_fill(cell, height, cell.shape[1]) for cell in cells], axis=1)
    return np.pad(row, ((0, 0), (_GAP // 2, _GAP // 2), (0, 0)), constant_values=255)


def _fill(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """White space at the bottom and the right."""
    pads = ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))
    return np.pad(image, pads, constant_values=255)
