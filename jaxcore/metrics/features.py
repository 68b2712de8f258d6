"""Features of networks trained on ImageNet, for metrics; weights are the user's, as torchvision's.

Widths are read from the weights. Maps are NHWC, kernels stay as the files have them (OIHW).
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Weights = Mapping[str, Array]
"""Official key -> array, as the file has it."""

# Indices of the convolutions in torchvision's ``features``: (stride, padding) of AlexNet's, and the
# blocks of VGG16, whose convolutions are 3x3 with padding 1 and have a pool between two blocks.
_ALEXNET = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
_ALEXNET_POOLS = (3, 6)  # before these, 3x3 with stride 2
VGG16_BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def by_channel(values: Float[Array, "c"] | Sequence[float]) -> Float[Array, "1 1 1 c"]:
    """A number for each channel of NHWC maps."""
    return jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)


def convolved(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "o i kh kw"],
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> Float[Array, "b h2 w2 o"]:
    """Convolution of NHWC maps with a kernel of PyTorch's layout; zeros outside."""
    return jax.lax.conv_general_dilated(
        x,
        jnp.transpose(kernel, (2, 3, 1, 0)),
        (stride, stride),
        [(n, n) for n in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


def max_pooled(x: Float[Array, "b h w c"], side: int = 3) -> Float[Array, "b h2 w2 c"]:
    """Largest values of windows with stride 2, inside the map."""
    window, strides = (1, side, side, 1), (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "VALID")


def _layer(x: Array, weights: Weights, index: int, stride: int, padding: int) -> Array:
    name = f"features.{index}"
    y = convolved(x, weights[f"{name}.weight"], stride=stride, padding=(padding, padding))
    return jax.nn.relu(y + by_channel(weights[f"{name}.bias"]))


def alexnet(weights: Weights, x: Float[Array, "b h w 3"]) -> list[Array]:
    """What AlexNet shows after each of its five ReLUs of convolutions.

    Args:
      weights: ``features.<index>.weight`` and ``.bias``.
      x: images, normalised as the metric has it.
    """
    found = []
    for index, (stride, padding) in _ALEXNET.items():
        x = max_pooled(x) if index in _ALEXNET_POOLS else x
        x = _layer(x, weights, index, stride, padding)
        found.append(x)
    return found


def vgg16(
    weights: Weights,
    x: Float[Array, "b h w 3"],
    pool: Sequence[float] | None = None,
) -> list[Array]:
    """What VGG16 shows at the end of each of its five blocks.

    Args:
      weights: ``features.<index>.weight`` and ``.bias``.
      x: images, normalised as the metric has it.
      pool: None for the largest of 2x2; or the taps of a low-pass filter for the root of filtered
        squares at every second place (DISTS).
    """
    found = []
    for block in VGG16_BLOCKS:
        if found:
            x = max_pooled(x, 2) if pool is None else _root_pooled(x, pool)
        for index in block:
            x = _layer(x, weights, index, 1, 1)
        found.append(x)
    return found


def _root_pooled(x: Array, taps: Sequence[float]) -> Array:
    line = jnp.asarray(taps, x.dtype)
    kernel = jnp.outer(line, line)
    kernel = jnp.broadcast_to(kernel / kernel.sum(), (x.shape[-1], 1, *kernel.shape))
    half = len(taps) // 2
    squares = jax.lax.conv_general_dilated(
        x * x,
        jnp.transpose(kernel, (2, 3, 1, 0)),
        (2, 2),
        [(half, half), (half, half)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision="highest",
    )
    return jnp.sqrt(squares + 1e-12)
