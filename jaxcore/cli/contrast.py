"""Options of decoding against counterfactual attention, for ``jaxcore ask`` and ``evaluate``."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.estimators.causalmm.asking import Way

_BANDS = ("early", "middle", "late", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """How tokens are contrasted, if at all.

    Attributes:
      causalmm: attention that is replaced in further branches: of the vision encoder, of the
        language model, of each in a branch of its own, or of both in one.
      contrast: instead, with a noisy picture (vcd), without the picture (text-only), with an
        earlier layer (dola), or raised attention to the picture (pai).
      gamma: strength of the contrast; by default as published.
      epsilon: tokens with less than this share of the largest probability are left out.
      kind: attention that the language model gets.
      layers: of the language model: early, middle, late, all, or numbers from 0 with commas.
      vision_kind: attention that the vision encoder gets.
      draws: counterfactual branches of each kind, averaged.
    """

    causalmm: Literal["off", "vision", "language", "both", "joint"] = "off"
    contrast: Literal["off", "vcd", "text-only", "dola", "pai"] = "off"
    gamma: float | None = None
    epsilon: float | None = None
    kind: Literal["reverse", "uniform", "random", "shuffle"] = "reverse"
    layers: str = "middle"
    vision_kind: Literal["shuffle", "uniform", "reverse", "random"] = "shuffle"
    draws: int = 1

    def way(self) -> "Way | None":
        """Settings of the way to decode; None without a contrast.

        Raises:
          UserError: they do not go together.
        """
        if "off" not in (self.causalmm, self.contrast):
            raise UserError("Expected --causalmm or --contrast, found both.")
        given = {"gamma": self.gamma, "epsilon": self.epsilon}
        given: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.causalmm == self.contrast == "off":
            if given:
                raise UserError(f"Expected --causalmm or --contrast with --{next(iter(given))}.")
            return None
        from jaxcore.estimators import causalmm

        if self.contrast != "off":
            classes = {
                "vcd": causalmm.VCDConfig,
                "text-only": causalmm.TextOnlyConfig,
                "dola": causalmm.DoLaConfig,
                "pai": causalmm.PAIConfig,
            }
            if self.contrast == "dola" and "gamma" in given:
                raise UserError("Expected no --gamma with --contrast dola, which has none.")
            return classes[self.contrast](**given)
        return causalmm.CausalMMConfig(
            mode=self.causalmm,
            vision=causalmm.VisionEdit(kind=self.vision_kind),
            language=causalmm.LanguageEdit(kind=self.kind, layers=self._layers()),
            num_counterfactuals=self.draws,
            **given,
        )

    def _layers(self) -> Any:
        if self.layers in _BANDS:
            return self.layers
        try:
            return tuple(int(part) for part in self.layers.split(","))
        except ValueError:
            raise UserError(
                f"Expected --layers to be {', '.join(_BANDS)}, or numbers with commas, found "
                f"{self.layers!r}."
            ) from None
