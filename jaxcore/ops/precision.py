"""Types in which sums over many numbers are formed."""

import numpy as np
from jax.typing import DTypeLike


def accumulation_dtype(dtype: DTypeLike) -> np.dtype:
    """Type for norms, means, softmax and Fourier transforms of data of type ``dtype``.

    >>> import jax.numpy as jnp
    >>> accumulation_dtype(jnp.bfloat16), accumulation_dtype("float64")
    (dtype('float32'), dtype('float64'))
    """
    return np.dtype("float64" if np.dtype(dtype) == np.float64 else "float32")
