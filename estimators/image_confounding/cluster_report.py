"""The report of a cluster model: effects by kind of place, other places, pictures."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from jaxcore.estimators.image_confounding import cluster_pictures as pictures
from jaxcore.estimators.image_confounding.cluster_result import (
    ImageHeterogeneityResult,
    Transported,
)
from jaxcore.estimators.report import Report

_SHOWN = 10  # places that the text names


@dataclasses.dataclass(frozen=True, eq=False)
class ClusterReport:
    """Clusters, their effects, and what they say of other places."""

    result: ImageHeterogeneityResult
    other: Transported | None = None
    keys: Sequence[str] = ()  # of the other places

    # Of a report with everything; what a fit has no data for is left out.
    every_picture: ClassVar[tuple[str, ...]] = (
        "clusters.png",
        "effects.png",
        "salience.png",
        "map.png",
    )

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        placed = self.result.coords is not None or self.result.images.keyed.coords is not None
        return self.every_picture if placed else self.every_picture[:-1]

    def report(self, level: float = 0.95) -> Report:
        """Text, numbers and pictures."""
        result = self.result
        draw: dict[str, Any] = {
            "clusters.png": lambda: pictures.draw_typical(result),
            "effects.png": lambda: pictures.draw_effects(result, level=level),
            "salience.png": lambda: pictures.draw_salience(result),
            "map.png": lambda: pictures.draw_cluster_map(result),
        }
        drawn = {name: draw[name]() for name in self.report_pictures}
        text, content = result.summary(level), result.to_dict(level)
        if self.other is not None:
            rows = self._places(self.other)
            content["other_places"] = rows
            text += "\n\n" + _told(self.other, rows)
        return Report(text, content, drawn)

    def _places(self, found: Transported) -> list[dict[str, Any]]:
        return [
            {
                "key": str(key),
                "probabilities": probabilities.tolist(),
                "effect": float(effect),
                "sd_between_networks": float(deviation),
            }
            for key, probabilities, effect, deviation in zip(
                self.keys, found.probabilities, found.effects, found.deviations, strict=True
            )
        ]


def _told(found: Transported, rows: list[dict[str, Any]]) -> str:
    """The mean over the other places, and the first of them."""
    shares = ", ".join(f"{share:.3f}" for share in found.shares)
    lines = [
        f"{len(rows)} other places: mean effect {np.mean(found.effects):.4g}, shares of the "
        f"clusters {shares}",
        *(
            f"  {row['key']}: effect {row['effect']:.4g} "
            f"(sd between networks {row['sd_between_networks']:.2g})"
            for row in rows[:_SHOWN]
        ),
    ]
    return "\n".join(lines + ["  ..."] * (len(rows) > _SHOWN))
