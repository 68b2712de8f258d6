"""Degradations made on the fly, in NumPy, with explicit randomness."""

import numpy as np
from jaxtyping import Float, UInt8


def gaussian_noise(
    clean: UInt8[np.ndarray, "h w c"], sigma: float, noise: Float[np.ndarray, "h w c"]
) -> UInt8[np.ndarray, "h w c"]:
    """Noise of the restoration protocol: clipped and truncated (not rounded) to uint8.

    Args:
      clean: image.
      sigma: standard deviation in grey levels.
      noise: standard normal draws.

    >>> gaussian_noise(np.full((1, 1, 1), 10, np.uint8), 1.0, np.full((1, 1, 1), 0.9)).item()
    10
    """
    return np.clip(clean + sigma * noise, 0, 255).astype(np.uint8)


def haze(
    clean: Float[np.ndarray, "h w c"],
    depth: Float[np.ndarray, "h w"],
    beta: float,
    airlight: float,
) -> Float[np.ndarray, "h w c"]:
    """Haze model ``I = J t + A (1 - t)`` with ``t = exp(-beta depth)``.

    Args:
      clean: image in [0, 1].
      depth: distance in units of ``1 / beta``, at least 0.
      beta: scattering coefficient.
      airlight: A, in [0, 1].

    >>> haze(np.zeros((1, 1, 1)), np.zeros((1, 1)), 1.0, 0.9).item()
    0.0
    """
    t = np.exp(-beta * depth)[..., None]
    return clean * t + airlight * (1 - t)
