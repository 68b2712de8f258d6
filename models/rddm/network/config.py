"""Sizes of RDDM's U-Nets."""

import dataclasses
from typing import Literal

from jaxcore.bounds import Count, Positive
from jaxcore.errors import UserError
from jaxcore.models.config import DType
from jaxcore.serial import Serial

TimeEmbedding = Literal["sinusoidal", "learned", "random"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnetConfig(Serial):
    """Sizes and options of each U-Net.

    >>> UnetConfig(dim=16, dim_mults=(1, 2)).widths
    (16, 16, 32)
    """

    dim: Count = 64  # channels at full resolution
    dim_mults: tuple[Count, ...] = (1, 2, 4, 8)  # channels per level, in units of dim
    channels: Count = 3  # of an image
    groups: Count = 8  # of the group norms
    heads: Count = 4
    dim_head: Count = 32
    share_encoder: bool = False  # two decoders behind one encoder instead of two networks
    time_embedding: TimeEmbedding = "sinusoidal"  # "learned", "random": Fourier features
    learned_frequencies: Count = 8  # of the Fourier features
    eps: Positive = 1e-5  # of weight standardisation and layer norms; official: 1e-3 below float32
    dtype: DType = "float32"  # of activations; statistics, softmax and the time stay in float32
    param_dtype: DType = "float32"
    remat: bool = False  # recompute each block in the backward pass

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dim_mults:
            raise UserError("dim_mults must have at least one value, found none.")
        if self.dim % 2 or (self.dim < 4 and self.time_embedding == "sinusoidal"):
            raise UserError(f"dim must be even and at least 4, found {self.dim}.")
        for width in self.widths:
            if width % self.groups:
                raise UserError(f"{width} channels cannot be divided into {self.groups} groups.")

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return 2 ** (len(self.dim_mults) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at full resolution, and after each level."""
        return (self.dim, *(self.dim * m for m in self.dim_mults))
