"""Image confounding: does the estimate come right, when does it not, and how fast is it?

    python -m benchmarks.image_confounding
    python -m benchmarks.image_confounding simulation --images causalimages_uganda.npz

Parts:

- simulation: the paper's: bias against the true filter's width and that of the network's filter,
  against the resolution, and against the number of scenes. Scenes are cut from the images of a
  file, or, without one, Gaussian fields, the hard case, in which the network finds nothing.
- tutorial: the simulation of causalimages' tutorial with statistics of bands, 200 samples, and with
  a network, a few.
- speed: images per second of a propensity network in training, beside the same network in PyTorch;
  replications per second of the simulation.
- memory: peak of a training on a million images, which a function makes.

Stopped or killed, the simulation goes on where it was when called again, with the same numbers.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from benchmarks.harness import RESULTS, environment, say, write
from jaxcore.estimators.monte_carlo import MonteCarlo
from jaxcore.estimators.studies import MonteCarloTask, run_study
from jaxcore.figures import new_figure
from jaxcore.train import EXIT_INTERRUPTED

WIDTHS, REPS, SCENES = (2, 4, 8), 12, 500
SIZES = (125, 250, 1000)
Part = Literal["memory", "simulation", "tutorial", "speed"]


def main(
    parts: tyro.conf.Positional[tuple[Part, ...]] = (),
    images: Path | None = None,
    runs: Path = Path("runs/image_confounding"),
    reps: int | None = None,
    steps: int = 300,
    smoke: bool = False,
    out: Path = RESULTS,
) -> None:
    """Run the parts.

    Args:
      parts: all of them, without any.
      images: file whose images scenes are cut from: .npz with ``images``.
      runs: folder of the simulations.
      reps: replications instead of those of each part.
      steps: updates of each network of the simulation.
      smoke: as little as can be, to see that everything runs.
      out: folder of the results.
    """
    chosen = parts or ("memory", "simulation", "tutorial", "speed")
    if smoke:
        reps, steps = reps or 2, 2
    if "memory" in chosen:  # first: the peak of a process only grows
        from benchmarks.image_confounding_torch import memory

        content = {"environment": environment(), **memory(smoke)}
        write(content, out / "image_confounding_memory.json")
    if "simulation" in chosen:
        simulation(images, runs, reps, steps, out)
    if "tutorial" in chosen:
        tutorial(reps, smoke, out)
    if "speed" in chosen:
        speed(smoke, out)


# --- the simulation of the paper ------------------------------------------------------------------


def simulation(images: Path | None, runs: Path, reps: int | None, steps: int, out: Path) -> None:
    """Tables over widths, resolution and sample size, with Monte-Carlo errors, and a picture."""
    kind = "fields" if images is None else "scenes"
    tables: dict[str, MonteCarlo] = {}
    start = time.perf_counter()
    for title, n, options in _studies():
        options |= {"images": None if images is None else str(images), "steps": steps}
        task = MonteCarloTask(
            study="images", n=n, reps=reps or REPS, block=1, double=False, options=options
        )
        found = run_study(task, runs / kind / title.replace(" ", "_").replace("=", ""))
        if found is None:
            sys.exit(EXIT_INTERRUPTED)
        tables[title] = found
        best = found.table()[-1]
        say(f"{kind}, {title}: {best['name']} {best['bias']:.3f} ({best['bias_mcse']:.3f})")
    content: dict[str, Any] = {
        "scenes": "Gaussian fields" if images is None else images.name,
        "seconds": round(time.perf_counter() - start, 1),
        "tables": {
            title: {"rows": one.table(), "extras": one.extra_means()}
            for title, one in tables.items()
        },
        "environment": environment(),
    }
    name = f"image_confounding_{kind}"
    write(content, out / f"{name}.json")
    _picture(tables, kind).savefig(out / f"{name}.png", dpi=110)


def _studies() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Title, number of scenes and options."""
    for width in WIDTHS:
        yield f"width {width}", SCENES, {"width": width, "widths": list(WIDTHS)}
    pooled = [[2, 2], [4, 1]]
    yield "resolution", SCENES, {"width": 4, "widths": [4, 8], "pooled": pooled}
    for n in SIZES:
        yield f"n = {n}", n, {"width": 8, "widths": [8]}


def _picture(tables: dict[str, MonteCarlo], kind: str) -> Any:
    """Bias with two Monte-Carlo errors, a panel for each table."""
    figure = new_figure(15, 7)
    axes = figure.subplots(2, -(-len(tables) // 2), sharex=True).ravel()
    for ax, (title, found) in zip(axes, tables.items(), strict=False):
        rows = found.table()
        at = np.arange(len(rows))
        errors = [2 * r["bias_mcse"] for r in rows]
        ax.errorbar([r["bias"] for r in rows], at, xerr=errors, fmt="o", color="#2a6fbb")
        ax.axvline(0, color="black", lw=0.8, ls=":")
        ax.set_yticks(at, [r["name"] for r in rows], fontsize=8)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("bias (effect 1)")
    for ax in axes[len(tables) :]:
        ax.set_axis_off()
    figure.suptitle(f"Image confounding, {kind}")
    return figure


# --- the tutorial ---------------------------------------------------------------------------------


def tutorial(reps: int | None, smoke: bool, out: Path) -> None:
    """Bias and coverage of the simulation of causalimages' tutorial; the effect is 2."""
    from jaxcore.estimators.image_confounding import ImageConfounding, Training
    from jaxcore.estimators.image_confounding.comparison import compare
    from jaxcore.estimators.image_confounding.simulate import simulate_tutorial
    from jaxcore.train.logging import Silent

    steps = 2 if smoke else 300
    plans = {
        "network": (
            reps or 5,
            ImageConfounding(backbone="vit", n_folds=2, training=Training(steps=steps)),
        ),
        "band statistics": (reps or 200, ImageConfounding(backbone="band_stats", n_folds=2)),
    }
    content: dict[str, Any] = {"environment": environment(), "effect": 2.0}
    for title, (count, estimator) in plans.items():
        start, every = time.perf_counter(), {}
        for r in range(count):
            drawn = jax.device_get(simulate_tutorial(jax.random.key(r)))
            found = compare(estimator, drawn.Y, drawn.A, drawn.images, drawn.X, reporter=Silent())
            for name, fit in found.fits.items():
                every.setdefault(name, []).append((fit.theta, fit.se))
            if r + 1 in (1, 5) or (r + 1) % 20 == 0:
                say(f"{title}: {r + 1} of {count} samples, {time.perf_counter() - start:.0f} s")
        content[title] = {name: _summary(np.array(values)) for name, values in every.items()} | {
            "samples": count,
            "seconds": round(time.perf_counter() - start, 1),
        }
        say(f"{title}: {content[title]}")
        write(content, out / "image_confounding_tutorial.json")


def _summary(values: np.ndarray) -> dict[str, float]:
    off = values[:, 0] - 2
    return {
        "bias": round(float(off.mean()), 4),
        "sd": round(float(off.std(ddof=1)), 4) if len(off) > 1 else 0.0,
        "mean_se": round(float(values[:, 1].mean()), 4),
        "coverage": round(float(np.mean(np.abs(off) <= 1.96 * values[:, 1])), 4),
    }


# --- speed ----------------------------------------------------------------------------------------


def speed(smoke: bool, out: Path) -> None:
    """Training beside PyTorch, and replications per second."""
    from benchmarks.image_confounding_torch import replications, training

    content = {"environment": environment(), "training": training(smoke)}
    content["replications"] = replications(smoke)
    write(content, out / "image_confounding_speed.json")


if __name__ == "__main__":
    tyro.cli(main)
