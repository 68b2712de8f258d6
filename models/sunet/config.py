"""Sizes and options of SUNet."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from jaxcore.bounds import AtLeast, Below, Count, Positive
from jaxcore.errors import UserError
from jaxcore.models.config import DType, NetworkConfig

Four: TypeAlias = tuple[Count, Count, Count, Count]
Head: TypeAlias = Literal["bilinear", "dual"]

STAGES = 4
"""Resolutions of the encoder; fixed, as in the official code."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SUNetConfig(NetworkConfig):
    """Everything that decides what the network computes.

    The defaults are the published network for deconvolution.

    >>> cfg = SUNetConfig.denoise_rgb()
    >>> cfg.multiple
    256
    >>> SUNetConfig.from_dict(cfg.to_dict()) == cfg
    True
    """

    title: ClassVar[str] = "SUNet"

    # Side in pixels of the images of the training. It decides which stages have a single window,
    # hence the sizes of windows and tables there; images may have any other size.
    img_size: Count = 128
    patch_size: Count = 1  # pixels per token along each axis
    in_channels: Count = 1  # channels in and out
    embed_dim: Annotated[int, AtLeast(2)] = 48  # width of the first stage; doubles at each
    depths: Four = (2, 6, 8, 16)  # blocks per stage of the encoder; the decoder mirrors three
    num_heads: Four = (8, 8, 8, 8)
    window_size: Count = 8  # tokens along the side of an attention window
    mlp_ratio: Positive = 4.0
    qk_scale: Positive | None = 8.0  # factor of the queries; None for 1 / sqrt(width of a head)
    final_upsample: Head = "bilinear"  # from tokens to pixels: "dual" has weights, for 4 pixels
    # Rate at which the last blocks are left out in training, if a key is given; rises from 0.
    drop_path: Annotated[float, AtLeast(0), Below(1)] = 0.1

    dtype: DType = "float32"  # of activations; norms, softmax and sums are not narrower
    param_dtype: DType = "float32"
    remat: bool = False  # recompute each pair of blocks in the backward pass
    # One compiled body per stage; False unrolls; None: a loop but on a GPU. Same parameters
    scan_blocks: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.img_size % (self.patch_size * 2 ** (STAGES - 1)):
            raise UserError(
                f"img_size must be a multiple of {self.patch_size * 2 ** (STAGES - 1)}, found "
                f"{self.img_size}."
            )
        for width, heads in zip(self.widths, self.num_heads, strict=True):
            if width % heads:
                raise UserError(f"{width} channels cannot be divided among {heads} heads.")
        if self.final_upsample == "dual" and self.patch_size != 4:
            raise UserError(
                "patch_size must be 4 with final_upsample='dual', which enlarges four times, "
                f"found {self.patch_size}."
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every stage."""
        return tuple(self.embed_dim * 2**level for level in range(STAGES))

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Tokens along the side of the images of the training, in every stage."""
        return tuple(self.img_size // self.patch_size // 2**level for level in range(STAGES))

    @property
    def windows(self) -> tuple[int, ...]:
        """Side of the windows of every stage, in tokens."""
        return tuple(min(side, self.window_size) for side in self.resolutions)

    @property
    def shifts(self) -> tuple[int, ...]:
        """By how much the windows of every second block are shifted; 0 where one window is all."""
        return tuple(
            self.window_size // 2 if side > self.window_size else 0 for side in self.resolutions
        )

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        sides = [window * 2**level for level, window in enumerate(self.windows)]
        return self.patch_size * math.lcm(*sides)

    @property
    def drop_rates(self) -> tuple[tuple[float, ...], ...]:
        """Rate of leaving out, for every block of every stage."""
        total, rates, start = sum(self.depths), [], 0
        for depth in self.depths:
            blocks = range(start, start + depth)
            rates.append(tuple(self.drop_path * i / max(total - 1, 1) for i in blocks))
            start += depth
        return tuple(rates)

    @classmethod
    def deconv(cls, **changes: Any) -> Self:
        """The published network for deconvolution: 38.4 M parameters, stamps of 128 pixels."""
        return cls(**changes)

    @classmethod
    def denoise_rgb(cls, **changes: Any) -> Self:
        """The published denoiser of colour images: 99.7 M parameters."""
        sizes: dict[str, Any] = {"img_size": 256, "patch_size": 4, "in_channels": 3}
        sizes |= {"embed_dim": 96, "depths": (8, 8, 8, 8), "final_upsample": "dual"}
        return cls(**{**sizes, **changes})

    @classmethod
    def small(cls, **changes: Any) -> Self:
        """A third of the width, two blocks per stage: 0.82 M parameters; trains on a CPU."""
        sizes: dict[str, Any] = {"img_size": 64, "embed_dim": 16, "depths": (2, 2, 2, 2)}
        return cls(**{**sizes, "num_heads": (4, 4, 4, 4), **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """As small as it can be, for tests; no published weights."""
        sizes: dict[str, Any] = {"img_size": 16, "embed_dim": 4, "depths": (2, 1, 1, 1)}
        return cls(**{**sizes, "num_heads": (2, 2, 2, 2), "window_size": 2, **changes})
