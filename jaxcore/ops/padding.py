"""Padding images to sizes a network accepts, and cropping back."""

import numpy as np
from jaxtyping import Float


def round_up(length: int, multiple: int) -> int:
    """Smallest multiple that is not below ``length``.

    >>> round_up(37, 8), round_up(40, 8)
    (40, 40)
    """
    return -(-length // multiple) * multiple


def pad_to(
    images: Float[np.ndarray, "*b h w c"], height: int, width: int
) -> Float[np.ndarray, "*b h2 w2 c"]:
    """Pad at the bottom and the right by reflection.

    Reflection repeats all but the border pixel, so it can add one pixel less than an axis has;
    where more is needed the border pixel is repeated too ("symmetric"), as often as necessary.

    Args:
      images: on the host; axes before height are batch axes.
      height: height of the result, at least that of the images.
      width: width of the result, at least that of the images.

    >>> pad_to(np.arange(3.0).reshape(1, 3, 1), 1, 5).ravel()
    array([0., 1., 2., 1., 0.])
    >>> pad_to(np.arange(2.0).reshape(1, 2, 1), 1, 5).ravel()
    array([0., 1., 1., 0., 0.])
    """
    for axis, target in ((-3, height), (-2, width)):
        length = images.shape[axis]
        pads = [(0, 0)] * images.ndim
        pads[axis] = (0, target - length)
        images = np.pad(images, pads, "reflect" if target < 2 * length else "symmetric")
    return images


def pad_to_multiple(
    images: Float[np.ndarray, "*b h w c"], multiple: int
) -> Float[np.ndarray, "*b h2 w2 c"]:
    """Pad height and width up to multiples, at the bottom and the right; see :func:`pad_to`.

    >>> pad_to_multiple(np.zeros((37, 50, 3)), 8).shape
    (40, 56, 3)
    """
    height, width = (round_up(n, multiple) for n in images.shape[-3:-1])
    return pad_to(images, height, width)


def crop(
    images: Float[np.ndarray, "*b h w c"], height: int, width: int
) -> Float[np.ndarray, "*b h2 w2 c"]:
    """Upper left part: undoes the padding of this module.

    >>> crop(np.zeros((40, 56, 3)), 37, 50).shape
    (37, 50, 3)
    """
    return images[..., :height, :width, :]
