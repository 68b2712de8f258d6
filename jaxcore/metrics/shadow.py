"""Shadow removal: errors in the shadow, outside of it, and everywhere."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.metrics.image import psnr

# Linear sRGB to XYZ, adapted (Bradford) to the white of CIE D50, as colour profiles have it.
_TO_XYZ = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ],
    np.float32,
)
_WHITE = _TO_XYZ.sum(axis=1)


def srgb_to_lab(image: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """CIE L*a*b* (white D50) of sRGB in [0, 1].

    >>> srgb_to_lab(jnp.ones((1, 1, 3))).round(2).ravel().tolist()
    [100.0, 0.0, 0.0]
    """
    image = jnp.clip(image.astype(jnp.float32), 0, 1)
    curved = ((jnp.maximum(image, 0.04045) + 0.055) / 1.055) ** 2.4
    linear = jnp.where(image <= 0.04045, image / 12.92, curved)
    xyz = jnp.einsum("...c,dc->...d", linear, _TO_XYZ / _WHITE[:, None], precision="highest")
    delta = 6 / 29
    root = jnp.cbrt(jnp.maximum(xyz, delta**3))
    f = jnp.where(xyz > delta**3, root, xyz / (3 * delta**2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def shadow_scores(
    image: Float[Array, "*b h w 3"],
    target: Float[Array, "*b h w 3"],
    mask: Float[Array, "*b h w 1"],
) -> dict[str, Float[Array, "*b"]]:
    """The figures that papers on shadow removal print, for each image.

    Outside its region an image counts as black in the PSNR: pixels that are no error there still
    count, so the PSNR of a small region is high. The error in Lab is the sum of absolute
    differences over the three channels per pixel of the region; some papers call it RMSE.

    Args:
      image: shadow removed; clipped to [0, 1].
      target: free of shadow.
      mask: 1 in the shadow, 0 outside; anything from one half up counts as shadow.

    Returns:
      ``psnr_all``, ``psnr_shadow``, ``psnr_free`` (dB), ``lab_all``, ``lab_shadow``, ``lab_free``;
      an error in Lab is NaN where the region is empty.

    Raises:
      UserError: the shapes do not fit.

    >>> half = jnp.zeros((2, 2, 1)).at[0].set(1)
    >>> scores = shadow_scores(jnp.full((2, 2, 3), 0.5), jnp.full((2, 2, 3), 0.5), half)
    >>> float(scores["lab_shadow"]), float(scores["psnr_all"])
    (0.0, inf)
    """
    expected = (*image.shape[:-1], 1)
    if mask.shape != expected or target.shape != image.shape:
        raise UserError(
            f"Expected a target of shape {image.shape} and a mask of shape {expected}, found "
            f"{target.shape} and {mask.shape}."
        )
    image, target = (jnp.clip(a.astype(jnp.float32), 0, 1) for a in (image, target))
    shadow = (mask >= 0.5).astype(jnp.float32)
    regions = {"all": jnp.ones_like(shadow), "shadow": shadow, "free": 1 - shadow}
    gap = jnp.abs(srgb_to_lab(image) - srgb_to_lab(target))
    scores = {}
    for name, region in regions.items():
        scores[f"psnr_{name}"] = psnr(image * region, target * region)
        total = jnp.sum(gap * region, axis=(-3, -2, -1))
        scores[f"lab_{name}"] = total / jnp.sum(region, axis=(-3, -2, -1))
    return scores
