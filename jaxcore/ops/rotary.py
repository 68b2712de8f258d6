"""Positions as rotations."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.ops.precision import accumulation_dtype


def rotary(
    x: Float[Array, "*b t d"], *, theta: float = 10000.0, start: int = 0
) -> Float[Array, "*b t d"]:
    """Rotate the pairs ``(j, j + d/2)`` of the vector at position ``p`` by ``p theta^(-2j/d)``.

    Args:
      x: vectors of an even number of entries.
      theta: longest wavelength over 2 pi.
      start: position of the first.

    References:
      Su et al. 2021, "RoFormer"; the pairing of halves is that of GPT-NeoX.

    >>> import jax.numpy as jnp
    >>> rotary(jnp.array([[1.0, 0.0], [1.0, 0.0]]))[1].round(3).tolist()
    [0.5400000214576721, 0.8410000205039978]
    """
    wide, (length, width) = accumulation_dtype(x.dtype), x.shape[-2:]
    rates = theta ** (-np.arange(0, width, 2) / width)
    angles = (start + np.arange(length))[:, None] * rates  # in double precision
    shape = (1,) * (x.ndim - 2) + angles.shape
    cos, sin = (jnp.asarray(f(angles).reshape(shape), wide) for f in (np.cos, np.sin))
    a, b = jnp.split(x.astype(wide), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
