"""Pictures of schedules and of what happens while sampling."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcore.figures import Cell, new_figure
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.sampler import Trajectory
from jaxcore.models.rddm.sampling.table import SamplingTable

_COLOURS = ("#2a6fbb", "#d9822b", "#5aa67b", "#7b5aa6", "#c0504d", "#8a8a8a")


def plot_schedules(
    schedules: Mapping[str, RDDMSchedule],
    *,
    table: SamplingTable | None = None,
    figure: Any = None,
) -> Any:
    """Shares of residual and noise over the times, and the paths they take; returns the figure.

    Args:
      schedules: name of each.
      table: marks the calls of a sampler on the first schedule.
      figure: a Matplotlib figure to draw in; None makes one.

    Raises:
      UserError: Matplotlib is not installed.

    >>> len(plot_schedules({"mine": RDDMSchedule.polynomial(10)}).axes)
    3
    """
    if figure is None:
        figure = new_figure(11, 3.6)
    over_alpha, over_beta, plane = figure.subplots(1, 3)
    for i, (name, schedule) in enumerate(schedules.items()):
        style = {"color": _COLOURS[i % len(_COLOURS)], "lw": 2.2 if i == 0 else 1.2, "label": name}
        times = np.arange(len(schedule)) / max(len(schedule) - 1, 1)
        over_alpha.plot(times, schedule.alphas_cumsum, **style)
        over_beta.plot(times, schedule.betas_cumsum, **style)
        plane.plot(schedule.alphas_cumsum, schedule.betas_cumsum, **style)
    if table is not None:
        rows = table.rows
        places = rows.index / max(float(table.total) - 1, 1)
        dots = {"color": _COLOURS[0], "s": 28, "zorder": 3}
        over_alpha.scatter(places, rows.alpha, **dots)
        over_beta.scatter(places, rows.beta, **dots)
        plane.scatter(rows.alpha, rows.beta, **dots)
    for axes, x, y in (
        (over_alpha, "time / T", "share of the residual"),
        (over_beta, "time / T", "standard deviation of the noise"),
        (plane, "share of the residual", "standard deviation of the noise"),
    ):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*plane.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def trajectory_cells(
    seen: Trajectory, table: SamplingTable, image: int = 0, *, columns: int = 8
) -> list[list[Cell]]:
    """Rows for `jaxcore.figures.grid`: the image, its residual, its noise, its clean estimate.

    A residual is shown around grey with half contrast, noise around grey with a sixth.

    Args:
      seen: from `sample`.
      table: the sampler's.
      image: which of the batch.
      columns: at most so many of the steps, spread evenly.
    """
    count = seen.states.shape[0]
    shown = np.unique(np.linspace(0, count - 1, min(columns, count)).round().astype(int))
    before = [seen.start, *seen.states[:-1]]

    def row(arrays: Any, view: Any, text: str) -> list[Cell]:
        return [
            (view(np.asarray(arrays[i][image])), f"{text} {int(table.rows.index[i])}")
            for i in shown
        ]

    return [
        row(before, _image, "t"),
        row(seen.residual, _residual, "residual"),
        row(seen.noise, _noise, "noise"),
        row(seen.clean, _image, "clean"),
    ]


def _image(x: np.ndarray) -> Float[np.ndarray, "h w c"]:
    return _large(x / 2 + 0.5)


def _residual(x: np.ndarray) -> Float[np.ndarray, "h w c"]:
    return _large(x / 4 + 0.5)


def _noise(x: np.ndarray) -> Float[np.ndarray, "h w c"]:
    return _large(x / 6 + 0.5)


def _large(x: np.ndarray) -> np.ndarray:
    """Small images in large pixels."""
    times = max(1, 96 // x.shape[0])
    return np.repeat(np.repeat(x, times, axis=0), times, axis=1)
