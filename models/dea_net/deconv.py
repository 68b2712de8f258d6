"""Detail-enhanced convolution: five kernels in training, their sum in use."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.models.dea_net.config import BRANCHES
from jaxcore.nn import ConvWeights, Types
from jaxcore.typing import Params

# For every position, row by row, the next one of the ring counter-clockwise; the centre itself.
_AROUND = np.array([3, 0, 1, 6, 4, 2, 7, 8, 5], np.int32)
_CENTRE = np.zeros((3, 3, 1, 1), np.bool_)
_CENTRE[1, 1] = True
_SHAPES = {"hdc": (3, 1), "vdc": (1, 3)}  # all others are 3x3


def effective_kernel(kind: str, kernel: Any) -> Any:
    """The 3x3 kernel that one branch amounts to.

    Args:
      kind: "cdc", "hdc", "vdc", "adc" or "vanilla".
      kernel: its weights, JAX's or NumPy's; (3, 1, in, out) for "hdc", (1, 3, in, out) for
        "vdc", else (3, 3, in, out), behind any number of leading axes.

    >>> effective_kernel("hdc", np.ones((3, 1, 1, 1)))[..., 0, 0]
    array([[ 1.,  0., -1.],
           [ 1.,  0., -1.],
           [ 1.,  0., -1.]])
    >>> effective_kernel("cdc", np.ones((3, 3, 1, 1)))[1, 1, 0, 0].item()
    -8.0
    """
    xp = kernel.__array_namespace__()
    zeros = xp.zeros_like(kernel)
    match kind:
        case "cdc":  # the centre's own weight cancels: it is minus the sum of its neighbours
            centre = _CENTRE.reshape((1,) * (kernel.ndim - 4) + _CENTRE.shape)
            ring = xp.where(centre, zeros, kernel)
            return xp.where(centre, -ring.sum(axis=(-4, -3), keepdims=True), ring)
        case "adc":
            flat = kernel.reshape(*kernel.shape[:-4], 9, *kernel.shape[-2:])
            return (flat - flat[..., _AROUND, :, :]).reshape(kernel.shape)
        case "hdc":
            return xp.concatenate([kernel, zeros, -kernel], axis=-3)
        case "vdc":
            return xp.concatenate([kernel, zeros, -kernel], axis=-4)
        case _:
            return kernel


def merge(branches: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Kernel and bias of the one convolution that equals the sum of all branches.

    Args:
      branches: kind -> ``{"kernel": ..., "bias": ...}``; see :func:`effective_kernel`.
    """
    kernels = [effective_kernel(kind, weights["kernel"]) for kind, weights in branches.items()]
    biases = [weights["bias"] for weights in branches.values()]
    return {"kernel": sum(kernels[1:], kernels[0]), "bias": sum(biases[1:], biases[0])}


def reparameterize(params: Params) -> Params:
    """Merge every detail-enhanced convolution of a parameter tree. Pure; exact up to rounding.

    Parameters that are merged already come back as they are. Leaves may be JAX's or NumPy's, of
    any floating type.

    >>> import jax
    >>> from jaxcore.models import dea_net
    >>> cfg = dea_net.DEANetConfig.tiny()
    >>> merged = reparameterize(dea_net.init(jax.random.key(0), cfg))
    >>> merged["level3"]["conv1"]["kernel"].shape
    (2, 3, 3, 32, 32)
    """
    if not isinstance(params, Mapping):
        return params
    if "vanilla" in params:
        return merge(params)
    return {name: reparameterize(below) for name, below in params.items()}


class DEConv(nn.Module, kw_only=True):
    """Detail-enhanced convolution in its training form: the kernels are added, then convolved.

    Parameters: ``vanilla`` and each of ``branches``, all with a kernel and a bias. The weights in
    the centre of ``cdc`` and ``adc`` cancel and have a gradient of exactly zero; they are kept
    for the official checkpoints.

    Attributes:
      branches: difference convolutions beside the vanilla one.
      types: of activations and parameters.
    """

    branches: tuple[str, ...] = BRANCHES
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Convolve NHWC images; zero padding 1."""
        width, weights = x.shape[-1], {}
        for kind in (*self.branches, "vanilla"):
            shape = (*_SHAPES.get(kind, (3, 3)), width, width)
            kernel, bias = ConvWeights(shape=shape, types=self.types, name=kind)()
            weights[kind] = {"kernel": kernel, "bias": bias}
        merged = merge(weights)
        y = ops.conv2d(x.astype(self.types.dtype), merged["kernel"])
        return y + merged["bias"].astype(y.dtype)[None, None, None, :]
