"""Dense layers of networks of tokens."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore import ops
from jaxcore.nn.initialise import Normal
from jaxcore.nn.types import Types


class Linear(nn.Module, kw_only=True):
    """A matrix and, if wanted, a bias.

    Parameters: ``kernel`` (in, *features) and, with ``use_bias``, ``bias`` of shape ``features``.

    >>> import jax
    >>> layer = Linear(features=(2, 5))
    >>> layer.init_with_output(jax.random.key(0), jnp.zeros((3, 4)))[0].shape
    (3, 2, 5)

    Attributes:
      features: shape of what becomes of each vector.
      use_bias: add a bias.
      std: standard deviation of the kernel before training; the bias starts at 0.
      types: of activations and parameters.
    """

    features: tuple[int, ...]
    use_bias: bool = False
    std: float = 0.02
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "..."]:
        """Transform every vector."""
        param_dtype = jnp.dtype(self.types.param_dtype)
        draw = Normal(self.std) if self.is_initializing() else nn.initializers.zeros
        kernel = self.param("kernel", draw, (x.shape[-1], *self.features), param_dtype)
        y = ops.linear(x.astype(self.types.dtype), kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, self.features, param_dtype)
            y = y + bias.astype(y.dtype).reshape((1,) * (x.ndim - 1) + self.features)
        return y


class SwiGLU(nn.Module, kw_only=True):
    """``down(silu(gate(x)) * up(x))``.

    Parameters: ``gate_up/kernel`` (d, 2, width) and ``down/kernel`` (width, d).

    References:
      Shazeer 2020, "GLU variants improve transformer".

    Attributes:
      width: of the hidden vectors.
      types: of activations and parameters.
    """

    width: int
    types: Types = Types()

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Transform every vector."""
        types = self.types
        both = Linear(features=(2, self.width), types=types, name="gate_up")(x)
        # Rounded once: a processor without half precision converts there and back at each step.
        hidden: Array = ops.silu_gate(both)
        return Linear(features=(x.shape[-1],), types=types, name="down")(hidden)
