"""Other looks of a clean picture, for training: exposure, contrast, colour, sharpness.

A picture of low contrast, dark, pale, blurred or grey is as clean as any other. A network that
has seen such pictures does not take them for degraded.
"""

import numpy as np
from jaxtyping import UInt8

_LEVELS = np.arange(256, dtype=np.float32) / 255
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_GREY = 3  # channels of a grey picture differ by less, grey levels on average


def is_grey(image: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a picture has no colour to speak of.

    >>> is_grey(np.full((4, 4, 3), 90, np.uint8))
    True
    """
    thin = image[::4, ::4].astype(np.int16)
    return float(np.ptp(thin, axis=-1).mean()) < _GREY


def colour_look(
    clean: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Another exposure and saturation; black stays black, grey stays grey.

    >>> black = np.zeros((4, 4, 3), np.uint8)
    >>> int(colour_look(black, np.random.default_rng(0)).max())
    0
    """
    gamma, white = np.exp(rng.uniform(-0.3, 0.3)), rng.uniform(0.75, 1)
    clean = _saturated(clean, rng.uniform(0.7, 1.3))
    return _table(white * _LEVELS**gamma)[clean]


def colour_or_grey_look(
    clean: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """`colour_look`, and two fifths of the pictures without colour, of `any_look`.

    For haze, which is put on colour only: beside it are grey pictures that stay as they are.

    >>> photo = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    >>> colour_or_grey_look(photo, np.random.default_rng(0)).shape
    (8, 8, 3)
    """
    if rng.random() < 0.4:
        return any_look(_saturated(clean, 0.0), rng)
    return colour_look(clean, rng)


def any_look(
    clean: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Any exposure, contrast, tint and sharpness; a third of the pictures without colour.

    >>> photo = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    >>> any_look(photo, np.random.default_rng(0)).shape
    (8, 8, 3)
    """
    if rng.random() < 0.2:
        clean = _blurred(clean, rng.uniform(0.5, 3))
    grey = rng.random() < 0.33 or is_grey(clean)
    clean = _saturated(clean, 0.0 if grey else rng.uniform(0.3, 1.3))
    curve = _LEVELS ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.5:
        span = rng.uniform(0.2, 1)
        # Pale and coloured, as in fog, is one of them; fog differs by growing with the distance.
        pale = grey or rng.random() < 0.2
        curve = rng.uniform(0, 1 - span if pale else min(1 - span, 0.15)) + span * curve
    if rng.random() < 0.7:
        return _table(curve)[clean]
    tints = rng.uniform(0.8, 1, 3)
    return np.stack([_table(t * curve)[clean[..., i]] for i, t in enumerate(tints)], axis=-1)


def _table(curve: np.ndarray) -> np.ndarray:
    """A level for each of the 256, from a curve in [0, 1]."""
    return np.round(255 * curve).astype(np.uint8)


def _saturated(image: np.ndarray, amount: float) -> np.ndarray:
    grey = (image @ _LUMA)[..., None]
    mixed = grey + np.float32(amount) * (image - grey)
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def _blurred(image: np.ndarray, radius: float) -> np.ndarray:
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
