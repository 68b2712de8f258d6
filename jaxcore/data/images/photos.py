"""Photographs that come inside the wheels of scikit-image and scikit-learn; nothing is downloaded.

The list holds every colour photograph of an ordinary scene in the two wheels whose package states
a licence. Left out are the stereo pair ``motorcycle`` (no licence is stated), and pictures that
are no photographs of scenes: the Hubble field, the retina, the microscope slides, the text, the
colour wheel. The grey ones are left out since the networks are for colour.
"""

from typing import NamedTuple

import numpy as np

from jaxcore.errors import UserError


class Photo(NamedTuple):
    """A photograph, where it is from, and its licence as its package states it."""

    name: str
    image: np.ndarray  # uint8, (height, width, 3)
    source: str
    licence: str


class _Entry(NamedTuple):
    package: str
    held_out: bool
    source: str
    licence: str


_PHOTOS = {
    "astronaut": _Entry(
        "skimage", False, "NASA, Great Images database", "public domain, no known restrictions"
    ),
    "coffee": _Entry("skimage", False, "Rachel Michetti", "CC0"),
    "rocket": _Entry("skimage", False, "SpaceX, DSCOVR launch", "public domain"),
    "china": _Entry("sklearn", False, "danielbuechele, Flickr 6061409035", "CC BY 2.0"),
    "chelsea": _Entry("skimage", True, "Stefan van der Walt", "CC0"),
    "flower": _Entry("sklearn", True, "vultilion, Flickr 6056698931", "CC BY 2.0"),
}


def demo_photos() -> tuple[list[Photo], list[Photo]]:
    """Training and held-out photographs.

    Sources and licences are those of the docstrings of ``skimage.data`` and of
    ``sklearn/datasets/images/README.txt``.

    Raises:
      UserError: a package is missing.

    >>> [photo.name for photo in demo_photos()[1]]
    ['chelsea', 'flower']
    """
    try:
        import skimage.data
        from sklearn.datasets import load_sample_image
    except ImportError:
        raise UserError(
            "Expected scikit-image and scikit-learn for the photographs, found one missing; "
            "install jaxcore[demo]."
        ) from None

    def load(name: str, entry: _Entry) -> Photo:
        if entry.package == "skimage":
            image, where = getattr(skimage.data, name)(), f"skimage.data.{name}"
        else:
            image = load_sample_image(f"{name}.jpg")
            where = f"sklearn.datasets.load_sample_image, {name}.jpg"
        return Photo(name, np.asarray(image), f"{entry.source} ({where})", entry.licence)

    train, held_out = [], []
    for name, entry in _PHOTOS.items():
        (held_out if entry.held_out else train).append(load(name, entry))
    return train, held_out
