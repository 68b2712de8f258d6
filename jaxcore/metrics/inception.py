"""Inception v3 up to its pooled features, on weights of the user by torchvision's keys.

Widths are read from the weights. Two editions share the keys: torchvision's, and the one with 1008
classes on which FID is defined, whose mean pools leave the border out and whose last block takes
maxima.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.metrics.features import Weights, by_channel, convolved, max_pooled
from jaxcore.ops.resize import resize_bilinear

SIDE = 299
_FID_CLASSES = 1008
_EPS = 1e-3

Layer = tuple[str, int, tuple[int, int]]
"""Name, stride, padding."""


def is_fid_edition(weights: Weights) -> bool:
    """Whether weights are of the edition that FID is defined on."""
    return weights["fc.weight"].shape[0] == _FID_CLASSES


def inception_features(
    weights: Weights, images: Float[Array, "b h w 3"], *, fid: bool
) -> Float[Array, "b c"]:
    """Features after the last mean, 2048 of them in the published network.

    Args:
      weights: of torchvision's ``inception_v3`` or of FID's edition.
      images: floats in [0, 1]; they are resized to 299x299 without antialiasing.
      fid: which edition.
    """
    x = 2 * resize_bilinear(jnp.clip(images, 0, 1), (SIDE, SIDE)) - 1
    for layer in (("1a_3x3", 2, (0, 0)), ("2a_3x3", 1, (0, 0)), ("2b_3x3", 1, (1, 1))):
        x = _basic(weights, x, (f"Conv2d_{layer[0]}", *layer[1:]))
    x = max_pooled(x)
    for layer in (("3b_1x1", 1, (0, 0)), ("4a_3x3", 1, (0, 0))):
        x = _basic(weights, x, (f"Conv2d_{layer[0]}", *layer[1:]))
    x = max_pooled(x)
    mean = _mean_pooled(inside=fid)
    for name in ("5b", "5c", "5d"):
        x = _block(weights, x, name, _A, mean)
    x = _block(weights, x, "6a", _B, max_pooled)
    for name in ("6b", "6c", "6d", "6e"):
        x = _block(weights, x, name, _C, mean)
    x = _block(weights, x, "7a", _D, max_pooled)
    x = _block(weights, x, "7b", _E, mean)
    x = _block(weights, x, "7c", _E, _max_around if fid else mean)
    return jnp.mean(x, axis=(1, 2))


_TALL, _WIDE = (3, 0), (0, 3)
# Branches of a block; a tuple inside is a fork, whose ends are put side by side.
_A = (
    [("branch1x1", 1, (0, 0))],
    [("branch5x5_1", 1, (0, 0)), ("branch5x5_2", 1, (2, 2))],
    [
        ("branch3x3dbl_1", 1, (0, 0)),
        ("branch3x3dbl_2", 1, (1, 1)),
        ("branch3x3dbl_3", 1, (1, 1)),
    ],
)
_B = (
    [("branch3x3", 2, (0, 0))],
    [
        ("branch3x3dbl_1", 1, (0, 0)),
        ("branch3x3dbl_2", 1, (1, 1)),
        ("branch3x3dbl_3", 2, (0, 0)),
    ],
)
_C = (
    [("branch1x1", 1, (0, 0))],
    [("branch7x7_1", 1, (0, 0)), ("branch7x7_2", 1, _WIDE), ("branch7x7_3", 1, _TALL)],
    [
        ("branch7x7dbl_1", 1, (0, 0)),
        ("branch7x7dbl_2", 1, _TALL),
        ("branch7x7dbl_3", 1, _WIDE),
        ("branch7x7dbl_4", 1, _TALL),
        ("branch7x7dbl_5", 1, _WIDE),
    ],
)
_D = (
    [("branch3x3_1", 1, (0, 0)), ("branch3x3_2", 2, (0, 0))],
    [
        ("branch7x7x3_1", 1, (0, 0)),
        ("branch7x7x3_2", 1, _WIDE),
        ("branch7x7x3_3", 1, _TALL),
        ("branch7x7x3_4", 2, (0, 0)),
    ],
)
_E = (
    [("branch1x1", 1, (0, 0))],
    [
        ("branch3x3_1", 1, (0, 0)),
        (("branch3x3_2a", 1, (0, 1)), ("branch3x3_2b", 1, (1, 0))),
    ],
    [
        ("branch3x3dbl_1", 1, (0, 0)),
        ("branch3x3dbl_2", 1, (1, 1)),
        (("branch3x3dbl_3a", 1, (0, 1)), ("branch3x3dbl_3b", 1, (1, 0))),
    ],
)


def _block(
    weights: Weights,
    x: Array,
    name: str,
    branches: "Sequence[Sequence[Layer | tuple[Layer, ...]]]",
    pool: Callable[[Array], Array],
) -> Array:
    found = []
    for branch in branches:
        y = x
        for step in branch:
            layers: Any = step if isinstance(step[0], tuple) else (step,)
            ends = [_basic(weights, y, (f"Mixed_{name}.{n}", at, pad)) for n, at, pad in layers]
            y = jnp.concatenate(ends, axis=-1) if len(ends) > 1 else ends[0]
        found.append(y)
    pooled = pool(x)
    key = f"Mixed_{name}.branch_pool"
    if f"{key}.conv.weight" in weights:
        pooled = _basic(weights, pooled, (key, 1, (0, 0)))
    return jnp.concatenate([*found, pooled], axis=-1)


def _basic(weights: Weights, x: Array, layer: Layer) -> Array:
    """Convolution, batch norm by the stored statistics, ReLU."""
    name, stride, padding = layer
    y = convolved(x, weights[f"{name}.conv.weight"], stride=stride, padding=padding)
    scale, shift, mean, variance = (
        by_channel(weights[f"{name}.bn.{part}"])
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return jax.nn.relu((y - mean) * (scale * jax.lax.rsqrt(variance + _EPS)) + shift)


def _around(x: Array, start: float, joined: Callable[..., Array]) -> Array:
    window, strides = (1, 3, 3, 1), (1, 1, 1, 1)
    return jax.lax.reduce_window(x, start, joined, window, strides, "SAME")


def _max_around(x: Array) -> Array:
    return _around(x, -jnp.inf, jax.lax.max)


def _mean_pooled(*, inside: bool) -> Callable[[Array], Array]:
    """Mean of 3x3; of what lies inside the map, or with zeros around it."""

    def pooled(x: Array) -> Array:
        count = _around(jnp.ones_like(x[:1, ..., :1]), 0.0, jax.lax.add) if inside else 9.0
        return _around(x, 0.0, jax.lax.add) / count

    return pooled


inception_compiled = jax.jit(inception_features, static_argnames="fid")
