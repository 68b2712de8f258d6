"""Several maps side by side in one, filtered by the kernels for GPUs.

One wide product makes them and one takes their gradients, where several narrow ones would each read
the same map; the kernels split, join and gate them on the way. The values are those of the parts
done one by one, to rounding.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcore.ops.conv import pointwise
from jaxcore.ops.depthwise import depthwise_conv, kernels_fit
from jaxcore.ops.gate import gelu_gate
from jaxcore.ops.precision import accumulation_dtype
from jaxcore.ops.products import product_over_pixels

_ALIGNED = 8  # channels of a map


def joining_pays(width: int, dtype: DTypeLike) -> bool:
    """Whether maps of that width and type are best kept side by side: on a single GPU."""
    whole = width % _ALIGNED == 0
    return whole and jax.default_backend() == "gpu" and kernels_fit(jnp.dtype(dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def filter_split(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"], parts: int
) -> tuple[Float[Array, "b h w _"], ...]:
    """`depthwise_conv` of a joined map, as equally wide parts.

    Runs on NVIDIA GPUs only. The gradients can be differentiated again in either mode.

    Args:
      x: the maps side by side.
      kernel: one filter with odd sides per channel.
      parts: how many maps.
    """
    from jaxcore.ops import depthwise_kernels

    return depthwise_kernels.correlate((x,), kernel, pads=_pads(kernel), parts=parts)


def _pads(kernel: Array) -> tuple[int, int]:
    return kernel.shape[0] // 2, kernel.shape[1] // 2


def _split_forward(
    x: Array, kernel: Array, parts: int
) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
    return filter_split(x, kernel, parts), (x, kernel)


def _split_backward(
    parts: int, inputs: tuple[Array, Array], g: tuple[Array, ...]
) -> tuple[Array, Array]:
    return _split_gradients(*inputs, g)


@jax.custom_jvp
def _split_gradients(x: Array, kernel: Array, g: tuple[Array, ...]) -> tuple[Array, Array]:
    from jaxcore.ops import depthwise_kernels as kernels

    pads = _pads(kernel)
    back = kernels.correlate(g, kernel[::-1, ::-1], pads=pads)[0]
    return back, kernels.kernel_gradient(x, g, kernel, pads=pads)


@_split_gradients.defjvp
def _split_again(primals: Any, tangents: Any) -> Any:
    def plain(x: Array, kernel: Array, g: tuple[Array, ...]) -> Any:
        one = functools.partial(depthwise_conv, form="grouped")
        return jax.vjp(one, x, kernel)[1](jnp.concatenate(g, axis=-1))

    return jax.jvp(plain, primals, tangents)


filter_split.defvjp(_split_forward, _split_backward)


@jax.custom_vjp
def gated_product(
    x: Float[Array, "b h w 2c"], kernel: Float[Array, "kh kw 1 2c"], product: Float[Array, "c o"]
) -> Float[Array, "b h w o"]:
    """``gelu_gate(a, b) @ product`` of the halves ``a`` and ``b`` of the filtered map.

    The filtered map and the gated one are not kept for the backward pass, which computes both once
    more on its way. Runs on NVIDIA GPUs only; can be differentiated again as `filter_split`.

    Args:
      x: two maps side by side.
      kernel: one filter with odd sides per channel.
      product: weights of a 1x1 convolution.
    """
    from jaxcore.ops import depthwise_kernels

    return pointwise(depthwise_kernels.gated(x, kernel), product)


_Inputs = tuple[Array, Array, Array]


def _product_forward(x: Array, kernel: Array, product: Array) -> tuple[Array, _Inputs]:
    return gated_product(x, kernel, product), (x, kernel, product)


def _product_backward(inputs: _Inputs, g: Array) -> _Inputs:
    return _product_gradients(*inputs, g)


@jax.custom_jvp
def _product_gradients(x: Array, kernel: Array, product: Array, g: Array) -> _Inputs:
    from jaxcore.ops import depthwise_kernels

    through = pointwise(g, product.T)
    slopes, gated = depthwise_kernels.gate_gradients(x, kernel, through)
    by_product = product_over_pixels(gated, g, dtype=accumulation_dtype(x.dtype))
    back, by_kernel = _split_gradients(x, kernel, (slopes,))
    return back, by_kernel, by_product.astype(product.dtype)


@_product_gradients.defjvp
def _product_again(primals: Any, tangents: Any) -> Any:
    def plain(x: Array, kernel: Array, product: Array, g: Array) -> Any:
        return jax.vjp(_plain_product, x, kernel, product)[1](g)

    return jax.jvp(plain, primals, tangents)


def _plain_product(x: Array, kernel: Array, product: Array) -> Array:
    halves = jnp.split(depthwise_conv(x, kernel, form="grouped"), 2, axis=-1)
    return pointwise(gelu_gate(*halves), product)


gated_product.defvjp(_product_forward, _product_backward)
