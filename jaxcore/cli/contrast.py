"""Options of decoding against counterfactual attention, for ``jaxcore ask`` and ``evaluate``."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxcore.cli.output import show
from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.estimators.causalmm.asking import Way

_BANDS = ("early", "middle", "late", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """How tokens are contrasted, if at all.

    Attributes:
      causalmm: attention that is replaced in further branches: of the vision encoder, of the
        language model, of each in a branch of its own, or of both in one; or all settings of the
        published script for POPE, or of what the paper reports as best.
      contrast: instead, with a noisy picture (vcd), without the picture (text-only), with an
        earlier layer (dola), or raised attention to the picture (pai).
      gamma: strength of the contrast; by default as published.
      epsilon: tokens with less than this share of the largest probability are left out.
      kind: attention that the language model gets.
      layers: of the language model: early, middle, late, all, or numbers from 0 with commas.
      vision_kind: attention that the vision encoder gets.
      draws: counterfactual branches of each kind, averaged.
    """

    causalmm: Literal[
        "off", "vision", "language", "both", "joint", "official-pope", "paper-best"
    ] = "off"
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
        if self.causalmm in ("official-pope", "paper-best"):
            config = causalmm.CausalMMConfig
            official = self.causalmm == "official-pope"
            preset = config.official_pope() if official else config.paper_best()
            return dataclasses.replace(preset, **given)
        return causalmm.CausalMMConfig(
            mode=self.causalmm,  # pyright: ignore[reportArgumentType]  # is not "off" here
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


def contrasted(
    model: Any, ids: Sequence[int], images: Sequence[Any], way: Any, seed: int, options: Any
) -> Iterator[list[int]]:
    """Ids of a contrasted answer as they come.

    Args:
      model: that is asked.
      ids: of the prompt.
      images: pictures of 8 bits.
      way: of `Contrast.way`.
      seed: of all draws.
      options: of `jaxcore.estimators.causalmm.asking.answer`.
    """
    import jax

    from jaxcore.estimators.causalmm.asking import answer

    yield from answer(model, ids, images, way, key=jax.random.key(seed), **options)


def draw_attention(
    model: Any, ids: Sequence[int], images: Sequence[Any], way: Any, seed: int, path: Path
) -> None:
    """A picture of the attention, as it is and edited; the arguments are those of `contrasted`."""
    import jax

    from jaxcore.atomic import whole_file
    from jaxcore.estimators.causalmm import CausalMMConfig
    from jaxcore.estimators.causalmm.asking import attention_figure

    config = way if isinstance(way, CausalMMConfig) else None
    figure = attention_figure(model, ids, images, config, key=jax.random.key(seed))
    with whole_file(path, overwrite=True) as place:
        figure.savefig(place, format="png", dpi=120)
    show(f"written: {path}", file=sys.stderr)
