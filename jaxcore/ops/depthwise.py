"""Depthwise convolution: the only place that decides how it is computed."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.ops.precision import accumulation_dtype


def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"]
) -> Float[Array, "b h w c"]:
    """Depthwise cross-correlation, stride 1, zero padding ``k // 2``.

    On the CPU it is one multiply-add per tap over shifted views, because XLA's grouped
    convolution there is 35 to 90 times slower; elsewhere it is XLA's convolution. Both have the
    gradients written below, which can be differentiated again in either mode. Forward mode
    straight through the convolution (``jax.jvp``, ``jax.jacfwd``) is refused by JAX; a
    Hessian-vector product as ``jax.jvp(jax.grad(f), ...)`` is not.

    Args:
      x: images, NHWC.
      kernel: one filter with odd sides per channel, HWIO with I = 1. It may have a wider type
        than ``x`` and is rounded to that of ``x``; its gradient keeps the wider type.

    Returns:
      Array of the shape and dtype of ``x``; sums are formed in at least float32.

    Raises:
      UserError: the kernel has an even side, or does not fit the channels of ``x``.

    >>> import jax.numpy as jnp
    >>> depthwise_conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2)))[0, 1, 1]
    Array([9., 9.], dtype=float32)
    """
    if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[2:] != (1, x.shape[-1]):
        raise UserError(
            "Expected images (b, h, w, c) and a kernel (kh, kw, 1, c), "
            f"found {x.shape} and {kernel.shape}."
        )
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise UserError(f"Expected a kernel with odd sides, found {kernel.shape[:2]}.")
    return _depthwise(x, kernel)


def _forward(x: Array, kernel: Array) -> Array:
    return jax.lax.platform_dependent(x, kernel, cpu=_shifted, default=_grouped)


def _forward_rule(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _forward(x, kernel), (x, kernel)


def _backward_rule(inputs: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    return jax.lax.platform_dependent(
        *inputs, g, cpu=_shifted_gradients, default=_grouped_gradients
    )


_depthwise = jax.custom_vjp(_forward)
_depthwise.defvjp(_forward_rule, _backward_rule)


def _grouped(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        [(k // 2, k // 2) for k in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _grouped_gradients(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    return jax.vjp(_grouped, x, kernel)[1](g)


def _shifted(x: Array, kernel: Array) -> Array:
    wide = accumulation_dtype(x.dtype)
    views = _views(x, (kernel.shape[0], kernel.shape[1]))
    taps = kernel.astype(x.dtype).astype(wide).reshape(len(views), 1, 1, x.shape[-1])
    taps = jnp.tile(taps, (1, 1, 1, x.shape[2]))  # one row of pixels, flat like the views
    total = sum(view.astype(wide) * tap for view, tap in zip(views, taps, strict=True))
    return jnp.asarray(total, x.dtype).reshape(x.shape)


def _shifted_gradients(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    return _shifted(g, kernel[::-1, ::-1]), _shifted_kernel_gradient(x, g, kernel)


def _shifted_kernel_gradient(x: Array, g: Array, kernel: Array) -> Array:
    """For every tap the sum over pixels of shifted ``x`` times ``g``.

    First over bands of a few rows, all taps in one reduction: over more rows, or as one sum per
    tap, the compiler forms them number by number, at two to twenty times the cost.
    """
    wide, (batch, height) = accumulation_dtype(x.dtype), x.shape[:2]
    missing = -height % _BAND
    views = _views(x, (kernel.shape[0], kernel.shape[1]), missing)
    rows = jnp.pad(g, ((0, 0), (0, missing), (0, 0), (0, 0))).astype(wide)
    bands = (batch, (height + missing) // _BAND, _BAND, math.prod(x.shape[2:]))
    rows = rows.reshape(bands)
    products = tuple(view.astype(wide).reshape(bands) * rows for view in views)
    zeros = (jnp.zeros((), wide),) * len(products)
    sums = jax.lax.reduce(products, zeros, lambda a, b: tuple(map(jnp.add, a, b)), (2,))
    taps = jnp.stack(sums).reshape(len(sums), math.prod(bands[:2]) * x.shape[2], x.shape[3])
    return jnp.sum(taps, axis=1).reshape(kernel.shape).astype(kernel.dtype)


_BAND = 8  # rows per band: measured on AVX-512, where 4 and 16 are slower


def _views(x: Array, sides: tuple[int, int], more_rows: int = 0) -> list[Array]:
    """The padded images as seen by each tap, with width and channels as one long axis.

    Long rows use the whole of every vector register, also at 127 or 255 channels.

    Args:
      x: images.
      sides: of the kernel.
      more_rows: zero rows to append to each view.
    """
    batch, height, width, channels = x.shape
    (up, left), height = (side // 2 for side in sides), height + more_rows
    padded = jnp.pad(x, ((0, 0), (up, up + more_rows), (left, left), (0, 0)))
    padded = padded.reshape(batch, padded.shape[1], padded.shape[2] * channels)
    return [
        padded[:, i : i + height, j * channels : (j + width) * channels]
        for i in range(sides[0])
        for j in range(sides[1])
    ]
