"""Depthwise convolution: the only place that decides how it is computed."""

import jax
from jaxtyping import Array, Float


def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"]
) -> Float[Array, "b h w c"]:
    """Depthwise cross-correlation, stride 1, zero padding ``k // 2`` (odd kernels).

    Args:
      x: images, NHWC.
      kernel: one ``kh x kw`` filter per channel, HWIO with I = 1.

    Returns:
      Array of the shape and dtype of ``x``.

    >>> import jax.numpy as jnp
    >>> depthwise_conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2)))[0, 1, 1]
    Array([9., 9.], dtype=float32)
    """
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        [(k // 2, k // 2) for k in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )
