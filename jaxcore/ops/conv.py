"""Dense convolutions with the zero padding of the restoration networks."""

import jax
from jaxtyping import Array, Float

from jaxcore.ops.precision import accumulation_dtype


def conv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], *, stride: int = 1
) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation with zero padding ``k // 2`` on every side (odd kernels).

    Args:
      x: images, NHWC.
      kernel: filters, HWIO.
      stride: step in pixels along both axes.

    >>> import jax.numpy as jnp
    >>> conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))[0, 0, 0, 0]
    Array(4., dtype=float32)
    """
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride, stride),
        [(k // 2, k // 2) for k in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


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
    return _contract(x, kernel.astype(x.dtype), (x.ndim - 1,), (0,))


def _pointwise_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return pointwise(x, kernel), (x, kernel)


def _pointwise_backward(inputs: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = inputs
    wide = accumulation_dtype(x.dtype)
    pixels = tuple(range(x.ndim - 1))
    # On the CPU the left factor of a product over pixels is transposed in memory: the narrow one.
    if kernel.shape[0] <= kernel.shape[1]:
        gradient = _contract(x, g, pixels, pixels, wide)
    else:
        gradient = _contract(g, x, pixels, pixels, wide).T
    return (
        _contract(g, kernel.astype(x.dtype), (x.ndim - 1,), (1,)),
        gradient.astype(kernel.dtype),
    )


def _contract(
    a: Array, b: Array, over_a: tuple[int, ...], over_b: tuple[int, ...], dtype: object = None
) -> Array:
    dims = ((over_a, over_b), ((), ()))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=dtype)


pointwise.defvjp(_pointwise_forward, _pointwise_backward)
