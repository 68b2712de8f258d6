"""What a saved fit holds of images and networks, and how both come back.

Pixels are saved where they are an array in memory. Those of files, functions and rasters stay where
they are: the fit comes back with all but what has to look at them, until they are given again.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcore.data.geo.bands import BandSpec
from jaxcore.data.geo.keyed import KeyedImages, Rows
from jaxcore.data.image_units import sampled
from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding.images import Images
from jaxcore.estimators.image_confounding.networks import Fits
from jaxcore.train.tasks.image_fits import ImageFits


@dataclasses.dataclass(frozen=True, eq=False)
class Elsewhere:
    """Pixels that a saved fit does not hold; rows are refused."""

    shape: tuple[int, ...]
    dtype: Any
    digest: str  # of some of them

    def __getitem__(self, rows: Any) -> Any:
        raise UserError(
            "Expected a fit with its images, found one that was saved without them, as they were "
            "no array in memory: give them again (`with_images`)."
        )


def digest(pixels: Rows) -> str:
    """The same for the same images, by a look at some of them.

    >>> digest(np.zeros((2, 1, 1, 1))) == digest(np.ones((2, 1, 1, 1)))
    False
    """
    if isinstance(pixels, Elsewhere):
        return pixels.digest
    a = np.ascontiguousarray(sampled(pixels))
    return hashlib.sha256(f"{a.dtype}{a.shape}".encode() + a.tobytes()).hexdigest()[:32]


def of_images(images: Images) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON and arrays of images."""
    keyed = images.keyed
    more = {
        "keys": [str(key) for key in keyed.keys],
        "bands": None if keyed.bands is None else dataclasses.asdict(keyed.bands),
        "notices": list(keyed.notices),
        "shape": [int(side) for side in keyed.images.shape],
        "dtype": np.dtype(keyed.images.dtype).str,
        "digest": digest(keyed.images),
    }
    arrays = {"row": images.row, "mean": images.mean, "sd": images.sd, "coords": keyed.coords}
    if type(keyed.images) is np.ndarray or isinstance(keyed.images, jax.Array):
        arrays["pixels"] = np.asarray(keyed.images)
    return more, arrays


def images_from(more: Mapping[str, Any], arrays: Mapping[str, Any]) -> Images:
    """Inverse of `of_images`, but for pixels that were not saved."""
    told, shape = more["bands"], tuple(more["shape"])
    pixels = arrays.get("pixels")
    if pixels is None:
        pixels = Elsewhere(shape, np.dtype(more["dtype"]), more["digest"])
    elif pixels.shape != shape:
        raise ValueError(f"pixels {pixels.shape}")
    keyed = KeyedImages(
        pixels,
        more["keys"],
        bands=None if told is None else BandSpec(**told),
        coords=arrays.get("coords"),
        notices=tuple(more["notices"]),
    )
    return Images(keyed, arrays["row"], arrays["mean"], arrays["sd"])


def given_again(images: Images, given: Any) -> Images:
    """The same images with their pixels.

    Args:
      images: of a fit.
      given: `KeyedImages` with the keys of the fit, or an array in the order of the fit.

    Raises:
      UserError: images of another shape, or others than those of the fit.
    """
    own = images.keyed
    if not isinstance(given, KeyedImages):
        given = KeyedImages(given if hasattr(given, "shape") else np.asarray(given), own.keys)
    wanted, rows = tuple(own.images.shape[1:]), given.rows_of(own.keys)
    if tuple(given.images.shape[1:]) != wanted:
        raise UserError(
            f"Expected images of shape {wanted}, as in the fit, found {given.images.shape[1:]}."
        )
    same = len(rows) == len(given) and np.array_equal(rows, np.arange(len(rows)))
    pixels: Any = given.images if same else np.asarray(given.images[rows])
    if digest(pixels) != digest(own.images):
        raise UserError("Expected the images of the fit, found others with the same keys.")
    return dataclasses.replace(images, keyed=dataclasses.replace(own, images=pixels))


def of_networks(every: Sequence[Fits]) -> dict[str, Any]:
    """Arrays of networks."""
    return {
        str(i): {"params": one.params, "collections": one.collections, "outputs": one.outputs}
        for i, one in enumerate(every)
    }


def networks_from(tree: Mapping[str, Any], tasks: Sequence[ImageFits]) -> list[Fits]:
    """Inverse of `of_networks`, with the tasks that they were trained for."""
    if len(tree) != len(tasks):
        raise ValueError(f"{len(tree)} networks")
    found = (tree[str(i)] for i in range(len(tasks)))
    return [
        Fits(task, one["params"], one.get("collections", {}), one["outputs"])
        for task, one in zip(tasks, found, strict=True)
    ]


def seeing(every: Sequence[Fits], pixels: Rows) -> list[Fits]:
    """Networks whose units have these pixels."""
    return [
        one._replace(
            task=dataclasses.replace(
                one.task, units=dataclasses.replace(one.task.units, images=pixels)
            )
        )
        for one in every
    ]
