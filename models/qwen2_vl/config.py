"""Sizes and options of Qwen2-VL."""

import dataclasses
from typing import Any, ClassVar, Literal, Self

from jaxcore.bounds import Count, Index, Positive
from jaxcore.errors import UserError
from jaxcore.models.config import DType, NetworkConfig
from jaxcore.models.llama import LlamaConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(NetworkConfig):
    """The tower; the defaults are those of all published sizes, but for ``out_width``.

    >>> VisionConfig().cell, VisionConfig().patch_values
    (4, 1176)
    """

    title: ClassVar[str] = "the tower of Qwen2-VL"

    in_channels: Count = 3
    patch_size: Count = 14
    frames: Count = 2  # moments in a patch
    merge: Count = 2  # patches along each side of a cell that becomes one vector
    width: Count = 1280
    depth: Count = 32
    num_heads: Count = 16
    mlp_width: Count = 5120
    out_width: Count = 3584  # that of the decoder
    epsilon: Positive = 1e-6  # of the norms
    theta: Positive = 10000.0  # longest wavelength of the rotations, over 2 pi
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"

    dtype: DType = "float32"  # of activations; norms and softmax are not narrower
    param_dtype: DType = "float32"
    scan_blocks: bool = True  # one compiled body for all blocks; same parameters

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % (4 * self.num_heads):  # two directions, two halves of a rotation
            raise UserError(
                f"width must be a multiple of {4 * self.num_heads} for {self.num_heads} heads, "
                f"found {self.width}."
            )

    @property
    def cell(self) -> int:
        """Patches that become one vector."""
        return self.merge**2

    @property
    def patch_values(self) -> int:
        """Numbers in a patch."""
        return self.in_channels * self.frames * self.patch_size**2

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.width // self.num_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen2VLConfig(NetworkConfig):
    """Everything that decides what the network computes; the defaults are Qwen2-VL-7B's.

    >>> cfg = Qwen2VLConfig.qwen2_vl_2b()
    >>> cfg.language.tied, Qwen2VLConfig.from_dict(cfg.to_dict()) == cfg
    (True, True)
    """

    title: ClassVar[str] = "Qwen2-VL"

    vision: VisionConfig = dataclasses.field(default_factory=VisionConfig)
    language: LlamaConfig = dataclasses.field(default_factory=LlamaConfig.qwen2_7b)
    image_token: Index = 151655  # stands where an image does, once for each of its vectors
    video_token: Index = 151656

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vision.out_width != self.language.width:
            raise UserError(
                f"out_width must be that of the decoder, {self.language.width}, found "
                f"{self.vision.out_width}."
            )
        if len(self.language.mrope_sections) != 3:
            raise UserError(
                "mrope_sections must be three, of time, height and width, found "
                f"{self.language.mrope_sections}."
            )

    @property
    def vocab_size(self) -> int:
        """Tokens that the decoder knows."""
        return self.language.vocab_size

    @classmethod
    def qwen2_vl_7b(cls, **changes: Any) -> Self:
        """Qwen2-VL-7B: 8,291,375,616 parameters."""
        return cls(**changes)

    @classmethod
    def qwen2_vl_2b(cls, **changes: Any) -> Self:
        """Qwen2-VL-2B: 2.2 billion parameters, the logits by the embeddings themselves."""
        sizes: dict[str, Any] = {"vocab_size": 151936, "width": 1536, "num_heads": 12}
        language = LlamaConfig.qwen2_7b(**sizes, num_kv_heads=2, mlp_width=8960, tied=True)
        return cls(**{"vision": VisionConfig(out_width=1536), "language": language, **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """As small as it can be, for tests; no published weights."""
        sizes: dict[str, Any] = {"patch_size": 2, "frames": 1, "width": 4, "depth": 2}
        parts: dict[str, Any] = {
            "vision": VisionConfig(**sizes, num_heads=1, mlp_width=6, out_width=8),
            "language": LlamaConfig.tiny(head_dim=6, mrope_sections=(1, 1, 1), qkv_bias=True),
            "image_token": 10,
            "video_token": 9,
        }
        return cls(**{**parts, **changes})
