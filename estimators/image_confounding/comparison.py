"""The effect with and without images and covariates, side by side, on the same folds."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from jaxcore.estimators import plots
from jaxcore.estimators.image_confounding import pictures
from jaxcore.estimators.image_confounding.estimator import ImageConfounding
from jaxcore.estimators.image_confounding.result import ImageConfoundingResult
from jaxcore.estimators.report import Report, comparison_text

NAIVE, TABLE, IMAGE, BOTH = "difference in means", "covariates", "images", "images and covariates"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Fits by what they adjust for; the last one is the one to report."""

    fits: Mapping[str, ImageConfoundingResult]

    # Of a report with everything; what a fit has no data for is left out.
    every_picture: ClassVar[tuple[str, ...]] = (
        "estimates.png",
        "overlap.png",
        "balance.png",
        "salience.png",
        "map.png",
    )

    @property
    def main(self) -> ImageConfoundingResult:
        """The fit that adjusts for most."""
        return list(self.fits.values())[-1]

    def rows(self, level: float = 0.95) -> list[dict[str, Any]]:
        """Estimates with intervals, one row for each fit."""
        return [{**fit.estimate.rows(level)[0], "name": name} for name, fit in self.fits.items()]

    def summary(self, level: float = 0.95) -> str:
        """The table, and the summary of the fit that adjusts for most."""
        name = list(self.fits)[-1]
        table = comparison_text(self.rows(level), level)
        return f"adjusted for\n{table}\n\n{name}\n{self.main.summary(level)}"

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Everything but the arrays of units, JSON-able."""
        return {name: fit.to_dict(level) for name, fit in self.fits.items()}

    def plot(self, *, level: float = 0.95) -> Any:
        """Estimates with intervals; returns the axes."""
        return plots.intervals(self.rows(level), level=level, highlight=len(self.fits) - 1)

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        return tuple(self._pictures())

    def report(self, level: float = 0.95) -> Report:
        """Table, numbers and pictures."""
        drawn = {name: draw(level) for name, draw in self._pictures().items()}
        return Report(self.summary(level), self.to_dict(level), drawn)

    def _pictures(self) -> dict[str, Any]:
        main = self.main
        found = {
            "estimates.png": lambda level: self.plot(level=level).figure,
            "overlap.png": lambda level: main.plot_overlap(),
        }
        if main.sample.covariates or (main.features is not None and main.features.shape[1]):
            found["balance.png"] = lambda level: main.plot_balance().figure
        if main.networks and main.networks[0]:
            found["salience.png"] = lambda level: pictures.draw_salience(main)
        if main.coords is not None:
            found["map.png"] = lambda level: pictures.draw_map(main)
        return found


def compare(
    estimator: ImageConfounding,
    Y: Any,
    A: Any,
    images: Any,
    X: Any = None,
    *,
    run_dir: str | Path | None = None,
    **data: Any,
) -> Comparison:
    """Fit with nothing, with covariates, with images, and with both.

    Args:
      estimator: settings of the last two.
      Y: outcome.
      A: treatment.
      images: as in `ImageConfounding.fit`.
      X: covariates; without any there are two fits.
      run_dir: receives the trainings, each fit in a folder of its own.
      **data: further arguments of ``fit``.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 99, (60, 4, 4, 1)).astype(np.uint8)
    >>> A, Y = rng.integers(0, 2, 60), rng.normal(size=60)
    >>> found = compare(ImageConfounding(backbone="band_stats", n_folds=2), Y, A, images)
    >>> list(found.fits)
    ['difference in means', 'images']
    """
    regressed = "ridge" if estimator.joint else estimator.outcome_model
    without = dataclasses.replace(estimator, backbone="none", outcome_model=regressed, trim=None)
    naive = dataclasses.replace(without, estimator="difference")
    extra = {k: v for k, v in data.items() if k != "covariates"}
    fits = {NAIVE: naive.fit(Y, A, images, **extra)}
    if X is not None:
        without = dataclasses.replace(without, trim=estimator.trim)
        fits[TABLE] = without.fit(Y, A, images, X, **data)
    places = [None if run_dir is None else Path(run_dir) / part for part in ("images", "both")]
    fits[IMAGE] = estimator.fit(Y, A, images, run_dir=places[0], **extra)
    if X is not None:
        fits[BOTH] = estimator.fit(Y, A, images, X, run_dir=places[1], **data)
    return Comparison(fits)
