"""Pictures of estimates (matplotlib, without a global figure)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcore.errors import UserError, readable
from jaxcore.estimators.tables import Tabled
from jaxcore.figures import new_figure

_BLUE, _GREY, _ORANGE = "#2a6fbb", "#8a8a8a", "#d9822b"
MODEL_COLOURS = ("#2a6fbb", "#6aa9e0", "#d9822b", "#f0b36a", "#7b5aa6", "#5aa67b")


def named(name: str) -> str:
    """A name from a table as matplotlib shows it: dollar signs would begin a formula."""
    return readable(name).replace("$", r"\$")


def intervals(
    rows: Sequence[dict[str, Any]],
    *,
    ax: Any = None,
    level: float = 0.95,
    highlight: int | None = None,
) -> Any:
    """Estimates with intervals, one line each; returns the axes.

    Args:
      rows: dicts with "name", "estimate", "lower", "upper" (as `Estimate.rows`), perhaps with
        "joint_lower" and "joint_upper", drawn thin; those that are not finite are left out.
      ax: axes to draw on; None makes a figure.
      level: coverage, for the axis label.
      highlight: row drawn in colour; None colours all.
    """
    rows = [r for r in rows if np.isfinite([r["estimate"], r["lower"], r["upper"]]).all()]
    if not rows:
        raise UserError(
            "Expected at least one estimate with a finite interval to draw, found none."
        )
    if ax is None:
        ax = new_figure(7.5, 1.2 + 0.36 * len(rows)).subplots()
    for i, row in enumerate(rows):
        colour = _BLUE if highlight is None or i == highlight else _GREY
        ax.plot([row["lower"], row["upper"]], [i, i], color=colour, lw=2, solid_capstyle="butt")
        if "joint_lower" in row:
            ends = [row["joint_lower"], row["joint_upper"]]
            ax.plot(ends, [i, i], "|-", color=colour, lw=0.8, ms=7)
        ax.plot([row["estimate"]], [i], "o", color=colour, ms=6)
        text = f"{row['estimate']:.4g}"
        ax.annotate(
            text,
            (row["estimate"], i),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=colour,
        )
    ends = [r.get(f"joint_{side}", r[side]) for r in rows for side in ("lower", "upper")]
    if min(ends) <= 0 <= max(ends):
        ax.axvline(0, color="black", lw=0.8, ls=":")
    ax.set_yticks(range(len(rows)), [named(r["name"]) for r in rows])
    ax.set_ylim(len(rows) - 0.4, -0.75)
    several = ", thin: of all at once" if "joint_lower" in rows[0] else ""
    ax.set_xlabel(f"estimate and {100 * level:g}% interval{several}")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def side_by_side(fits: Mapping[str, Tabled], *, level: float = 0.95, ax: Any = None) -> Any:
    """Estimates of several fits with intervals, those of one name together; returns the axes.

    The picture of `tables.side_by_side`.

    Args:
      fits: fits or estimates by the names that the legend shows.
      level: coverage of the intervals.
      ax: axes to draw on; None makes a figure.

    Raises:
      UserError: nothing to draw.
    """
    rows = {fit: {r["name"]: r for r in one.rows(level)} for fit, one in fits.items()}
    names = list(dict.fromkeys(name for one in rows.values() for name in one))
    if not names:
        raise UserError("Expected at least one estimate to draw, found none.")
    at, ticks = 0.0, []
    places: dict[str, list[tuple[float, dict[str, Any]]]] = {fit: [] for fit in fits}
    for name in names:
        begin = at
        for fit, one in rows.items():
            r = one.get(name)
            if r is not None and np.isfinite([r["estimate"], r["lower"], r["upper"]]).all():
                places[fit].append((at, r))
                at += 1
        ticks.append((begin + at - 1) / 2)
        at += 0.8
    ax = new_figure(7.5, 1.0 + 0.24 * at).subplots() if ax is None else ax
    for i, (fit, found) in enumerate(places.items()):
        colour = MODEL_COLOURS[(0, 2, 4, 5, 1, 3)[i % 6]]
        for y, r in found:
            ax.plot([r["lower"], r["upper"]], [y, y], color=colour, lw=2, solid_capstyle="butt")
        points = [r["estimate"] for _, r in found]
        ax.plot(points, [y for y, _ in found], "o", color=colour, ms=6, label=named(fit))
    low, high = ax.get_xlim()
    if low <= 0 <= high:
        ax.axvline(0, color="black", lw=0.8, ls=":")
    ax.set_yticks(ticks, [named(name) for name in names])
    ax.set_ylim(at - 0.8, -0.8)
    ax.set_xlabel(f"estimate and {100 * level:g}% interval")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def overlap(
    pi: np.ndarray,
    Z: np.ndarray,
    d: np.ndarray,
    *,
    clip: tuple[float, float],
    floor: float,
    figure: Any = None,
) -> Any:
    """Histograms of the instrument probability by arm and of D; returns the figure.

    Args:
      pi: P(Z=1|X), not clipped.
      Z: instrument.
      d: Var(A|Z=1,X) - Var(A|Z=0,X).
      clip: bounds of pi.
      floor: floor of |D|.
      figure: figure to draw on; None makes one.
    """
    figure = new_figure(9, 3.4) if figure is None else figure
    left, right = figure.subplots(1, 2)
    _arms(left, pi, Z, "Z", clip)
    left.set_xlabel("P(Z=1 | X), dotted: clipping bounds")
    edges = np.linspace(min(d.min(), -2 * floor), max(d.max(), 2 * floor) + 1e-3, 61)
    right.hist(d, bins=edges, density=True, color=_GREY, alpha=0.8)
    right.axvspan(-floor, floor, color=_ORANGE, alpha=0.4, lw=0)
    right.axvline(0, color="black", lw=0.8)
    right.set_xlabel("Var(A|Z=1,X) - Var(A|Z=0,X), band: floor")
    for ax in (left, right):
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    return figure


def arms(
    p: np.ndarray, arm: np.ndarray, *, symbol: str, clip: tuple[float, float], figure: Any = None
) -> Any:
    """Histograms of a probability by what it is the probability of; returns the figure.

    Args:
      p: the probability, not clipped.
      arm: 0 or 1.
      symbol: such as "P(A=1|X)".
      clip: its bounds.
      figure: figure to draw on; None makes one.
    """
    figure = new_figure(5, 3.4) if figure is None else figure
    ax = figure.subplots()
    _arms(ax, p, arm, symbol[2], clip)
    ax.set_xlabel(f"{symbol}, dotted: clipping bounds")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return figure


def _arms(ax: Any, p: np.ndarray, arm: np.ndarray, letter: str, clip: tuple[float, float]) -> None:
    bins = np.linspace(min(0, p.min()), max(1, p.max()), 51)
    for value, colour in ((1, _BLUE), (0, _ORANGE)):
        of = p[arm == value]
        ax.hist(of, bins=bins, density=True, alpha=0.55, color=colour, label=f"{letter} = {value}")
    for bound in clip:
        ax.axvline(bound, color="black", lw=0.8, ls=":")
    ax.set_ylabel("density")
    ax.legend(frameon=False)


def pseudo_risk(rows: Sequence[dict[str, Any]], *, figure: Any = None, best: int = 40) -> Any:
    """Criterion of the best combinations split into the risks of the models, with estimates.

    Args:
      rows: dicts with "criterion", "estimate", "std_error" and "R_<model>", as
        `SelectiveIVResult.combinations`.
      figure: figure to draw on; None makes one.
      best: combinations shown.
    """
    figure = new_figure(10, 7) if figure is None else figure
    top, bottom = figure.subplots(2, 1, sharex=True)
    if "criterion" not in rows[0]:
        top.text(0.5, 0.5, "one combination: nothing to select", ha="center", va="center")
        top.set_axis_off()
        bottom.set_axis_off()
        return figure
    ordered = sorted(rows, key=lambda r: r["criterion"])[:best]
    models = [k for k in ordered[0] if k.startswith("R_")]
    at, floor = np.arange(len(ordered)), np.zeros(len(ordered))
    for colour, model in zip(MODEL_COLOURS, models, strict=False):
        height = np.array([r[model] for r in ordered])
        top.bar(at, height, bottom=floor, color=colour, width=0.8, label=model[2:])
        floor = floor + height
    top.set_ylabel("pseudo-risk\n(sum over models)")
    top.legend(frameon=False, ncols=len(models), loc="upper left")
    theta = np.array([r["estimate"] for r in ordered])
    se = np.array([r["std_error"] for r in ordered])
    bottom.errorbar(at, theta, 1.96 * se, fmt="o", ms=3, lw=1, color=_GREY)
    bottom.plot([0], theta[:1], "o", color=_BLUE)
    bottom.set_ylabel("estimate\n(95% interval)")
    blocks = [k for k in ordered[0] if k not in ("estimate", "std_error", "criterion", *models)]
    labels = [" ".join(str(r[b]) for b in blocks) for r in ordered]
    longest = max(len(t) for t in labels)
    size = 7 if longest < 40 else 5
    bottom.set_xticks(at, labels, rotation=90, fontsize=size)
    bottom.set_xlabel(f"{len(ordered)} of {len(rows)} combinations ({', '.join(blocks)})")
    for ax in (top, bottom):
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    return figure


def _round_numbers(levels: np.ndarray) -> np.ndarray:
    """Multiples of 1, 2 or 5 times a power of ten that cover the levels as densely."""
    step = (levels[-1] - levels[0]) / (len(levels) - 1)
    power = 10.0 ** np.floor(np.log10(step))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))
    ends = np.ceil(levels[0] / step), np.floor(levels[-1] / step)
    return np.arange(ends[0], ends[1] + 1) * step


def sensitivity_contour(
    grid: np.ndarray,
    values: np.ndarray,
    *,
    null: float = 0.0,
    scenario: tuple[float, float] | None = None,
    benchmarks: Mapping[str, tuple[float, float]] | None = None,
    label: str = "bound of the effect",
    ax: Any = None,
) -> Any:
    """Contours of a bound over the strengths of omitted confounders; returns the axes.

    Args:
      grid: strengths, of both axes.
      values: the bound, one row for each ``cf_y``, as `sensitivity.contour`.
      null: value whose contour is drawn in colour: beyond it the conclusion changes.
      scenario: ``(cf_y, cf_d)`` marked by a diamond.
      benchmarks: name -> ``(cf_y, cf_d)`` of observed covariates; those beyond the axes are left
        out.
      label: what the contours show.
      ax: axes to draw on; None makes a figure.
    """
    grid, values = np.asarray(grid), np.asarray(values)
    if ax is None:
        ax = new_figure(6.2, 5.2).subplots()
    if np.ptp(values) > 0:
        levels = _round_numbers(np.linspace(values.min(), values.max(), 9))
        lines = ax.contour(
            grid,
            grid,
            values,
            levels=levels[levels != null],
            colors=_GREY,
            linewidths=0.9,
            linestyles="solid",
        )
        ax.clabel(lines, fmt="%.4g", fontsize=8)
        if values.min() < null < values.max():
            edge = ax.contour(grid, grid, values, levels=[null], colors=_ORANGE, linewidths=2)
            ax.clabel(edge, fmt=f"{null:g}", fontsize=9)
    if scenario is not None:
        ax.plot([scenario[1]], [scenario[0]], "D", color="black", ms=7, label="scenario")
    colours = [c for c in MODEL_COLOURS if c != _ORANGE]
    for i, (name, (cf_y, cf_d)) in enumerate((benchmarks or {}).items()):
        if max(cf_y, cf_d) <= grid[-1]:
            colour, mark = colours[i % len(colours)], "os^v"[i // len(colours) % 4]
            ax.plot([cf_d], [cf_y], mark, color=colour, ms=7, label=named(name), clip_on=False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(framealpha=1, edgecolor="white", loc="upper right")
    ax.set_xlim(0, grid[-1])
    ax.set_ylim(0, grid[-1])
    ax.set_xlabel("cf_d: gain in the variance of the weights (treatment)")
    ax.set_ylabel("cf_y: share of the residual variance (outcome)")
    ax.set_title(label, fontsize=10)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax
