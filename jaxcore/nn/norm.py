"""Normalisation layers of the image networks."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.nn.types import Types


class ChannelNorm(nn.Module, kw_only=True):
    """Layer norm over the channels of each pixel, population variance, eps inside the root.

    Parameters: ``scale`` (c,) and, with ``use_bias``, ``bias`` (c,).

    Attributes:
      use_bias: True: ``(x - mean) / sqrt(var + eps) * scale + bias``. False: Restormer's
        bias-free form ``x / sqrt(var + eps) * scale``, in which the variance is still taken
        about the mean but the mean stays in ``x``.
      epsilon: added to the variance.
      types: of the result and of the parameters.
    """

    use_bias: bool = True
    epsilon: float = 1e-5
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Normalise ``x`` over its last axis."""
        shape, param_dtype = (x.shape[-1],), jnp.dtype(self.types.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape, param_dtype)
        normed: Array = ops.channel_norm(x, scale, bias, self.epsilon)
        return normed.astype(self.types.dtype)
