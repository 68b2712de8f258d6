"""All classical methods under one interface, so that a comparison is a loop over a table."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from jaxtyping import Array

from jaxcore.models.deconvolution.richardson_lucy import richardson_lucy
from jaxcore.models.deconvolution.sparse import sparse_starlet
from jaxcore.models.deconvolution.tikhonov import restore_tikhonov
from jaxcore.models.deconvolution.two_channel import two_channel
from jaxcore.models.deconvolution.wiener import wiener

Method: TypeAlias = Callable[..., Array]
"""``method(y, psf, *, sigma=..., weights=None, target_psf=None, **its own)`` returns images.

``y`` holds observations ``(..., h, w)``; the PSF lies on the grid of the result, whose pixels are
as large or divide those of ``y``; ``sigma`` is the noise of a pixel of ``y``; ``weights`` of
its pixels are 0 for missing ones, up to 1; ``target_psf`` is the PSF of the result.
"""

METHODS: Mapping[str, Method] = {
    "tikhonov": restore_tikhonov,
    "wiener": wiener,
    "richardson_lucy": richardson_lucy,
    "sparse": sparse_starlet,
    "two_channel": two_channel,
}
"""Name -> method, the simplest first."""
