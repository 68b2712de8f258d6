"""Trains, measures, writes; see the package."""

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import harness
from benchmarks.english_headlines import report
from benchmarks.english_headlines.headlines import adjust, write_logs
from benchmarks.english_headlines.study import OUTCOMES, Sizes, Study, tiny
from benchmarks.entangled_headlines.report import publish
from benchmarks.harness import say

NAME = "english_headlines"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked.

    Attributes:
      output: folder for ``english_headlines.json``, ``.txt`` and ``.png``.
      work: folder of logs and trainings.
      policies: which, "gently" behind a name for a third of the rate; others stay as they are in
        the file.
      seed: of logs and trainings.
      smoke: a tiny network with random weights, everything once.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = harness.RESULTS
    work: Path = Path("runs") / NAME
    policies: tuple[str, ...] = tuple(OUTCOMES)
    seed: int = 1
    smoke: bool = False


def main(options: Options) -> None:
    """Train and measure one policy after the other; write all figures after each."""
    file, work = options.output / f"{NAME}.json", options.work
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    work.mkdir(parents=True, exist_ok=True)
    sizes = Sizes.smoke() if options.smoke else Sizes()
    write_logs(work / "logs.jsonl", sizes.rows, options.seed)
    record |= adjust(work / "logs.jsonl", work / "adjusted.jsonl")
    base = tiny(work / "tiny") if options.smoke else "smollm2"
    about = {"base": "a tiny network" if options.smoke else "SmolLM2-135M", "seed": options.seed}
    record["about"] = harness.environment() | about | {"sizes": dataclasses.asdict(sizes)}
    study, rows = Study(base, work, sizes, options.seed), record.setdefault("policies", {})
    for name in ("base", *options.policies):
        say(name)
        start, used = time.perf_counter(), time.process_time()
        run = study.learned() if name == "base" else study.preferred(name)
        found = study.measured(run)
        took = {"wall": time.perf_counter() - start, "processor": time.process_time() - used}
        before = rows.get(name, {}).get("seconds", {})  # of the training, if that was found again
        found["seconds"] = {k: max(round(s, 1), before.get(k, 0.0)) for k, s in took.items()}
        rows[name] = found
        harness.write(record, file)
        say(f"{name}: J {found['J']:.2f}, {found['validity']:.0%} of the templates")
    draw = functools.partial(report.picture, record)
    publish(report.text(record), draw, options.output, NAME)


if __name__ == "__main__":
    main(tyro.cli(Options))
