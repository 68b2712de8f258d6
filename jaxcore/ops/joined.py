"""Several maps side by side in one, filtered by the kernels for GPUs.

One wide product makes them and one takes their gradients, where several narrow ones would each read
the same map; the kernels split, join and gate them on the way. The values are those of the parts
done one by one, to rounding.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcore.ops import depthwise_kernels
from jaxcore.ops.conv import pointwise
from jaxcore.ops.depthwise import grouped_conv, kernels_fit
from jaxcore.ops.derivatives import differentiated_as
from jaxcore.ops.precision import accumulation_dtype
from jaxcore.ops.products import product_over_pixels

_ALIGNED = 8  # channels of a map


def joining_pays(width: int, dtype: DTypeLike) -> bool:
    """Whether maps of that width and type are best kept side by side: on a single GPU."""
    whole = width % _ALIGNED == 0
    return whole and jax.default_backend() == "gpu" and kernels_fit(jnp.dtype(dtype))


def filter_split(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"], parts: int
) -> tuple[Float[Array, "b h w _"], ...]:
    """`depthwise_conv` of a joined map, as equally wide parts.

    Fast on NVIDIA GPUs only. The gradients can be differentiated again in either mode.

    Args:
      x: the maps side by side.
      kernel: one filter with odd sides per channel.
      parts: how many maps.

    >>> import jax.numpy as jnp
    >>> maps = filter_split(jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 1, 16)), 2)
    >>> [y.shape for y in maps]
    [(1, 4, 4, 8), (1, 4, 4, 8)]
    """
    out: tuple[Array, ...] = _filter_split(x, kernel, parts)
    return out


def _split(x: Array, kernel: Array, parts: int) -> tuple[Array, ...]:
    def value(x: Array, kernel: Array) -> tuple[Array, ...]:
        return depthwise_kernels.correlate((x,), kernel, pads=_pads(kernel), parts=parts)

    def plain(x: Array, kernel: Array) -> tuple[Array, ...]:
        return tuple(jnp.split(_filtered(x, kernel), parts, axis=-1))

    out: tuple[Array, ...] = differentiated_as(value, plain)(x, kernel)
    return out


_filter_split = jax.custom_vjp(_split, nondiff_argnums=(2,))


def _pads(kernel: Array) -> tuple[int, int]:
    return kernel.shape[0] // 2, kernel.shape[1] // 2


def _filtered(x: Array, kernel: Array) -> Array:
    return grouped_conv(x, kernel, _pads(kernel))


def _split_forward(
    x: Array, kernel: Array, parts: int
) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
    return _split(x, kernel, parts), (x, kernel)


def _split_backward(
    parts: int, inputs: tuple[Array, Array], g: tuple[Array, ...]
) -> tuple[Array, Array]:
    def slopes(x: Array, kernel: Array, g: tuple[Array, ...]) -> tuple[Array, Array]:
        return depthwise_kernels.gradients(x, kernel, g, pads=_pads(kernel))

    def plain(x: Array, kernel: Array, g: tuple[Array, ...]) -> tuple[Array, Array]:
        return jax.vjp(_filtered, x, kernel)[1](jnp.concatenate(g, axis=-1))

    found: tuple[Array, Array] = differentiated_as(slopes, plain)(*inputs, g)
    return found


_filter_split.defvjp(_split_forward, _split_backward)


def gated_product(
    x: Float[Array, "b h w 2*c"], kernel: Float[Array, "kh kw 1 2*c"], product: Float[Array, "c o"]
) -> Float[Array, "b h w o"]:
    """``gelu_gate(a, b) @ product`` of the halves ``a`` and ``b`` of the filtered map.

    The filtered map and the gated one are not kept for the backward pass, which computes both once
    more on its way. Fast on NVIDIA GPUs only; can be differentiated again as `filter_split`.

    Args:
      x: two maps side by side.
      kernel: one filter with odd sides per channel.
      product: weights of a 1x1 convolution.

    >>> import jax.numpy as jnp
    >>> x, kernel = jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 1, 16)) / 9
    >>> gated_product(x, kernel, jnp.ones((8, 5))).shape
    (1, 4, 4, 5)
    """
    out: Array = _product_of_gated(x, kernel, product)
    return out


_Inputs = tuple[Array, Array, Array]


def _gated_product(x: Array, kernel: Array, product: Array) -> Array:
    def value(x: Array, kernel: Array, product: Array) -> Array:
        return pointwise(depthwise_kernels.gated(x, kernel), product)

    out: Array = differentiated_as(value, _plain_product)(x, kernel, product)
    return out


_product_of_gated = jax.custom_vjp(_gated_product)


def _plain_product(x: Array, kernel: Array, product: Array) -> Array:
    wide = accumulation_dtype(x.dtype)
    a, b = jnp.split(_filtered(x, kernel).astype(wide), 2, axis=-1)
    gated = (jax.nn.gelu(a, approximate=False) * b).astype(x.dtype)
    return jnp.einsum("...c,co->...o", gated, product.astype(x.dtype))


def _product_forward(x: Array, kernel: Array, product: Array) -> tuple[Array, _Inputs]:
    return _gated_product(x, kernel, product), (x, kernel, product)


def _product_backward(inputs: _Inputs, g: Array) -> _Inputs:
    def slopes(x: Array, kernel: Array, product: Array, g: Array) -> _Inputs:
        through = pointwise(g, product.T)
        by_filtered, gated = depthwise_kernels.gate_gradients(x, kernel, through)
        by_product = product_over_pixels(gated, g, dtype=accumulation_dtype(x.dtype))
        back, by_kernel = depthwise_kernels.gradients(x, kernel, (by_filtered,), pads=_pads(kernel))
        return back, by_kernel, by_product.astype(product.dtype)

    def plain(x: Array, kernel: Array, product: Array, g: Array) -> _Inputs:
        return jax.vjp(_plain_product, x, kernel, product)[1](g)

    found: _Inputs = differentiated_as(slopes, plain)(*inputs, g)
    return found


_product_of_gated.defvjp(_product_forward, _product_backward)
