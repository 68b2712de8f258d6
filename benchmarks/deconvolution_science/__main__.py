"""Trains, measures, writes; see the package."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from benchmarks import deconvolution, harness
from benchmarks.deconvolution_science import measure, real, report
from benchmarks.deconvolution_science.methods import Restore, galaxies, look, methods
from benchmarks.harness import say
from jaxcore import weights
from jaxcore.data.astro.galaxies import Population

SEED = 11
NAME = "deconvolution_science"

Part = Literal["photometry", "resolution", "conditions", "clumps", "colour", "stamps", "seconds"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked.

    Attributes:
      output: folder for ``deconvolution_science.json``, ``.txt`` and two pictures.
      run: run directory of the network, trained first where it is not (or not to its end).
      steps: updates of the training.
      count: simulated galaxies per question.
      parts: which; others stay as they are in the file.
      real_stamps: folder with stamps of COSMOS, of the XDF and of HSC and HST, for the part
        ``stamps``; see `jaxcore.data.astro.stamps`.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = harness.RESULTS
    run: Path = Path("runs") / NAME
    steps: int = 500
    count: int = 160
    parts: tuple[Part, ...] = get_args(Part)
    real_stamps: Path | None = None


def train(out: Path, steps: int) -> None:
    """The network of the recipe, or what is left of its training."""
    from jaxcore.train import fit
    from jaxcore.train.recipes import recipe

    chosen = recipe("swin_deconv_small", steps=steps)
    fit(chosen.task, chosen.train, out)


def answers(
    options: Options, restore: Restore, loaded: weights.Loaded
) -> dict[str, Callable[[], Any]]:
    """Part -> what answers it."""
    side = loaded.cfg.img_size
    simulated = {
        question.__name__: functools.partial(question, restore, side, options.count, SEED)
        for question in (
            measure.photometry,
            measure.resolution,
            measure.conditions,
            measure.clumps,
            measure.colour,
        )
    }
    return {
        **simulated,
        "stamps": lambda: stamps(options, restore, side),
        "seconds": lambda: seconds(loaded, side),
    }


def stamps(options: Options, restore: Restore, side: int) -> dict[str, Any]:
    """Errors on real stamps, and a picture of these and of simulated ones."""
    seen = look(galaxies(SEED, 20, Population()), measure.TRAINED, side, SEED)
    shown, found = [(seen, restore(seen))], {}
    if options.real_stamps is not None:
        found, more = real.simulated_from_real(restore, options.real_stamps, side, SEED)
        both, pairs = real.pairs(restore, options.real_stamps, side)
        found |= {f"HSC {band} against HST": row for band, row in both.items()}
        shown += [*more, *pairs[1:2]]
    report.stamps(shown, options.output / f"{NAME}_stamps.png")
    return found


def seconds(loaded: weights.Loaded, side: int) -> dict[str, float]:
    """Per stamp, batches of 20: medians over five calls in turns."""
    seen = look(galaxies(SEED, 20, Population()), measure.TRAINED, side, SEED)
    args = (seen.observed, seen.psf, seen.sigma)
    named = {
        **{name: name for name in ("tikhonov", "tikhonov_debias", "sparse", "richardson_lucy")},
        "three_steps": "debias",
    }
    calls = {
        named[name]: harness.compiled(method, *args).call
        for name, method in deconvolution.ours(loaded.params, loaded.cfg, side).items()
        if name in named
    }
    times = harness.interleaved(calls, 5)
    return {name: round(t["median_s"] / 20, 5) for name, t in times.items()}


def evaluation(run: Path) -> dict[str, float]:
    """The last evaluation of the training, on galaxies held out."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = [r for r in map(json.loads, lines) if r["kind"] != "train"]
    return {k: v for k, v in found[-1].items() if isinstance(v, int | float)} if found else {}


def main(options: Options) -> None:
    """Answer the questions, and write table and pictures."""
    file = options.output / f"{NAME}.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    about: dict[str, Any] = harness.environment("photutils", "scikit-image")
    start = time.perf_counter()
    train(options.run, options.steps)
    about |= {
        "network": f"SUNet, {options.steps} updates of swin_deconv_small, seed 0",
        "seconds_of_training_now": round(time.perf_counter() - start, 1),
        "evaluation_of_the_run": evaluation(options.run),
        "galaxies": options.count,
        "seed": SEED,
    }
    loaded = weights.load(options.run, model="sunet")
    restore = methods(loaded.params, loaded.cfg, loaded.cfg.img_size)
    todo = answers(options, restore, loaded)
    for part in options.parts:
        say(part)
        start = time.perf_counter()
        record[part] = todo[part]()
        took = {part: round(time.perf_counter() - start, 1)}
        about["seconds"] = {**record.get("about", {}).get("seconds", {}), **took}
        record["about"] = about
        harness.write(record, file)
    if set(get_args(Part)) <= record.keys():
        report.plots(record, options.output / f"{NAME}.png")
        table = report.text(record)
        (options.output / f"{NAME}.txt").write_text(table)
        print(table)
    say(f"written: {options.output}")


if __name__ == "__main__":
    main(tyro.cli(Options))
