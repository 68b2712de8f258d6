"""Trains, measures, writes; see the package."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import harness
from benchmarks.deconvolution_science import measure, real, report
from benchmarks.deconvolution_science.methods import Restore, galaxies, look, methods
from benchmarks.harness import say
from jaxcore import weights
from jaxcore.data.astro.galaxies import Population

SEED = 11


def train(out: Path, steps: int) -> None:
    """The network of the recipe, or what is left of its training."""
    from jaxcore.train import fit
    from jaxcore.train.recipes import recipe

    chosen = recipe("swin_deconv_small", steps=steps)
    fit(chosen.task, chosen.train, out)


def main(
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = harness.RESULTS,
    run: Path = Path("runs/deconvolution_science"),
    steps: int = 500,
    count: int = 160,
    real_stamps: Path | None = None,
) -> None:
    """Answer all questions and write table and pictures.

    Args:
      output: folder for ``deconvolution_science.json``, ``.txt`` and two pictures.
      run: run directory of the network, trained first where it is not (or not to its end).
      steps: updates of the training.
      count: simulated galaxies per question.
      real_stamps: folder with stamps of COSMOS, of the XDF and of HSC and HST; see
        `jaxcore.data.astro.stamps`.
    """
    start = time.perf_counter()
    about: dict[str, Any] = harness.environment("photutils", "scikit-image")
    train(run, steps)
    loaded = weights.load(run, model="sunet")
    about["network"] = f"SUNet, {steps} updates of swin_deconv_small, seed 0"
    about["seconds_before_measuring"] = round(time.perf_counter() - start, 1)
    about["galaxies_seed"], about["galaxies"] = SEED, count
    about["evaluation_of_the_run"] = _evaluation(run)
    side = loaded.cfg.img_size
    restore = methods(loaded.params, loaded.cfg, side)
    record: dict[str, Any] = {"about": about}
    for question in (
        measure.photometry,
        measure.resolution,
        measure.conditions,
        measure.clumps,
        measure.colour,
    ):
        say(question.__name__)
        record[question.__name__] = question(restore, side, count, SEED)
    shown = [_first(restore, side)]
    if real_stamps is not None:
        say("real stamps")
        simulated, more = real.simulated_from_real(restore, real_stamps, side, SEED)
        both, pairs = real.pairs(restore, real_stamps, side)
        record["real"] = {**simulated, **{f"HSC {k} against HST": v for k, v in both.items()}}
        shown += [*more, *pairs[1:2]]
    record["seconds_per_stamp"] = _seconds(loaded, side)
    about["seconds"] = round(time.perf_counter() - start, 1)
    report.plots(record, output / "deconvolution_science.png")
    report.stamps(shown, output / "deconvolution_science_stamps.png")
    curves = record["photometry"].pop("curves")
    table = report.text(record)
    harness.write(record, output / "deconvolution_science.json")
    (output / "deconvolution_science.txt").write_text(table)
    print(table)
    say(f"{len(curves['magnitude'])} galaxies per question; written: {output}")


def _evaluation(run: Path) -> dict[str, float]:
    """The last evaluation of the training, on galaxies held out."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = [r for r in map(json.loads, lines) if r["kind"] != "train"]
    if not found:
        return {}
    return {k: v for k, v in found[-1].items() if isinstance(v, int | float)}


def _first(restore: Restore, side: int) -> Any:
    seen = look(galaxies(SEED, 20, Population()), measure.TRAINED, side, SEED)
    return seen, restore(seen)


def _seconds(loaded: weights.Loaded, side: int) -> dict[str, float]:
    """Medians over five calls in turns; benchmarks.deconvolution has rivals and more."""
    from benchmarks.deconvolution import ours

    seen = look(galaxies(SEED, 20, Population()), measure.TRAINED, side, SEED)
    args = (seen.observed, seen.psf, seen.sigma)
    calls = {
        name: harness.compiled(method, *args).call
        for name, method in ours(loaded.params, loaded.cfg, side).items()
        if name in ("tikhonov", "tikhonov_debias", "three_steps", "sparse", "richardson_lucy")
    }
    times = harness.interleaved(calls, 5)
    named = {"three_steps": "debias"}
    return {named.get(n, n): round(t["median_s"] / 20, 5) for n, t in times.items()}


if __name__ == "__main__":
    tyro.cli(main)
