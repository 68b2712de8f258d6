"""The tables as text, and the picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.entangled_headlines.study import DESIGNS
from benchmarks.harness import say
from jaxcore.estimators.deconfound.simulate import FEATURES
from jaxcore.figures import new_figure

COLUMNS = ("J", "J_valid", "validity", "KL", "strange", *(f"P({name})" for name in FEATURES))
TITLES = {
    "core": "All methods, divergence in the reward",
    "why": "Divergence in the loss (GRPO) or in the reward (RLOO)",
    "sweep": "Strength of the pull to the base",
    "strong": "Stronger confounding",
}
_TRUTHS = {"core": "entangled", "strong": "strong"}
_COLOURS = {"naive": "tab:red", "ols_c": "tab:orange", "iv": "tab:blue", "odin": "tab:purple"}
_COLOURS |= {"oracle": "tab:green", "base": "0.4"}


def over_seeds(part: Mapping[str, Any], *path: str) -> dict[str, dict[str, np.ndarray]]:
    """Row -> figure -> its values, one for each seed, of what lies below a path."""
    tables: list[Any] = list(part.values())
    for step in path:
        tables = [table[step] for table in tables]
    return {
        row: {name: np.array([t[row][name] for t in tables], float) for name in figures}
        for row, figures in tables[0].items()
    }


def _cell(values: np.ndarray) -> str:
    spread = f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _table(rows: Mapping[str, Mapping[str, np.ndarray]], columns: Sequence[str]) -> list[str]:
    lines = [f"{'':32}" + "".join(f"{name:>16}" for name in columns)]
    for name, figures in rows.items():
        cells = [_cell(figures[c]) if c in figures else "" for c in columns]
        lines.append(f"{name:32}" + "".join(f"{cell:>16}" for cell in cells))
    return lines


def text(record: Mapping[str, Any]) -> str:
    """All tables: means over seeds, standard deviations over seeds in brackets."""
    about = record["about"]
    lines = [
        f"Entangled headlines, {about['date']}, {about['processor']}, {about['cores']} cores; "
        f"seconds by part: {about.get('seconds')}",
        "J: mean effect of a text; J_valid: of grammatical ones; strange: share of texts with a "
        "token as unlikely to the base as in 2 % of its own.",
    ]
    for part, title in TITLES.items():
        if part not in record:
            continue
        found = record[part]
        lines += ["", f"{title}; seeds {', '.join(found)}"]
        if part in _TRUTHS:
            design = DESIGNS[_TRUTHS[part]]
            lines += ["", f"effect of the confounder, truth {design.delta:g}"]
            lines += _table(over_seeds(found, "delta"), ("delta", "se"))
            told = ", ".join(f"{n} {e:g}" for n, e in zip(FEATURES, design.effects, strict=True))
            lines += ["", f"effects in reward models, truth {told}; spread that is left"]
            lines += _table(over_seeds(found, "effects"), (*FEATURES, "rest"))
            lines += ["", f"policies; the best possible J is {design.best:g}"]
        lines += _table(over_seeds(found, "policies"), COLUMNS)
    return "\n".join(lines) + "\n"


def picture(record: Mapping[str, Any], path: Path) -> None:
    """Effects of reward models, and what policies earn with and without ungrammatical texts."""
    parts = [part for part in TITLES if part in record]
    lines = -(-len(parts) // 2)
    figure = new_figure(11, 4.6 * lines)
    for place, part in enumerate(parts):
        axes = figure.add_subplot(lines, 2, place + 1)
        rows = over_seeds(record[part], "policies")
        for height, (name, figures) in enumerate(reversed(rows.items())):
            colour = _COLOURS.get(name.replace(",", " ").split()[0], "0.4")
            count = len(figures["J"])
            axes.plot(figures["J"], [height] * count, "o", mfc="none", mec=colour)
            axes.plot(figures["J_valid"], [height] * count, "|", color=colour, ms=12)
            valid = np.mean(figures["validity"])
            beside(axes, height, float(valid))
        axes.set_yticks(range(len(rows)), [*reversed(rows)], fontsize=8)
        best = DESIGNS[_TRUTHS.get(part, "entangled")].best
        axes.axvline(best, color="0.8", zorder=0)
        axes.set_title(TITLES[part], fontsize=9)
        axes.set_xlabel("J: all (circle), grammatical (bar); right: grammatical share", fontsize=8)
    figure.savefig(path, dpi=110)


def beside(axes: Any, height: int, share: float) -> None:
    """A share of texts, right of the line of its policy."""
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(
        f"{100 * share:.0f} %", (1.0, height), **place, xytext=(3, 0), va="center", fontsize=8
    )


def publish(table: str, draw: Callable[[Path], None], folder: Path, name: str) -> None:
    """Write the table and the picture beside the figures, and print the table."""
    (folder / f"{name}.txt").write_text(table)
    draw(folder / f"{name}.png")
    print(table)
    say(f"written: {folder}")
