"""Photographs that come inside the wheels of scikit-image and scikit-learn."""

from typing import NamedTuple

import numpy as np

from jaxcore.errors import UserError


class Photo(NamedTuple):
    """A photograph and where it is from."""

    name: str
    image: np.ndarray  # uint8, (height, width, 3)
    source: str


def demo_photos() -> tuple[list[Photo], list[Photo]]:
    """Training and held-out photographs.

    Sources and licences are those their packages state: see the docstrings of ``skimage.data``
    and the README of ``sklearn/datasets/images`` (Creative Commons Attribution).

    Raises:
      UserError: a package is missing.
    """
    try:
        from skimage import data
        from sklearn.datasets import load_sample_image
    except ImportError:
        raise UserError(
            "Expected scikit-image and scikit-learn for the photographs, found one missing; "
            "install jaxcore[demo]."
        ) from None

    def skimage(name: str) -> Photo:
        return Photo(name, np.asarray(getattr(data, name)())[..., :3], f"skimage.data.{name}")

    def sklearn(name: str) -> Photo:
        image = np.asarray(load_sample_image(f"{name}.jpg"))
        return Photo(name, image, f"sklearn.datasets.load_sample_image, {name}.jpg")

    train = [skimage(n) for n in ("astronaut", "coffee", "rocket")] + [sklearn("china")]
    return train, [skimage("chelsea"), sklearn("flower")]
