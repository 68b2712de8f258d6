"""Positions as rotations."""

from collections.abc import Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from jaxcore.ops.precision import accumulation_dtype

Turns: TypeAlias = tuple[Float[Array, "*b r"], Float[Array, "*b r"]]
"""Cosine and sine of the angle of every pair."""


def rotary_rates(width: int, theta: float = 10000.0) -> Float[np.ndarray, " r"]:
    """Angle per position of each of the ``width / 2`` pairs: ``theta^(-2j/width)``.

    Args:
      width: length of the vectors, even.
      theta: longest wavelength over 2 pi.

    >>> rotary_rates(4).tolist()
    [1.0, 0.01]
    """
    return theta ** (-np.arange(0, width, 2) / width)


def llama3_rates(
    rates: Float[np.ndarray, " r"], *, factor: float, low: float, high: float, length: int
) -> Float[np.ndarray, " r"]:
    """Rates for longer contexts as in Llama 3: long waves are stretched, short ones stay.

    With wavelength ``w = 2 pi / rate``, a rate is divided by ``factor`` where ``length / w`` is
    below ``low``, stays where it is above ``high``, and is mixed linearly in between.

    Args:
      rates: of `rotary_rates`.
      factor: by which the context grows.
      low: turns within ``length`` below which a wave counts as long.
      high: turns within ``length`` above which a wave counts as short.
      length: of the contexts of the first training.

    >>> llama3_rates(np.array([1.0, 1e-4]), factor=8.0, low=1.0, high=4.0, length=8192).tolist()
    [1.0, 1.25e-05]
    """
    kept = np.clip((length * rates / (2 * np.pi) - low) / (high - low), 0, 1)
    return rates * (kept + (1 - kept) / factor)


def rotary_turns(
    positions: Real[Array, "..."] | Real[np.ndarray, "..."],
    rates: Float[np.ndarray, " r"],
    sections: Sequence[int] = (),
) -> Turns:
    """Cosine and sine of ``positions * rates``, for :func:`rotary`.

    Args:
      positions: any shape; with ``sections`` a leading axis of as many kinds of position as
        sections: time, height and width (M-RoPE), or height and width.
      rates: angle of each pair per unit of position.
      sections: so many pairs, one stretch after the other, turn by each kind of position; they sum
        to the number of rates.

    Returns:
      Two arrays of the shape of ``positions``, without the axis of kinds, and one entry per rate,
      at least float32.

    References:
      Wang et al. 2024, "Qwen2-VL", section 2.1, for the sections.

    >>> cos, sin = rotary_turns(np.array([[0, 1], [5, 5]]), np.array([1.0, 0.0]), (1, 1))
    >>> cos.round(3).tolist()
    [[1.0, 1.0], [0.5400000214576721, 1.0]]
    """
    positions = jnp.asarray(positions)
    wide = accumulation_dtype(positions.dtype)
    angles = jnp.expand_dims(positions.astype(wide), -1)
    if sections:
        kind = np.repeat(np.arange(len(sections)), sections)
        angles = jnp.moveaxis(angles[..., 0], 0, -1)[..., kind]
    rates = np.asarray(rates, wide).reshape((1,) * (angles.ndim - 1) + (-1,))
    angles = angles * rates
    return jnp.cos(angles), jnp.sin(angles)


def rotary(x: Float[Array, "*b d"], turns: Turns) -> Float[Array, "*b d"]:
    """Rotate the pairs ``(j, j + d/2)`` of vectors.

    Args:
      x: vectors of an even number of entries, such as (b, t, heads, d).
      turns: of :func:`rotary_turns`, with an axis of length one where ``x`` has one that they do
        not know: (b, t, 1, d/2) for heads.

    References:
      Su et al. 2021, "RoFormer"; the pairing of halves is that of GPT-NeoX.

    >>> turns = rotary_turns(np.arange(2), rotary_rates(2))
    >>> rotary(jnp.array([[1.0, 0.0], [1.0, 0.0]]), turns)[1].round(3).tolist()
    [0.5400000214576721, 0.8410000205039978]
    """
    wide = jnp.promote_types(accumulation_dtype(x.dtype), turns[0].dtype)
    cos, sin = (part.astype(wide) for part in turns)
    a, b = jnp.split(x.astype(wide), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
