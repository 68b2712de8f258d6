"""Sizes and options of pretrained encoders of images."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from jaxcore.bounds import AtLeast, Count, Positive
from jaxcore.errors import UserError
from jaxcore.models.config import DType, NetworkConfig

Family: TypeAlias = Literal["clip", "vit"]
"""CLIP's image part, or the vision transformer of Dosovitskiy et al. with its pooling layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig(NetworkConfig):
    """Everything that decides what the network computes; the defaults are CLIP's ViT-L/14-336.

    >>> cfg = CLIPConfig.base_32()
    >>> cfg.tokens, CLIPConfig.from_dict(cfg.to_dict()) == cfg
    (50, True)
    """

    title: ClassVar[str] = "CLIP"

    family: Family = "clip"
    in_channels: Count = 3
    image_size: Count = 336  # side of all images, in pixels
    patch_size: Count = 14
    width: Count = 1024
    depth: Count = 24
    num_heads: Count = 16
    mlp_width: Count = 4096
    # Features: of the projection that CLIP shares with texts, or 0 for what it projects; those of
    # a "vit" are as many as its width.
    projection: Annotated[int, AtLeast(0)] = 768
    epsilon: Positive = 1e-5  # of the norms
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"

    dtype: DType = "float32"  # of activations; norms and softmax are not narrower
    param_dtype: DType = "float32"
    scan_blocks: bool = True  # one compiled body for all blocks; same parameters

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads:
            raise UserError(
                f"width must be a multiple of the {self.num_heads} heads, found {self.width}."
            )
        if self.image_size % self.patch_size:
            raise UserError(
                f"image_size must be a multiple of {self.patch_size}, found {self.image_size}."
            )
        if self.family == "vit" and self.projection != self.width:
            raise UserError(f"projection of a vit must be {self.width}, found {self.projection}.")

    @property
    def tokens(self) -> int:
        """Patches, and one token for all."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def features(self) -> int:
        """Length of the result."""
        return self.projection or self.width

    @classmethod
    def large_14_336(cls, **changes: Any) -> Self:
        """CLIP ViT-L/14 for 336 pixels: 303.5 M parameters, and 0.8 M of the projection."""
        return cls(**changes)

    @classmethod
    def base_32(cls, **changes: Any) -> Self:
        """CLIP ViT-B/32, of which `clip-rsicd-v2` was trained on satellite images."""
        sizes: dict[str, Any] = {"image_size": 224, "patch_size": 32, "width": 768, "depth": 12}
        return cls(**{**sizes, "num_heads": 12, "mlp_width": 3072, "projection": 512, **changes})

    @classmethod
    def vit_base_16(cls, **changes: Any) -> Self:
        """`vit-base-patch16-224-in21k`: 86.4 M parameters with its pooling layer."""
        sizes: dict[str, Any] = {"family": "vit", "patch_size": 16, "projection": 768}
        numbers: dict[str, Any] = {"epsilon": 1e-12, "activation": "gelu"}
        return cls.base_32(**{**sizes, **numbers, **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """As small as it can be, for tests; no published weights."""
        sizes: dict[str, Any] = {"image_size": 4, "patch_size": 2, "width": 4, "depth": 2}
        return cls(**{**sizes, "num_heads": 1, "mlp_width": 6, "projection": 3, **changes})
