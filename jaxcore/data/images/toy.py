"""Synthetic scenes with noise or haze: an experiment of minutes that needs no files.

A scene is a smooth ground with six coloured rectangles, 64x64 pixels. Items alternate between
noise (sigma 25, the protocol's clipping and truncation) and haze over a smooth depth.
"""

import numpy as np

from jaxcore.data.images.degradations import gaussian_noise, haze
from jaxcore.data.images.sources import ArraySource, Group

SIDE = 64  # pixels


def toy_groups(seed: int, count: int) -> tuple[Group, Group]:
    """Groups "noise25" and "haze" with ``count / 2`` fixed pairs each.

    Args:
      seed: of NumPy's legacy generator; 1 is the training set and 2 the test set of the
        acceptance experiment.
      count: scenes in all; even.

    >>> noise, hazy = toy_groups(2, 4)
    >>> len(noise.source), hazy.source[0]["degraded"].shape
    (2, (64, 64, 3))
    """
    rng = np.random.RandomState(seed)  # the experiment is defined by this stream
    pairs: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {"noise25": {}, "haze": {}}
    for i in range(count):
        clean = _scene(rng)
        name, make = (("noise25", _noisy), ("haze", _hazy))[i % 2]
        pairs[name][f"{i:04d}"] = (_sixteen_bits(make(clean, rng)), _sixteen_bits(clean))
    return Group("noise25", ArraySource(pairs["noise25"])), Group(
        "haze", ArraySource(pairs["haze"])
    )


def toy_haze(seed: int, count: int) -> Group:
    """Group "haze" with ``count`` fixed pairs; another stream than that of `toy_groups`.

    >>> len(toy_haze(2, 4).source)
    4
    """
    rng = np.random.RandomState(seed)
    pairs = {}
    for i in range(count):
        clean = _scene(rng)
        pairs[f"{i:04d}"] = (_sixteen_bits(_hazy(clean, rng)), _sixteen_bits(clean))
    return Group("haze", ArraySource(pairs))


def _scene(rng: np.random.RandomState) -> np.ndarray:
    image = _enlarge(rng.rand(3, 4, 4))
    for _ in range(6):
        height, width = rng.randint(8, 33), rng.randint(8, 33)
        top, left = rng.randint(0, 57), rng.randint(0, 57)
        image[:, top : top + height, left : left + width] = rng.rand(3)[:, None, None]
    return image.transpose(1, 2, 0)


def _noisy(clean: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    # Drawn channel by channel, as the stream of the experiment is.
    noise = rng.randn(3, SIDE, SIDE).transpose(1, 2, 0)
    return gaussian_noise(np.round(255 * clean).astype(np.uint8), 25.0, noise) / 255


def _hazy(clean: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    depth = _enlarge(rng.rand(1, 3, 3))[0]
    beta, airlight = rng.uniform(0.6, 1.8), rng.uniform(0.7, 1.0)
    return haze(clean, 0.2 + depth, beta, airlight)


def _enlarge(coarse: np.ndarray) -> np.ndarray:
    """Bilinear to 64x64 with half-pixel centres; the border value continues outwards."""
    for axis in (1, 2):
        length = coarse.shape[axis]
        at = np.clip((np.arange(SIDE) + 0.5) * length / SIDE - 0.5, 0, length - 1)
        low = np.minimum(at.astype(int), length - 2)
        share = np.expand_dims(at - low, tuple(a for a in range(3) if a != axis))
        below, above = (np.take(coarse, low + k, axis=axis) for k in (0, 1))
        coarse = below * (1 - share) + above * share
    return coarse


def _sixteen_bits(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0, 1) * 65535).astype(np.uint16)
