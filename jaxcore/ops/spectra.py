"""Fourier space of real images: transfer functions, filters, products with spectra.

A spectrum is what ``rfft2`` returns, of shape ``(..., h, w // 2 + 1)``; images lie in the last
two axes. A transfer function or filter without the leading axes of the images serves all of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxcore.ops.precision import accumulation_dtype


def spectrum(x: Float[Array, "*b h w"]) -> Complex[Array, "*b h w2"]:
    """Fourier transform over the last two axes, in at least float32."""
    return jnp.fft.rfft2(x.astype(accumulation_dtype(x.dtype)))


def image(z: Complex[Array, "*b h w2"], shape: tuple[int, ...]) -> Float[Array, "*b h w"]:
    """Inverse of `spectrum`.

    Args:
      z: spectra.
      shape: of the images; the last two sides are used.
    """
    return jnp.fft.irfft2(z, s=tuple(shape[-2:]))


def aligned(a: Array, ndim: int) -> Array:
    """An array with axes of length one in front, up to ``ndim`` axes.

    >>> aligned(jnp.zeros((2, 3)), 4).shape
    (1, 1, 2, 3)
    """
    return a.reshape((1,) * (ndim - a.ndim) + a.shape)


def per_image(value: Array | float, like: Array) -> Array:
    """A number, or one per image, to be multiplied with images or spectra."""
    value = jnp.asarray(value, jnp.real(like).dtype)[..., None, None]
    return aligned(value, like.ndim)


def times(z: Complex[Array, "*b h w2"], factor: Array) -> Complex[Array, "*b h w2"]:
    """Product of spectra with a real or complex factor of the same or fewer axes."""
    ndim = max(z.ndim, factor.ndim)
    z, factor = aligned(z, ndim), aligned(factor, ndim)
    if jnp.iscomplexobj(factor):
        return z * factor.astype(z.dtype)
    factor = factor.astype(z.real.dtype)
    return jax.lax.complex(z.real * factor, z.imag * factor)


def power(z: Complex[Array, "*b h w2"]) -> Float[Array, "*b h w2"]:
    """Square of the modulus."""
    return z.real * z.real + z.imag * z.imag


def psf_to_tf(psf: Float[Array, "*b h w"]) -> Complex[Array, "*b h w2"]:
    """Transfer function of a point spread function on the grid of the image.

    The middle is the pixel ``(h // 2, w // 2)``, as after ``fftshift``; nothing is centred or
    normalised. A PSF with its peak in another pixel moves the restored image by as much.

    >>> psf = jnp.zeros((4, 6)).at[2, 3].set(1.0)
    >>> bool(jnp.allclose(psf_to_tf(psf), 1))
    True
    """
    return spectrum(jnp.fft.ifftshift(psf, axes=(-2, -1)))


def laplacian_tf(shape: tuple[int, ...]) -> Float[np.ndarray, "h w2"]:
    """Transfer function of the periodic five-point Laplacian, 4 in the middle and -1 around it.

    Args:
      shape: of the images; the last two sides are used.

    >>> laplacian_tf((4, 4))[2].round(6).tolist()
    [4.0, 6.0, 8.0]
    """
    rows, cols = 2 * np.pi * np.fft.fftfreq(shape[-2]), 2 * np.pi * np.fft.rfftfreq(shape[-1])
    return 4 - 2 * np.cos(rows)[:, None] - 2 * np.cos(cols)[None, :]


def multiplicity(width: int) -> np.ndarray:
    """How often a column of a spectrum stands in the whole Fourier transform: once or twice.

    >>> multiplicity(6), multiplicity(5)
    (array([1., 2., 2., 1.]), array([1., 2., 2.]))
    """
    count = np.full(width // 2 + 1, 2.0)
    count[0] = 1
    if width % 2 == 0:
        count[-1] = 1
    return count


def total(values: Float[Array, "*b h w2"], width: int) -> Float[Array, "*b"]:
    """Sum over all frequencies of the whole Fourier transform.

    Args:
      values: real, for the frequencies of a spectrum.
      width: of the images.
    """
    weights = jnp.asarray(multiplicity(width), values.dtype)
    return jnp.sum(values * aligned(weights, values.ndim), axis=(-2, -1))


def convolve(x: Float[Array, "*b h w"], tf: Complex[Array, "*b h w2"]) -> Float[Array, "*b h w"]:
    """Periodic convolution with the PSF of a transfer function.

    >>> psf = jnp.zeros((4, 4)).at[2, 3].set(1.0)  # moves by a column
    >>> convolve(jnp.eye(4), psf_to_tf(psf))[0].round(5).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    return image(times(spectrum(x), tf), x.shape)


def correlate(x: Float[Array, "*b h w"], tf: Complex[Array, "*b h w2"]) -> Float[Array, "*b h w"]:
    """The adjoint of :func:`convolve`: convolution with the mirrored PSF."""
    return convolve(x, jnp.conj(tf))
