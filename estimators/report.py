"""Files of a fit: a folder with text, JSON and pictures, or one ``.npz``."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxcore import atomic
from jaxcore.atomic import whole_file, whole_folder
from jaxcore.errors import UserError
from jaxcore.places import local_place

SUMMARY, CONTENT = "summary.txt", "estimate.json"
PICTURES = ("estimates.png",)  # of a report that shows intervals alone
WEIGHTED = ("weights.png", "balance.png")  # besides, where probabilities are divided by


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report holds."""

    text: str
    content: dict[str, Any]  # JSON-able but for NaN and infinity
    pictures: Mapping[str, Any]  # file name -> Matplotlib figure


class Reported(Protocol):
    """A fit that can be reported."""

    @property
    def report_pictures(self) -> Sequence[str]:
        """Names of the pictures."""
        ...

    def report(self, level: float) -> Report:
        """Text, numbers and pictures, with intervals at ``level``."""
        ...


def write_report(
    result: Reported, folder: str | Path, *, level: float = 0.95, overwrite: bool = False
) -> Path:
    """Write summary, JSON and pictures into a folder; all of them or none.

    Args:
      result: a fit.
      folder: created if need be.
      level: coverage of the intervals.
      overwrite: replace files of an earlier report.

    Raises:
      UserError: the folder holds a report already, or cannot be written.
    """
    folder = local_place(folder)
    check_folder(folder, result.report_pictures, overwrite=overwrite)
    report = result.report(level)
    with whole_folder(folder, among=True) as temporary:
        summary_path(temporary).write_text(report.text + "\n")
        (temporary / CONTENT).write_text(strict_json(report.content, indent=2) + "\n")
        for name, figure in report.pictures.items():
            figure.savefig(temporary / name, dpi=150)
    return folder


def check_folder(folder: Path, pictures: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a folder that holds a report or cannot be written, before the work is done."""
    atomic.check_folder(folder, (SUMMARY, CONTENT, *pictures), overwrite=overwrite)


def summary_path(folder: Path) -> Path:
    """Where a report keeps its text."""
    return folder / SUMMARY


def comparison_text(rows: Sequence[Mapping[str, Any]], level: float) -> str:
    """Estimates side by side, one line each; those that cannot be computed say so."""
    width = max(len(r["name"]) for r in rows)
    lines = []
    for r in rows:
        if not np.isfinite([r["estimate"], r["std_error"]]).all():
            lines.append(f"{r['name']:{width}}  cannot be computed from these data")
            continue
        lines.append(
            f"{r['name']:{width}}  {r['estimate']:10.4g}  ({r['std_error']:.4g})  "
            f"{100 * level:g}% [{r['lower']:.4g}, {r['upper']:.4g}]"
        )
    return "\n".join(lines)


def strict_json(content: Any, *, indent: int | None = None) -> str:
    """JSON in which NaN and infinity are null.

    >>> strict_json({"a": float("nan"), "b": (1, True)})
    '{"a": null, "b": [1, true]}'
    """
    return json.dumps(_strict(content), indent=indent, allow_nan=False)


def _strict(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _strict(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_strict(v) for v in x]
    if isinstance(x, (bool, np.bool_)):
        return bool(x)
    if isinstance(x, (np.integer, int)):
        return int(x)
    if isinstance(x, (float, np.floating)):
        return float(x) if np.isfinite(x) else None
    return x if x is None or isinstance(x, str) else str(x)


def save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as one ``.npz`` file, under a temporary name first.

    Raises:
      UserError: the name does not end in ``.npz`` or the file cannot be written.
    """
    if path.suffix != ".npz":
        raise UserError(f"Expected a file name ending in .npz, found {path}.")
    named: dict[str, Any] = {k: np.asarray(v) for k, v in arrays.items()}
    with whole_file(path, overwrite=True) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **named)
