"""Files of a fit: a folder with text, JSON and pictures, or one ``.npz``."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxcore.atomic import whole_file, whole_folder
from jaxcore.errors import UserError

FILES = ("summary.txt", "estimate.json", "estimates.png", "overlap.png", "pseudo_risk.png")


def write_report(
    result: Any, folder: str | Path, *, level: float = 0.95, overwrite: bool = False
) -> Path:
    """Write `FILES` into a folder; all of them or none.

    Args:
      result: a fit (`SelectiveIVResult`).
      folder: created if need be.
      level: coverage of the intervals.
      overwrite: replace files of an earlier report.

    Raises:
      UserError: the folder holds a report already, or cannot be written.
    """
    folder = Path(folder)
    check_folder(folder, overwrite=overwrite)
    others = result.baselines()
    robust = result.robust_set(level)
    with whole_folder(folder, among=True) as temporary:
        _write(result, others, robust, temporary, level)
    return folder


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds a report, before the work is done.

    Raises:
      UserError: names a file of it.
    """
    found = [name for name in FILES if (folder / name).exists()]
    if found and not overwrite:
        raise UserError(
            f"Expected a folder without a report, or --overwrite (overwrite=True), found "
            f"{folder / found[0]}."
        )


def summary_path(folder: Path) -> Path:
    """Where a report keeps its text."""
    return folder / FILES[0]


def _write(result, others, robust, folder: Path, level: float) -> None:
    rows = [{**result.estimate.rows(level)[0], "name": "selective IV"}]
    rows += [{**e.rows(level)[0], "name": e.estimator} for e in others]
    summary_path(folder).write_text(summary_text(result, rows, robust, level) + "\n")
    content = {**result.to_dict(level), "estimators": rows, "robust_set": robust.describe()}
    text = json.dumps(_strict(content), indent=2, allow_nan=False)
    (folder / "estimate.json").write_text(text + "\n")
    from jaxcore.estimators import plots

    figure = plots.intervals(rows, level=level, highlight=0).figure
    figure.savefig(folder / "estimates.png", dpi=150)
    result.plot_overlap().savefig(folder / "overlap.png", dpi=150)
    result.plot_pseudo_risk().savefig(folder / "pseudo_risk.png", dpi=150)


def summary_text(result: Any, rows: list[dict], robust, level: float) -> str:
    """The summary, all estimators, and the set that is robust to weak identification."""
    width = max(len(r["name"]) for r in rows)
    percent = f"{100 * level:g}%"
    lines = [result.summary(level), "", "all estimators (each under its own assumptions)"]
    for r in rows:
        if not np.isfinite([r["estimate"], r["std_error"]]).all():
            lines.append(f"{r['name']:{width}}  cannot be computed from these data")
            continue
        lines.append(
            f"{r['name']:{width}}  {r['estimate']:10.4g}  ({r['std_error']:.4g})  "
            f"{percent} [{r['lower']:.4g}, {r['upper']:.4g}]"
        )
    lines += ["", f"{percent} set of a constant effect, robust to weak D: {robust.describe()}"]
    return "\n".join(lines)


def _strict(x: Any) -> Any:
    """JSON without NaN or infinity."""
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


def save_npz(result: Any, path: Path) -> None:
    """Arrays and settings of a fit as one ``.npz`` file.

    Raises:
      UserError: the name does not end in ``.npz`` or the file cannot be written.
    """
    if path.suffix != ".npz":
        raise UserError(f"Expected a file name ending in .npz, found {path}.")
    d = result.estimate.diagnostics
    arrays = {
        "theta": result.estimate.theta, "se": result.estimate.se, "u": result.u,
        "phi": result.psi, "fold": d["fold_ids"], "kept": result.sample.kept,
    }  # fmt: skip
    for name in ("pi", "mu1", "mu0", "g", "delta", "rho"):
        arrays[f"nuisances/{name}"] = getattr(result.nuisances, name)
    for ours, theirs in (
        ("T", "T"), ("theta_all", "theta_all"), ("se_all", "se_all"), ("criterion", "B"),
        ("selected", "selected"), ("soft_weights", "soft_weights"), ("cov", "cov"),
    ):  # fmt: skip
        if ours in d:
            arrays[theirs] = d[ours]
    for model, risk in d.get("risks", {}).items():
        arrays[f"R/{model}"] = risk
    arrays["config"] = np.array(json.dumps(_strict(result.to_dict()), allow_nan=False))
    with whole_file(path, overwrite=True) as temporary, temporary.open("wb") as file:
        named: dict[str, Any] = {k: np.asarray(v) for k, v in arrays.items()}
        np.savez_compressed(file, **named)
