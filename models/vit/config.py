"""Sizes and options of the vision transformer for propensities."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from jaxcore.bounds import AtLeast, Below, Count
from jaxcore.errors import UserError
from jaxcore.models.regression import SequenceConfig
from jaxcore.nn.encoder import Start

Mode: TypeAlias = Literal["token", "head", "only"]
"""Covariates as one more token, beside the features, or as a token instead of the image's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(SequenceConfig):
    """Everything that decides what the network computes.

    The defaults are those of the package `causalimages` at the end of 2025, but for ``start``.

    >>> cfg = ViTConfig.tutorial()
    >>> ViTConfig.from_dict(cfg.to_dict()) == cfg
    True
    """

    title: ClassVar[str] = "ViT"

    width: Count = 64  # of a token
    depth: Count = 1  # blocks
    num_heads: Count = 8
    patch_size: Count = 16  # pixels along the side of a patch
    # A remainder below and on the right that fills no patch is left out, or filled with zeros.
    pad_to_patch: bool = False
    covariate_mode: Mode = "token"
    start: Start = "ours"  # how much a block adds before training
    drop_path: Annotated[float, AtLeast(0), Below(1)] = 0.1  # in training
    scan_blocks: bool = True  # one compiled body for all blocks; same parameters

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads or self.width % 2:
            raise UserError(
                f"width must be even and a multiple of the {self.num_heads} heads, found "
                f"{self.width}."
            )
        if self.covariate_mode == "only" and not self.covariates:
            raise UserError("covariate_mode='only' needs covariates, found none.")

    @property
    def least(self) -> int:
        """Smallest height and width of an image."""
        return 1 if self.pad_to_patch else self.patch_size

    @classmethod
    def causalimages(cls, **changes: Any) -> Self:
        """The default of the published package, its first values too: 129,665 parameters (RGB)."""
        return cls(**{"start": "official", **changes})

    @classmethod
    def tutorial(cls, **changes: Any) -> Self:
        """The network of the package's tutorial simulation: 4.3 M parameters."""
        sizes: dict[str, Any] = {"width": 256, "depth": 4, "covariates": 2, "start": "official"}
        return cls(**{**sizes, **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """As small as it can be, for tests; no published weights."""
        sizes: dict[str, Any] = {"width": 4, "num_heads": 2, "patch_size": 4, "covariates": 2}
        return cls(**{**sizes, **changes})
