"""From an image of any size to a restored one."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxcore import tiling
from jaxcore.models.dea_net.config import LEAST, MULTIPLE, DEANetConfig
from jaxcore.models.dea_net.model import apply
from jaxcore.models.dea_net.params import deploy
from jaxcore.typing import Params


@functools.partial(jax.jit, static_argnames="cfg")
def _restore(params: Params, images: Array, cfg: DEANetConfig) -> Array:
    return apply(params, images, cfg)


def restore(
    params: Params,
    image: Float[np.ndarray, "*b h w 3"],
    cfg: DEANetConfig,
    *,
    tile: int | None = None,
    overlap: int = 32,
    blend: tiling.Blend = "linear",
    ensemble: bool = False,
    bucket: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "*b h w 3"]:
    """Restore an image, or a batch of images of one size.

    Parameters of the training form are merged first. The channel attention takes means over
    everything it is given at once, so tiles (which bound memory) and padding to a bucket give a
    result that differs slightly from that of the whole image.

    Args:
      params: from `init`, `from_torch`, `reparameterize` or training.
      image: hazy, floats in [0, 1], any size; HWC or NHWC.
      cfg: configuration of the parameters.
      tile: side of tiles in pixels, a multiple of 4 of at least 16; None for the whole image.
      overlap: pixels shared by neighbouring tiles.
      blend: "linear" or "uniform" weights where tiles overlap.
      ensemble: average over the eight flips and quarter turns.
      bucket: pad to multiples of this, itself a multiple of 4, to bound recompilation over a
        folder of many sizes; 64 is sensible.
      progress: called with (network calls done, network calls in all).

    Returns:
      float32 array of the shape of ``image``, on the host, not clipped to [0, 1].

    Raises:
      UserError: the image or an option does not fit.

    >>> from jaxcore.models import dea_net
    >>> cfg = dea_net.DEANetConfig.tiny()
    >>> params = dea_net.init(jax.random.key(0), cfg)
    >>> restore(params, np.zeros((5, 50, 3), np.float32), cfg).shape
    (5, 50, 3)
    """
    params, cfg = deploy(params, cfg)
    return tiling.restore(
        functools.partial(_restore, params, cfg=cfg),
        image,
        multiple=MULTIPLE,
        least=LEAST,
        tile=tile,
        overlap=overlap,
        blend=blend,
        ensemble=ensemble,
        bucket=bucket,
        progress=progress,
    )


def dehaze(
    params: Params,
    image: Float[np.ndarray, "*b h w 3"],
    cfg: DEANetConfig,
    tile: int | None = None,
) -> Float[np.ndarray, "*b h w 3"]:
    """:func:`restore`, clipped to [0, 1] as the published evaluation does."""
    return np.clip(restore(params, image, cfg, tile=tile), 0, 1)
