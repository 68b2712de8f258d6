"""Contrastive regularisation of DEA-Net-CR: closer to the clear image than to the hazy one.

Distances are measured between features of VGG19 trained on ImageNet. Its weights are the user's
to supply (torchvision's ``vgg19``); none come with this library, and nothing is fetched.
"""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.convert import CONV, Rule, from_state_dict, strip_prefix, to_state_dict
from jaxcore.errors import UserError
from jaxcore.nn import Conv
from jaxcore.typing import Params, StateDict

# Blocks of (index in torchvision's "features", width in units of the first); a pool between two.
_BLOCKS = (
    ((0, 1), (2, 1)),
    ((5, 2), (7, 2)),
    ((10, 4), (12, 4), (14, 4), (16, 4)),
    ((19, 8), (21, 8), (23, 8), (25, 8)),
    ((28, 8),),  # the rest of VGG19 is not needed
)
_LAST = _BLOCKS[-1][0][0]
_SMALLEST = 2 ** (len(_BLOCKS) - 1)  # pixels, of which one is left after the pools
_EPS = 1e-7
WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weight of each feature map in the loss, shallow ones first."""

RULES = (
    Rule(r"features_(\d+)/kernel", r"features.\1.weight", CONV),
    Rule(r"features_(\d+)/bias", r"features.\1.bias"),
)
"""Our parameter path -> torchvision's key."""


