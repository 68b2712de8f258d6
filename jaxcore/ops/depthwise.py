"""Depthwise convolution: the only place that decides how it is computed."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.ops.derivatives import bilinear_gradients, differentiated_as
from jaxcore.ops.precision import accumulation_dtype

Form: TypeAlias = Literal["grouped", "shifted", "summed", "kernel"]
"""XLA's grouped convolution; shifted views of long rows, or of images; a kernel for one GPU."""


def depthwise_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    padding: int | None = None,
    form: Form | None = None,
) -> Float[Array, "b h2 w2 c"]:
    """Depthwise cross-correlation, stride 1, with zero padding.

    On the CPU it is one multiply-add per tap over shifted views, because XLA's grouped
    convolution there is 35 to 90 times slower; on a single NVIDIA GPU it is a kernel that reads and
    writes each map once (`jaxcore.ops.depthwise_kernels`); elsewhere it is XLA's convolution. All
    have the gradients written below, which can be differentiated again in either mode. Forward mode
    straight through the convolution (``jax.jvp``, ``jax.jacfwd``) is refused by JAX; a
    Hessian-vector product as ``jax.jvp(jax.grad(f), ...)`` is not.

    Args:
      x: images, NHWC.
      kernel: one filter with odd sides per channel, HWIO with I = 1. It may have a wider type
        than ``x`` and is rounded to that of ``x``; its gradient keeps the wider type.
      padding: zeros on every side; None is ``k // 2``, which keeps the size.
      form: how it is computed; None decides by the device. All give the same numbers to rounding.

    Returns:
      Array of the dtype of ``x``; sums are formed in at least float32.

    Raises:
      UserError: the kernel has an even side, or does not fit ``x``.

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
    up, left = (k // 2 if padding is None else padding for k in kernel.shape[:2])
    spare = (x.shape[1] + 2 * up - kernel.shape[0], x.shape[2] + 2 * left - kernel.shape[1])
    if padding is not None and min(spare) < 0:  # else an empty map gives an empty one
        raise UserError(f"Expected images of at least the kernel's size, found {x.shape[1:3]}.")
    return _depthwise(x, kernel, (up, left), form)


_Pads = tuple[int, int]  # rows of zeros above and below, columns left and right


@functools.partial(jax.jit, static_argnums=(2, 3), inline=True)
def _forward(x: Array, kernel: Array, pads: _Pads, form: Form | None) -> Array:
    values = {name: functools.partial(value, pads=pads) for name, (value, _) in _FORMS.items()}
    return _choose(values, form, x, kernel)


def _forward_rule(
    x: Array, kernel: Array, pads: _Pads, form: Form | None
) -> tuple[Array, tuple[Array, Array]]:
    return _forward(x, kernel, pads, form), (x, kernel)


def _backward_rule(
    pads: _Pads, form: Form | None, inputs: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    slopes = {name: functools.partial(slope, pads=pads) for name, (_, slope) in _FORMS.items()}
    return _choose(slopes, form, *inputs, g)


def _choose(ways: Mapping[str, Callable[..., Any]], form: Form | None, *arrays: Array) -> Any:
    if form is not None:
        return ways[form](*arrays)
    cuda = ways["kernel" if kernels_fit(arrays[0].dtype) else "grouped"]
    return jax.lax.platform_dependent(
        *arrays, cpu=ways["shifted"], cuda=cuda, default=ways["grouped"]
    )


def kernels_fit(dtype: np.dtype) -> bool:
    """Whether the kernels for GPUs can be used: sums in float32, and nothing to be cut in parts."""
    return jax.device_count() == 1 and dtype.itemsize < 8


_depthwise = jax.custom_vjp(_forward, nondiff_argnums=(2, 3))
_depthwise.defvjp(_forward_rule, _backward_rule)


def grouped_conv(x: Array, kernel: Array, pads: _Pads) -> Array:
    """`depthwise_conv` as XLA's own convolution, with JAX's own gradients."""
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        [(n, n) for n in pads],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _grouped_gradients(x: Array, kernel: Array, g: Array, pads: _Pads) -> tuple[Array, Array]:
    return bilinear_gradients(functools.partial(grouped_conv, pads=pads), x, kernel, g)


def _shifted(x: Array, kernel: Array, pads: _Pads) -> Array:
    wide = accumulation_dtype(x.dtype)
    views = _views(x, (kernel.shape[0], kernel.shape[1]), pads)
    width = views[0].shape[2] // x.shape[-1]
    taps = kernel.astype(x.dtype).astype(wide).reshape(len(views), 1, 1, x.shape[-1])
    taps = jnp.tile(taps, (1, 1, 1, width))  # one row of pixels, flat like the views
    total = sum(view.astype(wide) * tap for view, tap in zip(views, taps, strict=True))
    return jnp.asarray(total, x.dtype).reshape(*views[0].shape[:2], width, x.shape[-1])


def _shifted_gradients(x: Array, kernel: Array, g: Array, pads: _Pads) -> tuple[Array, Array]:
    around = (kernel.shape[0] - 1 - pads[0], kernel.shape[1] - 1 - pads[1])
    back = _shifted(g, kernel[::-1, ::-1], around)
    return back, _shifted_kernel_gradient(x, g, kernel, pads)


def _shifted_kernel_gradient(x: Array, g: Array, kernel: Array, pads: _Pads) -> Array:
    """For every tap the sum over pixels of shifted ``x`` times ``g``.

    First over bands of a few rows, all taps in one reduction: over more rows, or as one sum per
    tap, the compiler forms them number by number, at two to twenty times the cost.
    """
    wide, (batch, height) = accumulation_dtype(x.dtype), g.shape[:2]
    missing = -height % _BAND
    views = _views(x, (kernel.shape[0], kernel.shape[1]), pads, missing)
    rows = jnp.pad(g, ((0, 0), (0, missing), (0, 0), (0, 0))).astype(wide)
    bands = (batch, (height + missing) // _BAND, _BAND, math.prod(g.shape[2:]))
    rows = rows.reshape(bands)
    products = tuple(view.astype(wide).reshape(bands) * rows for view in views)
    zeros = (jnp.zeros((), wide),) * len(products)
    sums = jax.lax.reduce(products, zeros, lambda a, b: tuple(map(jnp.add, a, b)), (2,))
    taps = jnp.stack(sums).reshape(len(sums), math.prod(bands[:2]) * g.shape[2], g.shape[3])
    return jnp.sum(taps, axis=1).reshape(kernel.shape).astype(kernel.dtype)


_BAND = 8  # rows per band: measured on AVX-512, where 4 and 16 are slower


def _views(x: Array, sides: tuple[int, int], pads: _Pads, more_rows: int = 0) -> list[Array]:
    """The padded images as seen by each tap, with width and channels as one long axis.

    Long rows use the whole of every vector register, also at 127 or 255 channels.

    Args:
      x: images.
      sides: of the kernel.
      pads: zeros around the images; negative ones cut off.
      more_rows: zero rows to append to each view.
    """
    channels, (up, left) = x.shape[-1], pads
    zero = jnp.zeros((), x.dtype)
    edges = ((0, 0, 0), (up, up + more_rows, 0), (left, left, 0), (0, 0, 0))
    padded = jax.lax.pad(x, zero, edges)
    height, width = padded.shape[1] - sides[0] + 1, padded.shape[2] - sides[1] + 1
    padded = padded.reshape(padded.shape[0], padded.shape[1], padded.shape[2] * channels)
    return [
        padded[:, i : i + height, j * channels : (j + width) * channels]
        for i in range(sides[0])
        for j in range(sides[1])
    ]


def _summed(x: Array, kernel: Array, pads: _Pads) -> Array:
    wide = accumulation_dtype(x.dtype)
    taps = kernel.astype(x.dtype).astype(wide).reshape(-1, 1, 1, 1, x.shape[-1])
    images = _shifted_images(x, (kernel.shape[0], kernel.shape[1]), pads)
    total = sum(image.astype(wide) * tap for image, tap in zip(images, taps, strict=True))
    return jnp.asarray(total, x.dtype)


def _summed_gradients(x: Array, kernel: Array, g: Array, pads: _Pads) -> tuple[Array, Array]:
    around = (kernel.shape[0] - 1 - pads[0], kernel.shape[1] - 1 - pads[1])
    wide = accumulation_dtype(x.dtype)
    images = _shifted_images(x, (kernel.shape[0], kernel.shape[1]), pads)
    sums = [jnp.sum(image.astype(wide) * g.astype(wide), axis=(0, 1, 2)) for image in images]
    gradient = jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)
    return _summed(g, kernel[::-1, ::-1], around), gradient


def _shifted_images(x: Array, sides: tuple[int, int], pads: _Pads) -> list[Array]:
    """The padded images as seen by each tap."""
    edges = ((0, 0, 0), *((n, n, 0) for n in pads), (0, 0, 0))
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
    height, width = (padded.shape[1 + i] - sides[i] + 1 for i in (0, 1))
    return [
        padded[:, i : i + height, j : j + width] for i in range(sides[0]) for j in range(sides[1])
    ]


def _kernel(x: Array, kernel: Array, pads: _Pads) -> Array:
    from jaxcore.ops import depthwise_kernels as kernels

    def value(x: Array, kernel: Array) -> Array:
        return kernels.correlate((x,), kernel, pads=pads)[0]

    return differentiated_as(value, functools.partial(grouped_conv, pads=pads))(x, kernel)


def _kernel_gradients(x: Array, kernel: Array, g: Array, pads: _Pads) -> tuple[Array, Array]:
    from jaxcore.ops import depthwise_kernels as kernels

    def slopes(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        return kernels.gradients(x, kernel, (g,), pads=pads)

    return differentiated_as(slopes, functools.partial(_grouped_gradients, pads=pads))(x, kernel, g)


_FORMS: dict[Form, tuple[Callable[..., Array], Callable[..., tuple[Array, Array]]]] = {
    "grouped": (grouped_conv, _grouped_gradients),
    "shifted": (_shifted, _shifted_gradients),
    "summed": (_summed, _summed_gradients),
    "kernel": (_kernel, _kernel_gradients),
}
"""Each with its gradients."""
