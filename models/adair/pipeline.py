"""From an image of any size to a restored one."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxcore import tiling
from jaxcore.models.adair.config import MULTIPLE, AdaIRConfig
from jaxcore.models.adair.model import apply
from jaxcore.typing import Params


@functools.partial(jax.jit, static_argnames="cfg")
def _restore(params: Params, images: Array, cfg: AdaIRConfig) -> Array:
    return apply(params, images, cfg)


def restore(
    params: Params,
    image: Float[np.ndarray, "*b h w i"],
    cfg: AdaIRConfig,
    *,
    tile: int | None = None,
    overlap: int = 32,
    blend: tiling.Blend = "linear",
    ensemble: bool = False,
    bucket: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "*b h w i"]:
    """Restore an image, or a batch of images of one size.

    Attention, norms over pixels and global pools of the network see everything it is given at
    once. So tiles (which bound memory) give a result that differs from that of the whole image,
    and padding to a bucket shifts the statistics slightly. For images much larger than the
    training patches, ``cfg.stat_window`` keeps the statistics local instead.

    Args:
      params: from `init` or `from_torch`.
      image: degraded, floats in [0, 1], any size; HWC or NHWC.
      cfg: configuration of the parameters.
      tile: side of tiles in pixels, a multiple of 8 (256 to 512 is sensible); None for the whole
        image.
      overlap: pixels shared by neighbouring tiles.
      blend: "linear" or "uniform" weights where tiles overlap.
      ensemble: average over the eight flips and quarter turns.
      bucket: pad to multiples of this, itself a multiple of 8, to bound recompilation over a
        folder of many sizes; 64 is sensible.
      progress: called with (network calls done, network calls in all).

    Returns:
      float32 array of the shape of ``image``, on the host, not clipped to [0, 1].

    Raises:
      UserError: the image or an option does not fit.

    >>> from jaxcore.models import adair
    >>> cfg = adair.AdaIRConfig.tiny()
    >>> params = adair.init(jax.random.key(0), cfg)
    >>> restore(params, np.zeros((37, 50, 3), np.float32), cfg).shape
    (37, 50, 3)
    """
    return tiling.restore(
        functools.partial(_restore, params, cfg=cfg),
        image,
        multiple=MULTIPLE,
        tile=tile,
        overlap=overlap,
        blend=blend,
        ensemble=ensemble,
        bucket=bucket,
        progress=progress,
    )