class VGG19Features(nn.Module):
    """First convolutions of VGG19, and what they show after the ReLUs 1_1, 2_1, 3_1, 4_1 and 5_1.

    Parameters: ``features_<torchvision's index>`` with ``kernel`` (3, 3, in, out) and ``bias``.

    Attributes:
      width: channels of the first block; 64 in the published network (12,944,960 parameters).
    """

    width: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Five maps, each at half the size of the one before; sides round down."""
        found = []
        for block in _BLOCKS:
            if found:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for position, (index, factor) in enumerate(block):
                name = f"features_{index}"
                x = nn.relu(Conv(features=factor * self.width, use_bias=True, name=name)(x))
                if position == 0:
                    found.append(x)
        return tuple(found)


@functools.partial(jax.jit, static_argnames="width")
def vgg19_init(key: Array, width: int = 64) -> Params:
    """Random weights, for tests and for the shapes; a loss needs those of ImageNet."""
    variables: Any = VGG19Features(width).init(key, jnp.zeros((1, _SMALLEST, _SMALLEST, 3)))
    return variables["params"]


def vgg19_from_torch(state_dict: StateDict, width: int = 64) -> Params:
    """Weights of torchvision's ``vgg19`` as ours; strict, layers behind relu5_1 are left out.

    Args:
      state_dict: ``features.<index>.weight`` and ``.bias``; also of a bare ``features`` module,
        whose keys lack the first word.
      width: see `VGG19Features`.

    Raises:
      UserError: not the weights of a VGG19, such as a VGG16 or a VGG19 with batch norm.
    """
    tensors = strip_prefix(state_dict, ("features.0.weight", "0.weight"))
    if tensors and all(re.match(r"\d+\.", key) for key in tensors):
        tensors = {f"features.{key}": value for key, value in tensors.items()}
    fourth = tensors.get("features.16.weight")
    if fourth is None or fourth.ndim != 4:  # a VGG16 has a pool there, one with norms a norm
        raise UserError(
            "Expected weights of torchvision's vgg19 (features.0.weight to "
            f"features.{_LAST}.weight), found {len(tensors)} tensors without a convolution "
            "features.16.weight."
        )
    target = jax.eval_shape(lambda: vgg19_init(jax.random.key(0), width))
    later = r"features\.(29|[3-9]\d)\..*"
    return from_state_dict(tensors, RULES, target, ignore=(r"classifier\..*", later))


def vgg19_to_torch(params: Params) -> dict[str, np.ndarray]:
    """Exact inverse of `vgg19_from_torch`, of the layers that are used."""
    return to_state_dict(params, RULES)


def contrastive_distances(
    out: Float[Array, "b h w 3"],
    clear: Float[Array, "b h w 3"],
    hazy: Float[Array, "b h w 3"] | None,
    vgg_params: Params,
) -> tuple[Float[Array, "5 b"], Float[Array, "5 b"] | None]:
    """Mean absolute differences of the features of each image, in float32.

    Images go into VGG as they are: in [0, 1] and without ImageNet's mean and deviation, as in the
    official training. No gradient passes through ``clear`` and ``hazy``, nor into the weights.

    Args:
      out: restored, not clipped.
      clear: truth.
      hazy: input of the network; None leaves its distances out.
      vgg_params: of `vgg19_from_torch`, of any width.

    Returns:
      Distances of ``out`` to ``clear`` and to ``hazy``, one row per feature map.

    Raises:
      UserError: images of different shapes, not (batch, height, width, 3), or below 16 pixels.
    """
    fixed = (clear,) if hazy is None else (clear, hazy)
    shapes = {a.shape for a in (out, *fixed)}
    if len(shapes) > 1:
        raise UserError(
            "Expected restored, clear and hazy images of one shape, found "
            f"{', '.join(str(a.shape) for a in (out, *fixed))}."
        )
    if out.ndim != 4 or out.shape[-1] != 3 or min(out.shape[1:3]) < _SMALLEST:
        raise UserError(
            f"Expected images (batch, height, width, 3) of at least {_SMALLEST}x{_SMALLEST} "
            f"pixels, found {out.shape}."
        )
    vgg_params = jax.lax.stop_gradient(vgg_params)
    network: Any = VGG19Features(vgg_params["features_0"]["kernel"].shape[-1])
    anchors = network.apply({"params": vgg_params}, out.astype(jnp.float32))
    both = jax.lax.stop_gradient(jnp.concatenate([a.astype(jnp.float32) for a in fixed]))
    targets = network.apply({"params": vgg_params}, both)  # one call: the weights are read once
    count = out.shape[0]

    def apart(part: int) -> Array:
        rows = [
            jnp.mean(jnp.abs(anchor - target[part * count : (part + 1) * count]), axis=(1, 2, 3))
            for anchor, target in zip(anchors, targets, strict=True)
        ]
        return jnp.stack(rows)

    return apart(0), None if hazy is None else apart(1)


def contrastive_regularization(
    out: Float[Array, "b h w 3"],
    clear: Float[Array, "b h w 3"],
    hazy: Float[Array, "b h w 3"],
    vgg_params: Params,
    *,
    per_sample: bool = False,
    positive_only: bool = False,
) -> Float[Array, ""]:
    """Distance to the clear image in units of that to the hazy one, over five depths of VGG19.

    Published trainings add 0.1 of it to the L1 loss. Restored images get a gradient through both
    distances, all else gets none; see `contrastive_distances`.

    Args:
      out: restored, not clipped.
      clear: truth.
      hazy: input of the network.
      vgg_params: of `vgg19_from_torch`.
      per_sample: divide image by image; the official code divides the means of the batch, so that
        images near their hazy version weigh less.
      positive_only: the distance to the clear image alone, not divided.

    >>> x = jnp.zeros((1, 16, 16, 3))
    >>> vgg = jax.eval_shape(lambda: vgg19_init(jax.random.key(1)))
    >>> jax.eval_shape(contrastive_regularization, x, x, x, vgg).shape
    ()
    """
    positive, negative = contrastive_distances(
        out, clear, None if positive_only else hazy, vgg_params
    )
    if not per_sample:  # images have one shape: the mean of means is that of the batch
        positive = jnp.mean(positive, axis=1, keepdims=True)
        negative = None if negative is None else jnp.mean(negative, axis=1, keepdims=True)
    ratio = positive if negative is None else positive / (negative + _EPS)
    weights = jnp.asarray(WEIGHTS, ratio.dtype)
    return jnp.sum(weights * jnp.mean(ratio, axis=1))
