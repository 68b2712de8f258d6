"""Dense convolutions with the zero padding of the restoration networks."""

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.ops.derivatives import bilinear_gradients
from jaxcore.ops.precision import accumulation_dtype
from jaxcore.ops.products import product_over_pixels

Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


def conv2d(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw i o"],
    *,
    stride: int = 1,
    padding: int | None = None,
) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation with zero padding.

    Args:
      x: images, NHWC.
      kernel: filters, HWIO.
      stride: step in pixels along both axes.
      padding: zeros on every side; None is ``k // 2``, which keeps the size with an odd kernel.

    >>> import jax.numpy as jnp
    >>> conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))[0, 0, 0, 0]
    Array(4., dtype=float32)
    """
    rows, columns = (k // 2 if padding is None else padding for k in kernel.shape[:2])
    pads = (rows, rows), (columns, columns)
    out: Array = _correlate(x, kernel.astype(x.dtype), stride, pads)
    return out


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _correlate(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """Cross-correlation whose gradients are fast on processors too.

    XLA has one fast convolution for them, of the order below, and brings others into that order
    outside of loops only: the gradients of blocks in a loop took twenty times as long. Here they
    are written in it. As with `pointwise`, JAX refuses forward mode straight through.
    """
    return _in_order(x, kernel, stride, pads)


def _in_order(x: Array, kernel: Array, stride: int, pads: Pads, **dilation: Any) -> Array:
    order = ("NHWC", "HWIO", "NHWC")
    steps = (stride, stride)
    return jax.lax.conv_general_dilated(x, kernel, steps, pads, dimension_numbers=order, **dilation)


def _correlate_forward(
    x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return _in_order(x, kernel, stride, pads), (x, kernel)


def _correlate_backward(
    stride: int, pads: Pads, inputs: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    plain = functools.partial(_in_order, stride=stride, pads=pads)
    derived = functools.partial(bilinear_gradients, plain)

    written = functools.partial(_written_gradients, stride, pads)
    return jax.lax.platform_dependent(*inputs, g, cpu=written, default=derived)


def _written_gradients(
    stride: int, pads: Pads, x: Array, kernel: Array, g: Array
) -> tuple[Array, Array]:
    """Gradients by images, as a convolution in the order of `_in_order`, and by the kernel."""
    steps = (stride, stride)
    spread = [(n - 1) * stride + 1 for n in g.shape[1:3]]  # of the results, in pixels of x
    sides = list(zip(x.shape[1:3], kernel.shape[:2], pads, spread, strict=True))
    around = tuple((k - 1 - low, n + low - s) for n, k, (low, _), s in sides)
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    back = _in_order(g, turned, 1, around, lhs_dilation=steps)  # type: ignore[arg-type]  # two pairs
    if stride == 1 and x.shape[-1] > _FEW_CHANNELS:
        return back, _slopes_by_product(x, g, kernel, pads)
    around = tuple((low, k - 1 - n - low + s) for n, k, (low, _), s in sides)
    images, filters = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    slopes = _in_order(images, filters, 1, around, rhs_dilation=steps)  # type: ignore[arg-type]  # two pairs
    return back, slopes.transpose(1, 2, 0, 3)


_FEW_CHANNELS = 4  # of an image
_PIXELS = 65536  # that are multiplied at once: their maps, several times as wide, stay small


def _slopes_by_product(x: Array, g: Array, kernel: Array, pads: Pads) -> Array:
    """The gradient by the kernel as one product over pixels.

    With ``x`` shifted along the columns on one side and ``g`` along the rows on the other, it holds
    every pair of shifts. XLA's convolution for it takes twice the time and more on processors.
    """
    (high, wide), wider = kernel.shape[:2], accumulation_dtype(x.dtype)
    images, (height, width) = x.shape[0], g.shape[1:3]
    padded = jnp.pad(x.astype(wider), ((0, 0), *pads, (0, 0)))

    def product(padded: Array, g: Array) -> Array:
        views = [padded[:, : height + high - 1, j : j + width] for j in range(wide)]
        lower = [((0, 0), (i, high - 1 - i), (0, 0), (0, 0)) for i in range(high)]
        columns = jnp.concatenate(views, axis=-1)
        rows = jnp.concatenate([jnp.pad(g, edges) for edges in lower], axis=-1)
        return product_over_pixels(columns, rows, dtype=wider)

    divisors = [n for n in range(1, images + 1) if images % n == 0]
    some = max((n for n in divisors if n * height * width <= _PIXELS), default=1)
    parts = [a.reshape(images // some, some, *a.shape[1:]) for a in (padded, g.astype(wider))]
    if images == some:
        sums = product(*(part[0] for part in parts))
    else:
        first = jnp.zeros((wide * x.shape[-1], high * g.shape[-1]), wider)
        sums, _ = jax.lax.scan(lambda s, ab: (s + product(*ab), None), first, tuple(parts))
    sums = sums.reshape(wide, x.shape[-1], high, g.shape[-1])
    return sums.transpose(2, 0, 1, 3).astype(kernel.dtype)


_correlate.defvjp(_correlate_forward, _correlate_backward)


def conv_transpose2d(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw o i"],
    *,
    stride: int = 2,
    padding: int = 1,
    output_padding: int = 1,
) -> Float[Array, "b h2 w2 o"]:
    """Transposed convolution: the gradient of a strided `conv2d` with respect to its images.

    Its own gradients are those of that `conv2d`, which every compiler knows. Derived from the
    dilated convolution below, the one by the kernel would be a convolution with a filter of the
    images' size, for which cuDNN has no fast program. Forward mode straight through it is refused
    by JAX, as with `pointwise`.

    Args:
      x: images, NHWC.
      kernel: filters of the convolution that is transposed, HWIO: its inputs are the outputs
        here. PyTorch stores the same filters, as OIHW.
      stride: of that convolution; pixels of the result per pixel of ``x``.
      padding: of that convolution.
      output_padding: further rows and columns at the bottom and the right; with a 3x3 kernel,
        stride 2 and padding 1 the size doubles exactly with 1.

    >>> import jax.numpy as jnp
    >>> conv_transpose2d(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 5, 3))).shape
    (1, 8, 8, 5)
    """
    return _transposed(x, kernel, stride, padding, output_padding)


def _dilated(x: Array, kernel: Array, stride: int, padding: int, more: int) -> Array:
    pads = [(k - 1 - padding, k - 1 - padding + more) for k in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1].swapaxes(2, 3).astype(x.dtype),
        (1, 1),
        pads,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _transposed_forward(
    x: Array, kernel: Array, stride: int, padding: int, more: int
) -> tuple[Array, tuple[Array, Array]]:
    return _dilated(x, kernel, stride, padding, more), (x, kernel)


def _transposed_backward(
    stride: int, padding: int, more: int, inputs: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = inputs
    strided = functools.partial(conv2d, g, stride=stride, padding=padding)
    back, slopes = jax.vjp(strided, kernel)
    return back, slopes(x)[0]


_transposed = jax.custom_vjp(_dilated, nondiff_argnums=(2, 3, 4))
_transposed.defvjp(_transposed_forward, _transposed_backward)


def repeated_conv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h2 w2 o"]:
    """Every pixel repeated 2x2, then a 3x3 convolution with zero padding 1.

    A pixel of the result sees 2x2 pixels of ``x``, so four convolutions with 2x2 sums of the
    kernel give its four places, with 4/9 of the arithmetic and without the repeated map.

    >>> import jax.numpy as jnp
    >>> repeated_conv2d(jnp.ones((1, 1, 1, 1)), jnp.ones((3, 3, 1, 1))).ravel().tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    kernel = kernel.astype(x.dtype)

    def halves(k: Array, axis: int) -> tuple[Array, Array]:
        """Sums of taps that fall on one pixel, for the even and the odd places along an axis."""
        first, middle, last = jnp.split(k, 3, axis=axis)
        even = jnp.concatenate([first, middle + last], axis=axis)
        return even, jnp.concatenate([first + middle, last], axis=axis)

    rows: Any = [
        [_correlate(x, part, 1, ((1 - i, i), (1 - j, j))) for j, part in enumerate(halves(row, 1))]
        for i, row in enumerate(halves(kernel, 0))
    ]
    y = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)
    return y.reshape(x.shape[0], 2 * x.shape[1], 2 * x.shape[2], kernel.shape[-1])


@jax.custom_vjp
def pointwise(x: Float[Array, "*b i"], kernel: Float[Array, "i o"]) -> Float[Array, "*b o"]:
    """1x1 convolution: a product over the last axis.

    Its gradients are written out. As in `depthwise_conv`, they can be differentiated again in
    either mode, while forward mode straight through the product is refused by JAX, and the
    gradient of a kernel that is wider than ``x`` is accumulated in the wider type.

    >>> import jax.numpy as jnp
    >>> pointwise(jnp.ones((2, 3, 3, 4)), jnp.ones((4, 5))).shape
    (2, 3, 3, 5)
    """
    return _mix(x, kernel)


def _mix(x: Array, kernel: Array) -> Array:
    return jnp.einsum("...i,io->...o", x, kernel.astype(x.dtype))


def _pointwise_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _mix(x, kernel), (x, kernel)


def _pointwise_backward(inputs: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = inputs
    gradient = product_over_pixels(x, g, dtype=accumulation_dtype(x.dtype))
    back = jnp.einsum("...o,io->...i", g, kernel.astype(x.dtype))
    return back, gradient.astype(kernel.dtype)


pointwise.defvjp(_pointwise_forward, _pointwise_backward)
