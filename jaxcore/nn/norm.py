"""Normalisation layers."""

from collections.abc import Callable

import flax.linen as nn
import jax
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


class BatchNorm(nn.Module, kw_only=True):
    """Mean 0 and variance 1 of every channel, by running statistics or those of the batch.

    Parameters: ``scale`` and ``bias`` (c,), where asked for. Carried beside them in
    ``batch_stats``, at least float32: ``mean`` and the population variance ``var``.

    Attributes:
      train: normalise by the statistics of the batch, and move the running ones.
      momentum: share of the old running statistics that stays.
      epsilon: added to the variance.
      use_scale: multiply by a learned factor.
      use_bias: add a learned number.
      types: of the result and of the parameters.
    """

    train: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Normalise ``x`` over all axes but its last."""
        shape, held = (x.shape[-1],), ops.accumulation_dtype(self.types.param_dtype)
        running = [
            self.variable("batch_stats", "mean", jnp.zeros, shape, held),
            self.variable("batch_stats", "var", jnp.ones, shape, held),
        ]
        wide = x.astype(ops.accumulation_dtype(x.dtype))
        mean, variance = (self._row(old.value, wide) for old in running)
        if self.train:
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(wide, axes, keepdims=True)
            variance = jnp.mean(jnp.square(wide - mean), axes, keepdims=True)
            for old, new in zip(running, (mean, variance), strict=True):
                kept = self.momentum * old.value
                old.value = kept + (1 - self.momentum) * new.reshape(shape).astype(held)
        y = (wide - mean) * jax.lax.rsqrt(variance + self.epsilon)
        param_dtype = jnp.dtype(self.types.param_dtype)
        if self.use_scale:
            y = y * self._row(self.param("scale", nn.initializers.ones, shape, param_dtype), y)
        if self.use_bias:
            y = y + self._row(self.param("bias", nn.initializers.zeros, shape, param_dtype), y)
        return y.astype(self.types.dtype)

    def _row(self, a: Array, x: Array) -> Array:
        return a.astype(x.dtype).reshape((1,) * (x.ndim - 1) + a.shape)


class RMSNorm(nn.Module, kw_only=True):
    """``x / sqrt(epsilon + mean of x^2)`` times a gain.

    Parameter: ``scale`` (d,).

    Attributes:
      epsilon: added to the mean square.
      draw: of the gain before training.
      types: of the result and of the parameter.
    """

    epsilon: float = 1e-6
    draw: Callable[..., Array] = nn.initializers.ones
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Normalise over the last axis, in at least float32."""
        draw = self.draw if self.is_initializing() else nn.initializers.zeros
        scale = self.param("scale", draw, (x.shape[-1],), jnp.dtype(self.types.param_dtype))
        return ops.rms_norm(x, scale, self.epsilon).astype(self.types.dtype)
