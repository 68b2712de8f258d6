"""What a wavelet transform must be able to, to say which structure of an image is significant."""

from typing import Protocol

import numpy as np
from jaxtyping import Array, Float

from jaxcore.ops.starlet import Boundary


class Dictionary(Protocol):
    """`Starlet` and `Stationary` are such; a transform of your own needs these names.

    It is a static argument of compiled functions: equal transforms must be equal and have equal
    hashes, as named tuples of plain values have.
    """

    @property
    def n_scales(self) -> int:
        """Number of scales."""
        ...

    @property
    def per_scale(self) -> int:
        """Wavelet planes of every scale."""
        ...

    @property
    def boundary(self) -> Boundary:
        """What is beyond the borders."""
        ...

    def planes(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b j h w"]:
        """Wavelet planes, finest scale first, and the coarse plane."""
        ...

    def image(self, planes: Float[Array, "*b j h w"]) -> Float[Array, "*b h w"]:
        """The inverse."""
        ...

    def norms(self) -> np.ndarray:
        """Standard deviation of every wavelet plane of white noise of standard deviation one."""
        ...

    def transfer(self, shape: tuple[int, int]) -> np.ndarray:
        """Modulus of every wavelet plane's transfer function on a periodic image."""
        ...

    def noise_maps(self, variance: Float[Array, "*b h w"]) -> Float[Array, "*b j h w"]:
        """Standard deviation of every wavelet coefficient, from the variance of every pixel."""
        ...
