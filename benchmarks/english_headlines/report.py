"""The tables as text, and the picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.english_headlines.headlines import DESIGN, SIGNS
from benchmarks.entangled_headlines.report import beside
from jaxcore.figures import new_figure

COLUMNS = ("J", "J_se", "J_valid", "validity", "KL", *(f"P({name})" for name in SIGNS))
_COLOURS = {"naive": "tab:red", "iv": "tab:blue", "oracle": "tab:green"}


def _table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    lines = [f"{'':14}" + "".join(f"{name:>10}" for name in columns)]
    for name, found in rows.items():
        cells = ["-" if found[c] is None else f"{round(found[c], 3) + 0.0:.3f}" for c in columns]
        lines.append(f"{name:14}" + "".join(f"{cell:>10}" for cell in cells))
    return lines


def text(record: Mapping[str, Any]) -> str:
    """All tables, and some of what each policy writes."""
    about = record["about"]
    told = ", ".join(f"{n} {e:g}" for n, e in zip(SIGNS, DESIGN.effects, strict=True))
    lines = [
        f"English headlines by {about['base']}, one seed, a demonstration; {about['date']}, "
        f"{about['processor']}, {about['cores']} of its cores",
        "J: mean true effect of a text, with its error of sampling; J_valid: of headlines of the "
        "templates; validity: share of these; KL: from the base.",
        "",
        f"effect of the confounder, truth {DESIGN.delta:g}",
        *_table(record["delta"], ("delta", "se")),
        "",
        f"what features are worth by the outcome and by rewards, truth {told}",
        *_table(record["effects"], tuple(SIGNS)),
        "",
        f"policies; the best possible J is {DESIGN.best:g}",
        *_table(record["policies"], COLUMNS),
    ]
    for name, found in record["policies"].items():
        lines += ["", f"{name} writes", *(f"  {line!r}" for line in found["texts"])]
    return "\n".join(lines) + "\n"


def picture(record: Mapping[str, Any], path: Path) -> None:
    """What policies earn, drawn as by `entangled_headlines`."""
    rows = record["policies"]
    figure = new_figure(6, 2.6)
    axes = figure.add_subplot()
    for height, (name, found) in enumerate(reversed(rows.items())):
        colour = _COLOURS.get(name.split()[0], "0.4")
        error = 2 * found["J_se"]
        axes.errorbar(found["J"], height, xerr=error, fmt="o", mfc="none", color=colour)
        if found["J_valid"] is not None:
            axes.plot(found["J_valid"], height, "|", color=colour, ms=12)
        beside(axes, height, found["validity"])
    axes.set_yticks(range(len(rows)), [*reversed(rows)], fontsize=8)
    axes.axvline(DESIGN.best, color="0.8", zorder=0)
    axes.set_title(f"English headlines by {record['about']['base']}, one seed", fontsize=9)
    label = "J: all (circle, two errors of sampling), templates (bar); right: share of these"
    axes.set_xlabel(label, fontsize=8)
    figure.savefig(path, dpi=110)
