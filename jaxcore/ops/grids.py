"""From the pixels of a camera to the finer pixels of the restored image, and back."""

from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.ops.starlet import fold

Upsampling: TypeAlias = Literal["mirror", "edge", "bicubic"]


def factor_between(coarse: tuple[int, ...], fine: tuple[int, ...]) -> int:
    """How many fine pixels lie along the side of a coarse one.

    Args:
      coarse: shape of the observations.
      fine: shape of the PSF, which is that of the restored image.

    Raises:
      UserError: the sides do not have one whole ratio.

    >>> factor_between((32, 32), (128, 128))
    4
    """
    (h, w), (rows, cols) = coarse[-2:], fine[-2:]
    if h == 0 or w == 0 or rows % h or cols % w or rows // h != cols // w or rows < h:
        raise UserError(
            "Expected a PSF on the grid of the restored image, whose height and width are the "
            f"same whole multiple of those of the observation, found {rows} x {cols} for an "
            f"observation of {h} x {w}."
        )
    return rows // h


def upsample_flux(
    y: Float[Array, "*b h w"], factor: int, mode: Upsampling = "mirror"
) -> Float[Array, "*b h2 w2"]:
    """Interpolate to a finer grid and keep the flux: ``factor**2`` pixels share that of one.

    Args:
      y: images in the last two axes.
      factor: fine pixels per coarse pixel along each axis.
      mode: "mirror": bilinear, pixels beyond the border mirrored about the centre of the border
        pixel (the official code); "edge": bilinear, border pixels repeated; "bicubic": cubic with
        repeated border pixels.

    >>> upsample_flux(jnp.array([[0.0, 8.0], [0.0, 8.0]]), 2)[0].tolist()
    [0.5, 0.5, 1.5, 1.5]
    """
    for axis in (-2, -1):
        matrix = jnp.asarray(_weights(y.shape[axis], factor, mode) / factor, y.dtype)
        product = jnp.matmul(jnp.moveaxis(y, axis, -1), matrix.T, precision="highest")
        y = jnp.moveaxis(product, -1, axis)
    return y


def _weights(length: int, factor: int, mode: Upsampling) -> np.ndarray:
    """Row ``i``: the weights of the coarse pixels that make up fine pixel ``i``."""
    if mode not in ("mirror", "edge", "bicubic"):
        raise UserError(f"Expected an upsampling mirror, edge or bicubic, found {mode!r}.")
    position = (np.arange(length * factor) + 0.5) / factor - 0.5
    reach = 2 if mode == "bicubic" else 1
    first = np.floor(position).astype(int)
    matrix = np.zeros((len(position), length))
    for offset in range(1 - reach, reach + 1):
        distance = np.abs(position - (first + offset))
        weight = _cubic(distance) if mode == "bicubic" else 1 - distance
        place = first + offset
        if mode == "mirror":
            place = fold(place, length, "reflect")
        np.add.at(matrix, (np.arange(len(position)), np.clip(place, 0, length - 1)), weight)
    return matrix


def _cubic(distance: np.ndarray, a: float = -0.5) -> np.ndarray:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def rebin(x: Float[Array, "*b h2 w2"], factor: int) -> Float[Array, "*b h w"]:
    """Sum blocks of ``factor x factor`` pixels: what coarser pixels collect.

    >>> rebin(jnp.ones((4, 4)), 2).tolist()
    [[4.0, 4.0], [4.0, 4.0]]
    """
    if factor == 1:
        return x
    h, w = x.shape[-2] // factor, x.shape[-1] // factor
    return x.reshape(*x.shape[:-2], h, factor, w, factor).sum((-3, -1))


def replicate(y: Float[Array, "*b h w"], factor: int) -> Float[Array, "*b h2 w2"]:
    """Repeat every pixel ``factor x factor`` times: the adjoint of :func:`rebin`.

    >>> replicate(jnp.eye(2), 2)[0].tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    return jnp.repeat(jnp.repeat(y, factor, axis=-2), factor, axis=-1)
