"""Sizes and options of LLaVA-1.5."""

import dataclasses
import re
from typing import Any, ClassVar, Literal, Self

from jaxcore.errors import UserError
from jaxcore.models.clip import CLIPConfig
from jaxcore.models.config import NetworkConfig
from jaxcore.models.llama import LlamaConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaConfig(NetworkConfig):
    """Everything that decides what the network computes; the defaults are LLaVA-1.5-7B's.

    >>> cfg = LlavaConfig.llava_1_5_7b()
    >>> cfg.image_tokens, cfg.projector_widths, LlavaConfig.from_dict(cfg.to_dict()) == cfg
    (576, (1024, 4096, 4096), True)
    """

    title: ClassVar[str] = "LLaVA"

    vision: CLIPConfig = dataclasses.field(default_factory=lambda: CLIPConfig(projection=0))
    language: LlamaConfig = dataclasses.field(default_factory=lambda: LlamaConfig(vocab_size=32064))
    # From features of images to embeddings: "linear", "identity", or "mlpNx_gelu" of N layers.
    projector: str = "mlp2x_gelu"
    image_token: int = 32000  # stands where an image does, once for each of its vectors
    select_layer: int = -2  # block of the tower whose tokens are taken; from the end if negative
    select: Literal["patches", "all"] = "patches"  # without the token for the whole image, or with

    def __post_init__(self) -> None:
        super().__post_init__()
        vision, language = self.vision, self.language
        if vision.family != "clip" or vision.projection:
            raise UserError(
                "vision must be of the family 'clip' with projection 0, found "
                f"{vision.family!r} with {vision.projection}."
            )
        if not re.fullmatch(r"linear|identity|mlp[1-9]\d?x_gelu", self.projector):
            raise UserError(
                "projector must be linear, identity or mlpNx_gelu, N from 1, found "
                f"{self.projector!r}."
            )
        if self.projector == "identity" and vision.width != language.width:
            raise UserError(
                f"projector identity needs features of {language.width}, found {vision.width}."
            )
        depth = self.select_layer + vision.depth + 1 if self.select_layer < 0 else self.select_layer
        if not 1 <= depth <= vision.depth:
            raise UserError(
                f"select_layer must be a block of the {vision.depth}, found {self.select_layer}."
            )

    @property
    def image_tokens(self) -> int:
        """Vectors that one image becomes."""
        return self.vision.tokens - (self.select == "patches")

    @property
    def vocab_size(self) -> int:
        """Tokens that the decoder knows."""
        return self.language.vocab_size

    @property
    def projector_widths(self) -> tuple[int, ...]:
        """Of the features, and behind each layer of the projector."""
        if self.projector == "identity":
            return (self.vision.width,)
        found = re.search(r"\d+", self.projector)
        return (self.vision.width, *(self.language.width,) * (int(found[0]) if found else 1))

    @classmethod
    def llava_1_5_7b(cls, **changes: Any) -> Self:
        """LLaVA-1.5-7B as Hugging Face's files hold it: 7,063,427,072 parameters."""
        return cls(**changes)

    @classmethod
    def original_7b(cls, **changes: Any) -> Self:
        """LLaVA-1.5-7B as its authors' files hold it: 7,062,902,784 parameters.

        The vocabulary is Vicuna's; what stands for an image is no token of it.
        """
        return cls(**{"language": LlamaConfig.vicuna_7b(), "image_token": -200, **changes})

    @classmethod
    def llava_1_5_13b(cls, **changes: Any) -> Self:
        """LLaVA-1.5-13B: 13.4 billion parameters."""
        sizes: dict[str, Any] = {"width": 5120, "depth": 40, "num_heads": 40, "num_kv_heads": 40}
        language = LlamaConfig(vocab_size=32064, mlp_width=13824, **sizes)
        return cls(**{"language": language, **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """As small as it can be, for tests; no published weights."""
        parts: dict[str, Any] = {
            "vision": CLIPConfig.tiny(projection=0),
            "language": LlamaConfig.tiny(),
            "image_token": 10,
        }
        return cls(**{**parts, **changes})
