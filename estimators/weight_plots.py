"""Pictures of weights, and of the balance they bring (matplotlib)."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from jaxcore.estimators.plots import MODEL_COLOURS, named
from jaxcore.figures import new_figure

_BLUE, _GREY = "#2a6fbb", "#8a8a8a"
MOST = 40  # covariates in a picture
SMALL = 0.1  # a standardised difference that is usually taken as balanced


class Drawn(Protocol):
    """What a picture of weights asks of an arm."""

    @property
    def name(self) -> str:
        """Such as "A = 1"."""
        ...

    @property
    def weights(self) -> np.ndarray:
        """Of the units, with mean one."""
        ...

    @property
    def effective(self) -> float:
        """Effective sample size."""
        ...

    @property
    def units(self) -> int:
        """Units."""
        ...


def weights(arms: Sequence[Drawn], *, figure: Any = None) -> Any:
    """A histogram of the weights of each arm; returns the figure.

    Args:
      arms: with their weights.
      figure: figure to draw on; None makes one.
    """
    figure = new_figure(6.2, 0.9 + 1.25 * len(arms)) if figure is None else figure
    rows = figure.subplots(len(arms), 1, sharex=True, squeeze=False)[:, 0]
    every = np.concatenate([arm.weights for arm in arms])
    low, high = max(every.min(), 1e-3), max(every.max(), 1e-3)
    wide = high / low > 20
    ends = (low, high * 1.02) if wide else (0, high * 1.02)
    bins = np.geomspace(*ends, 46) if wide else np.linspace(*ends, 46)
    for ax, arm, colour in zip(rows, arms, _colours(len(arms)), strict=True):
        ax.hist(np.maximum(arm.weights, low), bins=bins, color=colour, alpha=0.8)
        ax.axvline(1, color="black", lw=0.8, ls=":")
        ax.set_title(
            f"{named(arm.name)}: {arm.units} units, as precise as {arm.effective:.0f} of equal "
            f"weight; largest {arm.weights.max():.3g}",
            fontsize=9,
            loc="left",
        )
        ax.set_ylabel("units")
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    if wide:
        rows[-1].set_xscale("log")
        rows[-1].xaxis.set_major_formatter("{x:g}")
    rows[-1].set_xlabel("weight, in units of the mean of the arm")
    return figure


def love(rows: Sequence[dict[str, Any]], *, ax: Any = None) -> Any:
    """Standardised differences of covariates before and after weighting; returns the axes.

    Args:
      rows: dicts with "covariate", "before" and "after"; of many those that differed most.
      ax: axes to draw on; None makes a figure.
    """
    shown = sorted(rows, key=lambda r: -r["before"] if np.isfinite(r["before"]) else -np.inf)
    shown = shown[:MOST]
    ax = new_figure(6.4, 1.3 + 0.27 * max(len(shown), 2)).subplots() if ax is None else ax
    if not shown:
        ax.text(0.5, 0.5, "no covariates", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return ax
    at = np.arange(len(shown))
    before, after = (np.array([r[when] for r in shown]) for when in ("before", "after"))
    ax.hlines(at, np.minimum(before, after), np.maximum(before, after), color=_GREY, lw=0.8)
    ax.plot(before, at, "o", color="white", mec=_GREY, mew=1.5, ms=6.5, label="as they are")
    ax.plot(after, at, "o", color=_BLUE, ms=6.5, label="weighted")
    ax.axvline(SMALL, color="black", lw=0.8, ls=":")
    ax.set_yticks(at, [named(r["covariate"]) for r in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    widest = np.max(np.where(np.isfinite([before, after]), [before, after], 0))
    ax.set_xlim(-0.02 * max(widest, SMALL), 1.04 * max(widest, 1.5 * SMALL))
    ax.grid(axis="y", color="0.93", lw=0.8)
    ax.set_axisbelow(True)
    ax.set_xlabel(f"standardised difference of the means (dotted: {SMALL:g})")
    if len(rows) > len(shown):
        ax.set_title(f"{len(shown)} of {len(rows)} covariates", fontsize=9, loc="left")
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def _colours(count: int) -> Sequence[str]:
    two = (MODEL_COLOURS[2], MODEL_COLOURS[0])  # as in pictures of overlap: 0 orange, 1 blue
    if count <= 2:
        return two[:count]
    return [MODEL_COLOURS[i % len(MODEL_COLOURS)] for i in range(count)]
