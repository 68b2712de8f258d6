"""Distances of pictures as people see them: LPIPS and DISTS, on weights of the user."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.metrics.features import Weights, alexnet, by_channel, vgg16

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in [0, 1]
_SMALL = 1e-6
_TAPS = (0.5, 1.0, 0.5)  # Hann's window of five without its zeros
_NETWORKS = {"alex": alexnet, "vgg": vgg16}

LEAST_SIDE = 32
"""Pixels, below which the last maps have none."""


def lpips(
    weights: Weights,
    heads: Weights,
    image: Float[Array, "b h w 3"],
    target: Float[Array, "b h w 3"],
    network: str = "alex",
) -> Float[Array, "b"]:
    """LPIPS, version 0.1: weighted squared distance of normalised features; 0 for equal images.

    Args:
      weights: features of torchvision's ``alexnet`` or ``vgg16``.
      heads: ``lin<layer>.model.1.weight`` of shape (1, channels, 1, 1), five of them.
      image: floats in [0, 1].
      target: what it is compared with; the metric is symmetric.
      network: "alex" or "vgg", which must be that of both weights.

    References:
      Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018.
    """
    shift, scale = by_channel(_SHIFT), by_channel(_SCALE)
    both = [(2 * jnp.clip(x, 0, 1) - 1 - shift) / scale for x in (image, target)]
    maps = zip(*(_NETWORKS[network](weights, x) for x in both), strict=True)
    total = jnp.zeros(image.shape[0])
    for layer, (a, b) in enumerate(maps):
        squares = (_unit(a) - _unit(b)) ** 2
        head = heads[f"lin{layer}.model.1.weight"].reshape(-1)
        total += jnp.mean(squares @ head, axis=(1, 2))
    return total


def _unit(x: Array) -> Array:
    """Channels of every pixel divided by their length."""
    return x / (jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True)) + 1e-10)


def dists(
    weights: Weights,
    heads: Weights,
    image: Float[Array, "b h w 3"],
    target: Float[Array, "b h w 3"],
) -> Float[Array, "b"]:
    """DISTS: similarity of texture and of structure in features, as a distance; 0 for equal images.

    Images are taken at their own size; the authors' demonstration shrinks them to 256 first.

    Args:
      weights: features of torchvision's ``vgg16``.
      heads: ``alpha`` and ``beta`` of the authors, one number for each channel of all maps.
      image: floats in [0, 1].
      target: what it is compared with.

    References:
      Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", 2020.
    """
    maps = []
    for x in (image, target):
        x = jnp.clip(x, 0, 1)
        normal = (x - by_channel(_MEAN)) / by_channel(_STD)
        maps.append([x, *vgg16(weights, normal, _TAPS)])
    alpha, beta = (heads[name].reshape(-1) for name in ("alpha", "beta"))
    ends = np.cumsum([a.shape[-1] for a in maps[0]])[:-1].tolist()
    whole = alpha.sum() + beta.sum()
    found = jnp.zeros(image.shape[0])
    parts = zip(*maps, jnp.split(alpha, ends), jnp.split(beta, ends), strict=True)
    for a, b, texture, structure in parts:
        mean_a, mean_b = (jnp.mean(x, axis=(1, 2)) for x in (a, b))
        spread = [
            jnp.mean((x - mean[:, None, None]) ** 2, axis=(1, 2))
            for x, mean in ((a, mean_a), (b, mean_b))
        ]
        shared = jnp.mean(a * b, axis=(1, 2)) - mean_a * mean_b
        first = (2 * mean_a * mean_b + _SMALL) / (mean_a**2 + mean_b**2 + _SMALL)
        second = (2 * shared + _SMALL) / (spread[0] + spread[1] + _SMALL)
        found += first @ (texture / whole) + second @ (structure / whole)
    return 1 - found


lpips_compiled = jax.jit(lpips, static_argnames="network")
dists_compiled = jax.jit(dists)
