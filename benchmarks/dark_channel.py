"""Dehazing without learning: the dark channel prior (He, Sun and Tang, CVPR 2009).

The darkest of all channels in a neighbourhood is near zero in clear outdoor pictures; what it is
in a hazy one tells the transmission, which a guided filter (He, Sun and Tang, ECCV 2010) fits to
the edges of the picture.
"""

import numpy as np
from scipy.ndimage import minimum_filter, uniform_filter

PATCH = 15  # side of the neighbourhood, pixels
KEPT = 0.95  # share of the haze that is taken away
LEAST = 0.1  # transmission
RADIUS, SMOOTH = 30, 1e-3  # of the guided filter: pixels, and its regularisation


def dehaze(hazy: np.ndarray) -> np.ndarray:
    """Dehaze a picture (h, w, 3) of floats in [0, 1], with the constants of the papers."""
    hazy = hazy.astype(np.float64)
    dark = minimum_filter(hazy.min(axis=-1), PATCH)
    brightest = np.argsort(dark.ravel())[-max(1, dark.size // 1000) :]
    airlight = hazy.reshape(-1, 3)[brightest].max(axis=0)
    through = 1 - KEPT * minimum_filter((hazy / airlight).min(axis=-1), PATCH)
    through = np.maximum(_guided(hazy.mean(axis=-1), through), LEAST)[..., None]
    return np.clip((hazy - airlight) / through + airlight, 0, 1)


def _guided(guide: np.ndarray, image: np.ndarray) -> np.ndarray:
    def mean(x: np.ndarray) -> np.ndarray:
        return uniform_filter(x, 2 * RADIUS + 1)

    means = mean(guide), mean(image)
    slope = (mean(guide * image) - means[0] * means[1]) / (mean(guide**2) - means[0] ** 2 + SMOOTH)
    return mean(slope) * guide + mean(means[1] - slope * means[0])
