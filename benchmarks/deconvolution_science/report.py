"""The table as text, and the pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.deconvolution_science.methods import NAMES, Seen
from jaxcore.figures import grid, new_figure
from jaxcore.ops.grids import factor_between

_WIDE = 16
_SHORT = {"tikhonov_debias": "tik. + debias", "richardson_lucy": "Richardson-L."}  # captions


def _line(name: str, values: Sequence[Any]) -> str:
    return f"{name:34}" + "".join(
        f"{value:>{_WIDE}.4f}" if isinstance(value, float) else f"{value!s:>{_WIDE}}"
        for value in values
    )


def _by_method(title: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row per quantity, a column per method."""
    names = [n for n in (*NAMES, "target") if any(n in row for row in rows.values())]
    lines = ["", title, _line("", names)]
    return lines + [_line(k, [row.get(n, "") for n in names]) for k, row in rows.items()]


def text(record: Mapping[str, Any]) -> str:
    """All tables.

    Args:
      record: what the command found.
    """
    about = record["about"]
    lines = [
        f"jaxcore deconvolution of galaxies, {about['date']}, {about['processor']}, "
        f"{about['cores']} cores; {about['galaxies']} galaxies per question; network: "
        f"{about['network']}",
    ]
    found = record["photometry"]
    rows = {"all: bias": found["bias"], "all: absolute error": found["absolute"]}
    for one in found["bins"]:
        low, high = one["magnitudes"]
        rows[f"{low} to {high} ({one['galaxies']}): bias"] = one["bias"]
        rows[f"{low} to {high}: scatter"] = one["scatter"]
    lines += _by_method("Magnitude errors in a circle (medians, positive is too faint)", rows)
    lines.append(
        f"step 3 makes the median absolute error {found['network_over_debias']} times smaller; "
        f"photutils: {found['photutils']}"
    )
    lines += _by_method("Resolution (medians)", record["resolution"])
    for name, one in record["conditions"].items():
        lines += _by_method(f"Galaxies {name}", one)
    rows = {
        key: {n: one.get(key, "") for n, one in record["clumps"].items()}
        for key in next(iter(record["clumps"].values()))
    }
    lines += _by_method("Clumps", rows)
    rows = {
        key: {n: one[key] for n, one in record["colour"].items()}
        for key in next(iter(record["colour"].values()))
    }
    lines += _by_method("Number of clumps against colour (rank correlations)", rows)
    for name, one in record["stamps"].items():
        values = {k: v for k, v in one.items() if isinstance(v, Mapping)}
        lines += _by_method(f"Real: {name}", values)
    lines += _by_method("Seconds per stamp", {"batches of 20": record["seconds"]})
    return "\n".join(lines) + "\n"


def plots(record: Mapping[str, Any], path: Path) -> None:
    """Errors of magnitudes, clumps and colours."""
    figure = new_figure(13, 4)
    first, second, third = figure.subplots(1, 3)
    curves = record["photometry"]["curves"]
    for name, colour in (("tikhonov", "0.6"), ("network", "tab:red"), ("debias", "tab:blue")):
        first.plot(curves["magnitude"], curves[name], ".", color=colour, label=name, ms=4)
    first.axhline(0, color="k", lw=0.5)
    first.set(
        xlabel="magnitude (30: noise of a pixel)",
        ylabel="magnitude error",
        ylim=(-0.15, 0.35),
        title="Step 3 takes the bias of the network away",
    )
    first.legend()
    clumps = record["clumps"]
    names = [n for n in (*NAMES, "target") if n in clumps]
    places = np.arange(len(names))
    for shift, key in ((-0.2, "completeness"), (0.2, "purity")):
        second.bar(places + shift, [clumps[n][key] for n in names], 0.4, label=key)
    second.set_xticks(places, names, rotation=40, ha="right", fontsize=8)
    second.set_title("Clumps")
    second.legend()
    values = [record["colour"][n]["clumps_against_colour"] for n in names]
    third.bar(places, values, 0.6)
    third.axhline(record["colour"]["target"]["put_in_against_colour"], color="k", lw=0.7, ls="--")
    third.set_xticks(places, names, rotation=40, ha="right", fontsize=8)
    third.set_title("Clumps against colour; dashed: as put in")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def stamps(shown: Sequence[tuple[Seen, dict[str, Any]]], path: Path) -> None:
    """Two rows of every set: observed, all methods, target; brightness compressed."""
    rows = []
    for seen, images in shown:
        factor = factor_between(seen.observed.shape, seen.target.shape)
        for i in range(min(2, len(seen.target))):
            wide = np.repeat(np.repeat(seen.observed[i], factor, 0), factor, 1) / factor**2
            cells = [("seen", wide)] + [(_SHORT.get(n, n), images[n][i]) for n in NAMES[1:]]
            cells.append(("target", seen.target[i]))
            rows.append([(_bright(a), n) for n, a in cells])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid(rows)).save(path)


def _bright(image: np.ndarray) -> np.ndarray:
    image = image - np.median(image[:3])
    image = image / max(float(image.max()), 1e-9)
    wide = max(1, 110 // image.shape[0])
    return np.arcsinh(20 * np.repeat(np.repeat(image, wide, 0), wide, 1)) / np.arcsinh(20.0)
