"""How certain a restored image is: noise behind a linear method, and what networks differ by."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.ops.grids import factor_between
from jaxcore.ops.spectra import aligned, image, spectrum, times


@jax.jit
def propagated_noise(
    response: Float[Array, "*b h2 w2"], variance: Float[Array, "*b h w"]
) -> Float[Array, "*b h2 w2"]:
    """Standard deviation of every pixel behind a linear method that treats all pixels alike.

    A restored pixel is a sum of observed ones; its variance is the sum of theirs with the squares
    of the same factors. Exact for Tikhonov without weights, borders aside.

    Args:
      response: what the method makes of a point of flux one in the pixel ``(h // 2, w // 2)`` of
        an empty observation.
      variance: of the noise of every pixel of the observation, which pixels do not share.

    Raises:
      UserError: grids that do not fit.

    >>> from jaxcore.models.deconvolution import gaussian_psf, restore_tikhonov
    >>> psf = jnp.asarray(gaussian_psf((32, 32), 3.0), "float32")
    >>> response = restore_tikhonov(jnp.zeros((16, 16)).at[8, 8].set(1.0), psf)
    >>> propagated_noise(response, jnp.ones((16, 16))).shape
    (32, 32)
    """
    factor = factor_between(variance.shape, response.shape)
    middle = [-(side // 2) * factor for side in variance.shape[-2:]]
    squares = jnp.roll(response**2, middle, (-2, -1))
    shape = (*variance.shape[:-2], *response.shape[-2:])
    points = jnp.zeros(shape, response.dtype)
    points = points.at[..., ::factor, ::factor].set(variance.astype(response.dtype))
    ndim = max(points.ndim, squares.ndim)
    summed = times(spectrum(aligned(points, ndim)), spectrum(aligned(squares, ndim)))
    return jnp.sqrt(jnp.maximum(image(summed, shape), 0))


def mean_and_spread(
    members: Float[Array, "n *b h w"],
) -> tuple[Float[Array, "*b h w"], Float[Array, "*b h w"]]:
    """Mean of an ensemble, and the standard deviation of its members in every pixel.

    The spread says what the training leaves open: it is no bound on the error, and noise that all
    networks pass alike does not show in it.

    Raises:
      UserError: fewer than two members.

    >>> mean, spread = mean_and_spread(jnp.array([[[1.0]], [[3.0]]]))
    >>> mean.tolist(), round(float(spread[0, 0]), 4)
    ([[2.0]], 1.4142)
    """
    if len(members) < 2:
        raise UserError(f"Expected at least two networks for an ensemble, found {len(members)}.")
    return jnp.mean(members, axis=0), jnp.std(members, axis=0, ddof=1)
