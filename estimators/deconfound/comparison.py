"""The chosen route beside the others that the same logs allow, as one report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators.deconfound import sensitivity
from jaxcore.estimators.deconfound.diagnostics import Contrast, hausman
from jaxcore.estimators.deconfound.estimator import Deconfound
from jaxcore.estimators.deconfound.result import SENSITIVITY, DeconfoundResult
from jaxcore.estimators.report import PICTURES, Report

ROUTES_PICTURE = "routes.png"
_STRENGTHS = (0.02, 0.1)
_ONE_BY_ONE = (
    "columns of a confounder that bends are moved one by one, with the others held: far more than "
    "its whole effect may be off"
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A fit, and fits of the same confounders by other routes, by their names."""

    every_picture = (*PICTURES, SENSITIVITY, ROUTES_PICTURE)

    chosen: DeconfoundResult
    others: Mapping[str, DeconfoundResult]
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)  # routes, and why

    @property
    def fits(self) -> dict[str, DeconfoundResult]:
        """All of them, the chosen one first."""
        return {self.chosen.route: self.chosen, **self.others}

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures in a report."""
        return self.every_picture if self.others else self.every_picture[:-1]

    def contrasts(self) -> dict[str, Contrast]:
        """Hausman's contrast of the chosen route with each other one but the baseline."""
        return {
            name: hausman(self.chosen, fit) for name, fit in self.others.items() if name != "ols_c"
        }

    def report(self, level: float = 0.95) -> Report:
        """Text, numbers and pictures."""
        from jaxcore.estimators import plots

        base = self.chosen.report(level)
        parts = [base.text]
        if self.others or self.refused:
            parts.append(self._table())
        contrasts = self.contrasts()
        parts += [_words(self.chosen.route, name, one) for name, one in contrasts.items()]
        moved = sensitivity.shifts(self.chosen)
        biases = [one for r in _STRENGTHS for one in sensitivity.bounds(self.chosen, r, r)]
        parts += _sensitivity_lines(moved, biases)
        if moved and getattr(self.chosen.config, "bends", False):
            parts.append(_ONE_BY_ONE)
        parts += ["", self.chosen.assumptions()]
        pictures = dict(base.pictures)
        if self.others:
            drawn = plots.side_by_side(self.fits, level=level)
            pictures[ROUTES_PICTURE] = getattr(drawn, "figure", drawn)
        content = base.content | {
            "routes": {name: fit.rows(level) for name, fit in self.fits.items()},
            "hausman": {name: _content(one) for name, one in contrasts.items()},
            "shifts": [dataclasses.asdict(one) for one in moved],
            "omitted": [dataclasses.asdict(one) for one in biases],
            "refused": dict(self.refused),
        }
        return Report("\n".join(parts), content, pictures)

    def _table(self) -> str:
        """Effects by route, errors in brackets."""
        width = max(map(len, self.fits))
        lines = ["", "by route"]
        for route, fit in self.fits.items():
            cells = [
                f"{name} {theta:.4g} ({se:.4g})"
                for name, theta, se in zip(fit.names, fit.theta, fit.se, strict=True)
            ]
            lines.append(f"{route:{width}}  {', '.join(cells)}")
        lines += [f"{route:{width}}  not possible: {why}" for route, why in self.refused.items()]
        return "\n".join(lines)


def _words(one: str, other: str, found: Contrast) -> str:
    verdict = "they disagree" if found.pvalue < 0.05 else "no sign that they disagree"
    return (
        f"Hausman, {one} against {other}: {found.statistic:.4g}, chi2({found.df}), "
        f"p {found.pvalue:.4f}: {verdict}"
    )


def _content(found: Contrast) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found._asdict().items()}


def _sensitivity_lines(
    moved: Sequence[sensitivity.Shift], biases: Sequence[sensitivity.Omitted]
) -> list[str]:
    lines = []
    for name in dict.fromkeys(one.confounder for one in moved):
        ends = [one for one in moved if one.confounder == name and abs(one.errors) == 2]
        least = min(100 * one.same_top for one in ends)
        lines.append(
            f"if the effect of {name} is 2 errors off, {least:.0f} % of the best fifth stay there"
        )
    lines += [
        f"one left out that explains {100 * one.r2_outcome:g} % of what is left of outcome and "
        f"{one.confounder} moves its effect by at most {one.bias:.3g}: "
        f"{100 * one.same_top:.0f} % of the best fifth stay there"
        for one in biases
    ]
    return ["", *lines] if lines else []


def compare(settings: Deconfound, Y: Any, C: Any, **given: Any) -> Comparison:
    """Fit the chosen route, and every other one that the same data allow.

    What another route refuses is told; what the chosen one refuses is raised.

    Args:
      settings: of the chosen route.
      Y: outcome.
      C: confounders, or None.
      **given: what `Deconfound.fit` takes for any route; each takes what it can use.
    """
    units = {k: given.pop(k, None) for k in ("weights", "clusters", "names")}
    given = {name: value for name, value in given.items() if value is not None}
    allowed: dict[str, tuple[str, ...]] = {
        "iv": ("instruments", "controls"),
        "plm": ("features", "fold_ids"),
        "fe": ("groups", "features"),
        "ols_c": ("controls",),
    }
    needed = {"iv": "instruments", "plm": "features", "fe": "groups"}
    chosen = settings.route
    own = {name: given[name] for name in allowed[chosen] if name in given}
    fit = settings.fit(Y, C, **own, **units)
    others, refused = {}, {}
    for route in ("iv", "plm", "ols_c"):
        possible = route not in needed or needed[route] in given
        if route == chosen or C is None or not possible:
            continue
        same = dataclasses.replace(settings, route=route)
        more = {name: given[name] for name in allowed[route] if name in given}
        try:
            others[route] = same.fit(Y, C, **more, **units)
        except UserError as error:  # the chosen route stands without it
            refused[route] = str(error)
    return Comparison(fit, others, refused)
