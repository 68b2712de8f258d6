"""Normalisation layers of the image networks."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, population variance, eps inside the root.

    Parameters: ``scale`` (c,) and, with ``use_bias``, ``bias`` (c,).

    Attributes:
      use_bias: True: ``(x - mean) / sqrt(var + eps) * scale + bias``. False: Restormer's
        bias-free form ``x / sqrt(var + eps) * scale``, in which the variance is still taken
        about the mean but the mean stays in ``x``.
      epsilon: added to the variance.
      dtype: type of the result; statistics are computed in at least float32.
      param_dtype: type of the stored parameters.
    """

    use_bias: bool = True
    epsilon: float = 1e-5
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Normalise ``x`` over its last axis."""
        shape, param_dtype = (x.shape[-1],), jnp.dtype(self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape, param_dtype)
        y: Array = ops.channel_norm(x, scale, bias, self.epsilon)  # type: ignore[assignment]
        return y.astype(self.dtype)
