"""Pictures of curves with bands: effects over quantiles, effects over time (matplotlib)."""

from typing import Any

import numpy as np

from jaxcore.estimators.estimate import Estimate
from jaxcore.figures import new_figure

_BLUE, _GREY, _ORANGE = "#2a6fbb", "#8a8a8a", "#d9822b"


def band(
    estimate: Estimate, at: np.ndarray, label: str, *, level: float = 0.95, ax: Any = None
) -> Any:
    """Effects over ``at`` with intervals of each alone and of all at once; returns the axes.

    Args:
      estimate: effects.
      at: where they stand on the horizontal axis.
      label: of that axis.
      level: coverage.
      ax: axes to draw on; None makes a figure.
    """
    ax = new_figure(6.4, 4.2).subplots() if ax is None else ax
    _line(ax, estimate, at, level, _BLUE, None)
    ax.axhline(0, color="black", lw=0.8, ls=":")
    _finished(
        ax, label, f"effect, with {100 * level:g}% intervals\n(dark: of each alone, light: of all)"
    )
    return ax


def both(
    potential: Estimate, at: np.ndarray, label: str, *, level: float = 0.95, ax: Any = None
) -> Any:
    """Two curves, without treatment and with it; arguments as in `band`."""
    ax = new_figure(6.4, 4.2).subplots() if ax is None else ax
    q = len(at)
    parts = (
        (slice(None, q), _ORANGE, "without treatment"),
        (slice(q, None), _BLUE, "with treatment"),
    )
    for rows, colour, name in parts:
        _line(ax, potential, at, level, colour, name, rows)
    ax.legend(frameon=False, loc="upper left")
    _finished(
        ax, label, f"outcome, with {100 * level:g}% intervals\n(dark: of each alone, light: of all)"
    )
    return ax


def _line(
    ax: Any,
    estimate: Estimate,
    at: np.ndarray,
    level: float,
    colour: str,
    name: str | None,
    rows: slice = slice(None),
) -> None:
    for joint, alpha in ((True, 0.15), (False, 0.25)):
        ends = np.asarray(estimate.confint(level, joint=joint))[rows]
        ax.fill_between(at, ends[:, 0], ends[:, 1], color=colour, alpha=alpha, lw=0)
    theta = np.asarray(estimate.theta)[rows]
    ax.plot(at, theta, "o-", color=colour, ms=4.5, lw=1.6, label=name)


def event_study(
    estimate: Estimate,
    since: np.ndarray,
    *,
    anticipation: int = 0,
    level: float = 0.95,
    ax: Any = None,
) -> Any:
    """Effects by time since treatment with intervals of each alone and of all at once.

    Args:
      estimate: one number for each time.
      since: periods since treatment, negative before it.
      anticipation: periods before treatment in which it may act.
      level: coverage.
      ax: axes to draw on; None makes a figure.

    Returns:
      The axes.
    """
    ax = new_figure(6.8, 4.2).subplots() if ax is None else ax
    alone, joint = (np.asarray(estimate.confint(level, joint=j)) for j in (False, True))
    theta, after = np.asarray(estimate.theta), since >= -anticipation
    for which, colour, name in (
        (~after, _GREY, "before treatment"),
        (after, _BLUE, "from treatment on"),
    ):
        if which.any():
            x = since[which]
            ax.vlines(x, joint[which, 0], joint[which, 1], color=colour, lw=1)
            ax.plot(np.r_[x, x], joint[which].T.ravel(), "_", color=colour, ms=9)
            ax.vlines(x, alone[which, 0], alone[which, 1], color=colour, lw=3.5)
            ax.plot(x, theta[which], "o", color=colour, ms=6, label=name, mec="white", mew=0.8)
    ax.axhline(0, color="black", lw=0.8, ls=":")
    if after.any() and (~after).any():
        ax.axvline((since[after].min() + since[~after].max()) / 2, color="black", lw=0.8, ls="--")
        ax.legend(frameon=False, loc="upper left")
    if np.all(since == np.round(since)) and len(since) <= 25:
        ax.set_xticks(since)
    _finished(
        ax,
        "periods since treatment",
        f"effect on the treated, with {100 * level:g}% intervals\n"
        "(thick: of each alone, thin: of all)",
    )
    return ax


def _finished(ax: Any, across: str, up: str) -> None:
    ax.set_xlabel(across)
    ax.set_ylabel(up)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
