"""Splitting maps into a low and a high part with a rectangular window in Fourier space."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Method = Literal["fft", "matrix"]


def signed_frequencies(n: int) -> Int[Array, " n"]:
    """Frequencies of an FFT of length ``n`` in FFT order, from ``-(n // 2)`` upwards.

    >>> signed_frequencies(5)
    Array([ 0,  1,  2, -2, -1], dtype=int32)
    """
    return (jnp.arange(n) + n // 2) % n - n // 2


def band(half_width: Int[Array, " b"], n: int) -> Float[Array, "b n"]:
    """Indicator of the frequencies ``-half_width <= f < half_width``.

    The interval contains ``-half_width`` and not ``+half_width``, so the inverse transform of a
    band-limited real map is complex.

    Args:
      half_width: one whole number per sample; 0 gives the empty band.
      n: length of the axis.

    >>> band(jnp.array([1]), 4)
    Array([[1., 0., 0., 1.]], dtype=float32)
    """
    f = signed_frequencies(n)[None, :]
    k = half_width[:, None]
    return ((f >= -k) & (f < k)).astype(jnp.float32)


def soft_band(half_width: Float[Array, " b"], n: int, tau: float) -> Float[Array, "b n"]:
    """Logistic window ``sigmoid((half_width - |f|) / tau)``: differentiable in ``half_width``.

    Args:
      half_width: real half width per sample, in frequency bins.
      n: length of the axis.
      tau: width of the edge in frequency bins, positive.

    >>> float(soft_band(jnp.array([1.0]), 4, 0.5)[0, 1])
    0.5
    """
    distance = jnp.abs(signed_frequencies(n)).astype(half_width.dtype)
    return jax.nn.sigmoid((half_width[:, None] - distance[None, :]) / tau)


def spectral_split(
    x: Float[Array, "b h w c"],
    rows: Float[Array, "b h"],
    cols: Float[Array, "b w"],
    *,
    method: Method = "fft",
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """Moduli of the parts of a map inside and outside of a separable window in Fourier space.

    Args:
      x: real maps, float32 or float64.
      rows: weight of each row frequency, in FFT order.
      cols: weight of each column frequency, in FFT order.
      method: "fft", or "matrix" for two real matrix products with the window's kernel, which
        needs no FFT and can be sharded over channels. Both give the same numbers.

    Returns:
      ``(low, high)``, the moduli of the complex maps ``L = F^-1(window * F(x))`` and ``x - L``.

    References:
      Cui et al. 2025, "AdaIR", section 3.2.

    >>> import jax.numpy as jnp
    >>> x = jnp.full((1, 4, 4, 1), -2.0)
    >>> low, high = spectral_split(x, band(jnp.array([1]), 4), band(jnp.array([1]), 4))
    >>> float(low[0, 0, 0, 0]), float(high[0, 0, 0, 0])
    (2.0, 0.0)
    """
    if method == "fft":
        window = (rows[:, :, None] * cols[:, None, :])[..., None]
        spectrum = jnp.fft.fft2(x, axes=(1, 2))
        inside = jnp.fft.ifft2(spectrum * window.astype(spectrum.dtype), axes=(1, 2))
        real, imaginary = inside.real, inside.imag
    else:
        real, imaginary = _filter_by_matrices(x, rows, cols)
    # The split is linear, so the high part needs no second inverse transform.
    return _modulus(real, imaginary), _modulus(x - real, imaginary)


def _modulus(real: Array, imaginary: Array) -> Array:
    """|z| with gradient 0 at z = 0."""
    square = real * real + imaginary * imaginary
    empty = square == 0
    return jnp.where(empty, 0.0, jnp.sqrt(jnp.where(empty, 1.0, square)))


def _filter_by_matrices(x: Array, rows: Array, cols: Array) -> tuple[Array, Array]:
    """Real and imaginary part of A_h x A_w^T, with A the circulant matrix of each window."""
    row_re, row_im = _circulant(rows.astype(x.dtype))
    col_re, col_im = _circulant(cols.astype(x.dtype))

    def product(spec: str, a: Array, b: Array) -> Array:
        return jnp.einsum(spec, a, b, precision="highest")

    left_re = product("bij,bjwc->biwc", row_re, x)
    left_im = product("bij,bjwc->biwc", row_im, x)
    real = product("bvw,biwc->bivc", col_re, left_re) - product("bvw,biwc->bivc", col_im, left_im)
    imaginary = product("bvw,biwc->bivc", col_im, left_re) + product(
        "bvw,biwc->bivc", col_re, left_im
    )
    return real, imaginary


def _circulant(window: Array) -> tuple[Array, Array]:
    """Matrix of the filter: ``A[i, j] = (1/n) sum_f window[f] exp(2 pi i f (i - j) / n)``."""
    n = window.shape[-1]
    index = jnp.arange(n)
    # Angles are reduced as whole numbers first: exact for any n.
    turns = (index[:, None] * index[None, :]) % n
    angle = turns.astype(window.dtype) * (2 * jnp.pi / n)
    lag = (index[:, None] - index[None, :]) % n
    kernel_re = jnp.matmul(window, jnp.cos(angle), precision="highest") / n
    kernel_im = jnp.matmul(window, jnp.sin(angle), precision="highest") / n
    return kernel_re[:, lag], kernel_im[:, lag]
