"""Changes of layout between PyTorch's weights and ours, each with its inverse.

They only move axes and never compute with the values.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Transform:
    """A change of layout and its inverse.

    Both should return views of their argument: then a shard of a weight is read from a file
    without the rest of it.
    """

    name: str
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def _conv_to_ours(w: np.ndarray) -> np.ndarray:
    return w.transpose(*range(2, w.ndim), 1, 0)


def _conv_to_torch(w: np.ndarray) -> np.ndarray:
    return w.transpose(w.ndim - 1, w.ndim - 2, *range(w.ndim - 2))


def _flip(w: np.ndarray) -> np.ndarray:
    return w[(slice(None, None, -1),) * (w.ndim - 2)]


def channel_vector(leading: int = 0, trailing: int = 2) -> Transform:
    """Vector stored with singleton axes around it: ``(1, ..., C, 1, ...) <-> (C,)``.

    Args:
      leading: number of singleton axes before the channel axis in the official shape.
      trailing: number of singleton axes after it.

    >>> channel_vector(leading=1).to_torch(np.zeros(3)).shape
    (1, 3, 1, 1)
    """
    outside = (None,) * leading + (slice(None),) + (None,) * trailing
    inside = (0,) * leading + (slice(None),) + (0,) * trailing
    return Transform(f"vector({leading}, {trailing})", lambda w: w[inside], lambda w: w[outside])


IDENTITY = Transform("identity", lambda w: w, lambda w: w)
#: ``(O, I, kh, kw) <-> (kh, kw, I, O)``; also 1-D and 3-D, and grouped (I per group).
CONV = Transform("conv", _conv_to_ours, _conv_to_torch)
#: ``(C, 1, kh, kw) <-> (kh, kw, 1, C)``: the same move as `CONV`, named for the reader.
DEPTHWISE = Transform("depthwise", _conv_to_ours, _conv_to_torch)
#: ``(O, I, 1, 1) <-> (I, O)``.
POINTWISE = Transform("pointwise", lambda w: w[:, :, 0, 0].T, lambda w: w.T[:, :, None, None])
#: ``(O, I) <-> (I, O)``.
LINEAR = Transform("linear", lambda w: w.T, lambda w: w.T)
#: ``(I, O, kh, kw) <-> (kh, kw, I, O)`` with taps flipped: the HWIO kernel for
#: ``lax.conv_general_dilated(..., (1, 1), k - 1 - padding, lhs_dilation=stride)``.
CONV_TRANSPOSE = Transform(
    "conv_transpose",
    lambda w: _flip(w.transpose(*range(2, w.ndim), 0, 1)),
    lambda w: _flip(w).transpose(w.ndim - 2, w.ndim - 1, *range(w.ndim - 2)),
)
#: ``(C, 1, 1) <-> (C,)``; other singleton axes: :func:`channel_vector`.
VECTOR = channel_vector()
