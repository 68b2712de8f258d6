"""Normalisation layers of the image networks."""

import flax.linen as nn
import jax
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
        wide = ops.accumulation_dtype(self.dtype)
        shape = (x.shape[-1],)
        param_dtype = jnp.dtype(self.param_dtype)

        def along_channels(a: Array) -> Array:
            return a.astype(wide).reshape((1,) * (x.ndim - 1) + shape)

        scale = along_channels(self.param("scale", nn.initializers.ones, shape, param_dtype))
        x = x.astype(wide)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(variance + self.epsilon)
        if self.use_bias:
            bias = along_channels(self.param("bias", nn.initializers.zeros, shape, param_dtype))
            return (centred * inverse * scale + bias).astype(self.dtype)
        return (x * inverse * scale).astype(self.dtype)
