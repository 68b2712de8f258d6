"""Photographs that come inside the wheels of scikit-image and scikit-learn; nothing is downloaded.

Degraded are colour photographs of ordinary scenes. Others (grey ones, textures, pictures through
a microscope or a telescope, and such as look hazy by themselves) are shown to a network as they
are, so that it learns what to leave alone. All have a licence that their package states;
``moon`` and the stereo pair ``motorcycle`` have none.
"""

from typing import Literal, NamedTuple

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
    use: Literal["train", "held out", "as it is"]
    source: str
    licence: str


_PHOTOS = {
    "astronaut": _Entry(
        "skimage", "train", "NASA, Great Images database", "public domain, no known restrictions"
    ),
    "coffee": _Entry("skimage", "train", "Rachel Michetti", "CC0"),
    "rocket": _Entry("skimage", "train", "SpaceX, DSCOVR launch", "public domain"),
    "china": _Entry("sklearn", "train", "danielbuechele, Flickr 6061409035", "CC BY 2.0"),
    "chelsea": _Entry("skimage", "held out", "Stefan van der Walt", "CC0"),
    "flower": _Entry("sklearn", "held out", "vultilion, Flickr 6056698931", "CC BY 2.0"),
    "brick": _Entry("skimage", "as it is", "CC0Textures, Bricks25", "CC0"),
    "camera": _Entry("skimage", "as it is", "Lav Varshney", "CC0"),
    "clock": _Entry("skimage", "as it is", "Stefan van der Walt", "public domain"),
    "coins": _Entry("skimage", "as it is", "Brooklyn Museum", "no known restrictions"),
    "gravel": _Entry("skimage", "as it is", "CC0Textures, Gravel04", "CC0"),
    "hubble_deep_field": _Entry("skimage", "as it is", "NASA, HubbleSite", "public domain"),
    "immunohistochemistry": _Entry("skimage", "as it is", "CMMI", "no known restrictions"),
    "retina": _Entry("skimage", "as it is", "Häggström, Wikimedia", "CC0"),
    "text": _Entry("skimage", "as it is", "Wikipedia, Corner.png", "public domain"),
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
    return _photos("train"), _photos("held out")


def photos_as_they_are() -> list[Photo]:
    """Photographs that are shown to a network in training without a degradation.

    >>> [photo.name for photo in photos_as_they_are()][:6]
    ['astronaut', 'coffee', 'rocket', 'china', 'brick', 'camera']
    """
    return [*_photos("train"), *_photos("as it is")]


def _photos(use: str) -> list[Photo]:
    return [_load(name, entry) for name, entry in _PHOTOS.items() if entry.use == use]


def _load(name: str, entry: _Entry) -> Photo:
    try:
        import skimage.data
        from sklearn.datasets import load_sample_image
    except ImportError:
        raise UserError(
            "Expected scikit-image and scikit-learn for the photographs, found one missing; "
            "install jaxcore[demo]."
        ) from None

    if entry.package == "skimage":
        image, where = np.asarray(getattr(skimage.data, name)()), f"skimage.data.{name}"
    else:
        image = load_sample_image(f"{name}.jpg")
        where = f"sklearn.datasets.load_sample_image, {name}.jpg"
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return Photo(name, image, f"{entry.source} ({where})", entry.licence)
