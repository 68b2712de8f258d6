"""Are the estimates right, and do the intervals cover? Tables of the designs siv1 and siv2.

    python -m benchmarks.selective_iv_tables --out benchmarks/results

runs 1,000 replications of siv1 (n = 5,000) and siv2 (n = 4,000) and 200 of siv2 (n = 16,000) and
writes ``selective_iv_tables.json``, ``.txt`` and ``.png``. Stopped or killed, it goes on where it
was when called again, with the same numbers; the checkpoints are in ``runs/selective_iv_tables``.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

from jaxcore.atomic import whole_file
from jaxcore.estimators.monte_carlo import MonteCarlo, table_text
from jaxcore.estimators.studies import MonteCarloTask, run_study
from jaxcore.figures import new_figure
from jaxcore.train import EXIT_INTERRUPTED

JOBS = {
    "siv1, n = 5000": ("siv1", 5000, 1000),
    "siv2, n = 4000": ("siv2", 4000, 1000),
    "siv2, n = 16000": ("siv2", 16000, 200),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/selective_iv_tables"))
    parser.add_argument("--reps", type=int, help="replications of every table instead")
    parser.add_argument("--block", type=int, default=10, help="replications per step")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tables = {}
    for title, (study, n, reps) in JOBS.items():
        task = MonteCarloTask(study=study, n=n, reps=args.reps or reps, block=args.block)
        start = time.perf_counter()
        result = run_study(task, args.runs / title.replace(", n = ", "_"), seed=args.seed)
        if result is None:
            sys.exit(EXIT_INTERRUPTED)
        tables[title] = (result, time.perf_counter() - start)
    write(tables, args.out, args.seed)


def write(tables: dict[str, tuple[MonteCarlo, float]], out: Path, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    content, text = {}, []
    for title, (result, seconds) in tables.items():
        rows, extras = result.table(), result.extra_means()
        content[title] = {"rows": rows, "extras": extras, "seconds_of_last_call": seconds}
        reps = len(result.theta)
        text.append(f"{title}, {reps} replications, true effect 1 (Monte-Carlo errors in brackets)")
        text.append(table_text(rows))
        text += [f"{name}: {value:.2f}" for name, value in extras.items()]
        text.append("")
    versions = {"jax": jax.__version__, "seed": seed, "device": jax.devices()[0].device_kind}
    content["environment"] = versions
    for ending, words in (("json", json.dumps(content, indent=1) + "\n"), ("txt", "\n".join(text))):
        with whole_file(out / f"selective_iv_tables.{ending}", overwrite=True) as temporary:
            temporary.write_text(words)
    picture(tables).savefig(out / "selective_iv_tables.png", dpi=130)
    print("\n".join(text))


def picture(tables: dict[str, tuple[MonteCarlo, float]]):
    """Bias with two Monte-Carlo errors, and coverage, of every estimator of every table."""
    figure = new_figure(12, 4 * len(tables))
    axes = np.atleast_2d(figure.subplots(len(tables), 2))
    for (left, right), (title, (result, _)) in zip(axes, tables.items(), strict=True):
        rows = [r for r in result.table() if abs(r["bias"]) < 1.5]  # 2SLS is far off the scale
        at = np.arange(len(rows))
        left.errorbar(
            [r["bias"] for r in rows], at, xerr=[2 * r["bias_mcse"] for r in rows], fmt="o", ms=4
        )
        left.axvline(0, color="black", lw=0.8, ls=":")
        left.set_yticks(at, [r["name"] for r in rows], fontsize=8)
        left.set_xlabel("bias, with two Monte-Carlo errors")
        left.set_title(f"{title}, {len(result.theta)} replications", loc="left", fontsize=10)
        covered = [(i, r) for i, r in enumerate(rows) if "coverage" in r]
        right.errorbar(
            [r["coverage"] for _, r in covered],
            [i for i, _ in covered],
            xerr=[2 * r["coverage_mcse"] for _, r in covered],
            fmt="o",
            ms=4,
        )
        right.axvline(0.95, color="black", lw=0.8, ls=":")
        right.set_yticks(at, [])
        right.set_xlabel("coverage of the 95% interval")
        for ax in (left, right):
            ax.set_ylim(len(rows) - 0.5, -0.5)
    return figure


if __name__ == "__main__":
    main()
