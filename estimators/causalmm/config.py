"""What CausalMM changes, and how strongly it contrasts."""

import dataclasses
from typing import Annotated, Literal, Self, TypeAlias

from jaxcore.bounds import AtLeast, AtMost, Count, Index
from jaxcore.nn.edits import Band
from jaxcore.ops.attention_edits import EditKind, EditMode
from jaxcore.ops.vision_edits import VisionKind
from jaxcore.serial import Serial

Mode: TypeAlias = Literal["vision", "language", "both", "joint"]
"""Counterfactual branches: one of either kind, one of each, or one with both edits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionEdit(Serial):
    """Counterfactual attention of the vision encoder.

    Attributes:
      kind: what the attention map becomes, see `jaxcore.ops.edit_vision_attention`. "random" is
        nearly no edit with `mode` "reweight": a mean of hundreds of uniform numbers is one.
      mode: "reweight" multiplies the features of each patch by the edited map of the last layer
        that is computed (the released code); "inject" replaces the weights inside `layers`, rows
        scaled to one, and computes on.
      layers: for "inject".
      cast: type that weighted features pass through; "float16" is official.
    """

    kind: VisionKind = "shuffle"
    mode: Literal["reweight", "inject"] = "reweight"
    layers: Band | tuple[Index, ...] = "all"
    cast: Literal["float32", "float16"] = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageEdit(Serial):
    """Counterfactual attention of the language model.

    Attributes:
      kind: what the weights become, see `jaxcore.ops.edit_language_attention`.
      layers: a third of them by name, all, or some by number from 0.
      heads: numbers of the heads; none for all.
      mode: "masked", or "official" for prompts without padding, see there.
    """

    kind: EditKind = "reverse"
    layers: Band | tuple[Index, ...] = "middle"
    heads: tuple[Index, ...] = ()
    mode: EditMode = "masked"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalMMConfig(Serial):
    """Settings of counterfactual decoding.

    The scores of a token are ``l + gamma (l - c)``, summed over the counterfactual branches c.

    Attributes:
      mode: see `Mode`; the released code has "vision" for a model and "both" without one.
      gamma: strength of the contrast.
      gamma_language: that of the language branch, where it differs.
      epsilon: see `plausibility_mask`.
      vision: edit of the vision encoder.
      language: edit of the language model.
      cache_mode: "separate" gives each branch its own keys and values. "official" lets all read
        those of the factual branch after the first token, as the released loop does: from then on
        the vision branch equals the factual one, and nothing is contrasted.
      num_counterfactuals: draws per branch, whose logits are averaged.

    >>> CausalMMConfig(mode="both").gammas, CausalMMConfig(num_counterfactuals=2).gammas
    ((1.0, 1.0), (0.5, 0.5))
    """

    mode: Mode = "language"
    gamma: Annotated[float, AtLeast(0)] = 1.0
    gamma_language: Annotated[float, AtLeast(0)] | None = None
    epsilon: Annotated[float, AtLeast(0), AtMost(1)] = 0.1
    vision: VisionEdit = dataclasses.field(default_factory=VisionEdit)
    language: LanguageEdit = dataclasses.field(default_factory=LanguageEdit)
    cache_mode: Literal["separate", "official"] = "separate"
    num_counterfactuals: Count = 1

    @property
    def branches(self) -> tuple[str, ...]:
        """Counterfactual branches in their order: "vision", "language", or "joint"."""
        kinds = ("vision", "language") if self.mode == "both" else (self.mode,)
        return tuple(kind for kind in kinds for _ in range(self.num_counterfactuals))

    @property
    def gammas(self) -> tuple[float, ...]:
        """Strength of each counterfactual branch."""
        other = self.gamma if self.gamma_language is None else self.gamma_language
        strengths = {"vision": self.gamma, "language": other, "joint": self.gamma}
        return tuple(strengths[kind] / self.num_counterfactuals for kind in self.branches)

    @classmethod
    def official_pope(cls) -> Self:
        """The published script for POPE: shuffled patches, strength 1, epsilon 0.6.

        Its cache is the shared one; to it belong pictures cropped to a square, sampling at
        temperature 1, and questions that end in "Please answer this question with one word.".
        """
        vision = VisionEdit(kind="shuffle", cast="float16")
        return cls(mode="vision", epsilon=0.6, vision=vision, cache_mode="official")

    @classmethod
    def paper_best(cls) -> Self:
        """What the paper reports as best: random attention, middle layers, both branches."""
        return cls(
            mode="both",
            vision=VisionEdit(kind="random"),
            language=LanguageEdit(kind="random", layers="middle"),
        )
