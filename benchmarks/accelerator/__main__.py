"""Starts the parts one after another, watches their time, and writes what they find."""

import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from benchmarks.accelerator import beside, report
from benchmarks.accelerator.child import Job, Side
from benchmarks.accelerator.measure import card, read
from benchmarks.accelerator.networks import Dtype
from jaxcore.atomic import write_json
from jaxcore.ops.depthwise import Form

RIVALLED = ("restormer", "dea_net", "rddm", "sunet", "llama")
PARTS = (
    "limits",
    "restormer_forward",
    "restormer_step",
    "dea_net_forward",
    "dea_net_step",
    "rddm_forward",
    "rddm_step",
    "sunet_forward",
    "sunet_step",
    "llama_forward",
    "llama_step",
    "monte_carlo",
    "adair_forward",
    "adair_step",
    "pieces",
    "blocks",
    "dense",
    "attention",
    "compile",
    "parity",
)
ALONE = ("limits", "monte_carlo", "pieces", "parity")
SMOKE_PARTS = ("limits", "dea_net_forward", "monte_carlo")
SIDES: tuple[Side, ...] = get_args(Side)
COMPILED = (
    "restormer float32 default",
    "restormer bfloat16 ours",
    "restormer float32 ours_loops",
    "restormer float32 tuned_products",
    "restormer float32 tuned_fusions",
    "restormer float32 triton_norms",
    "restormer float32 grouped",
    "restormer float32 default_loops",
    "dea_net float32 default",
)
POLL = 0.5  # seconds
TOGETHER = 3.0  # seconds within which processes start that compile side by side


@dataclasses.dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
      smoke: tiny networks on whatever device there is.
      parts: which, in this order; empty for all, and in a trial for those that compile fast.
      output: the file; parts and rows that are not run stay as they are in it.
      budget: seconds for everything.
      limit: seconds one program may compile, or be timed.
      share: of the card's memory that a process may take at most. All may take it only in turns,
        when they are timed, but what compilers try out has to fit beside it.
      at_once: processes that start together: they compile side by side, and are timed one by one;
        then the next ones start.
      sides: whose; empty for all, and in a trial for all that compile fast.
      settings: of the part ``compile``: network, type and name of a setting.
      depthwise: form of depthwise convolutions in our networks; None as they are.
      also: parts of our networks that are timed in a further form: part and form.
      fast: what ``torch.compile`` is given: part and type; empty for all.
      beside: file with the number of a process group that computes on the same card and is paused
        while something is timed.
      cache: folder of compiled programs that is kept; empty for none.
      table: print the table of this file, and do nothing else.
    """

    smoke: bool = False
    parts: tuple[str, ...] = ()
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("accelerator.json")
    budget: float = 540
    limit: float = 60
    at_once: int = 6
    share: float = 0.4
    sides: tuple[Side, ...] = ()
    settings: tuple[str, ...] = COMPILED
    depthwise: Form | None = None
    also: tuple[str, ...] = ()
    fast: tuple[str, ...] = ()
    beside: Path | None = None
    cache: str = ""
    table: Path | None = None


@dataclasses.dataclass
class Running:
    """A process at work."""

    job: Job
    process: subprocess.Popen[bytes]
    file: Path
    started: float

    def stop(self) -> None:
        """End it and what it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def jobs(part: str, options: Options) -> list[Job]:
    """What a part consists of, rivals first: they take memory as soon as they start."""
    common: dict[str, Any] = {"part": part, "smoke": options.smoke, "share": options.share}
    if part == "compile":
        return [Job(**common, setting=setting) for setting in options.settings]
    if part in ALONE:
        return [Job(**common)]
    sides: list[Side] = [
        side for side in options.sides if side == "jaxcore" or part.startswith(RIVALLED)
    ]
    found: list[Job] = []
    for side in sorted(sides, key=SIDES.index, reverse=True):
        for dtype in get_args(Dtype):
            if side == "jaxcore":
                found.append(Job(**common, dtype=dtype, depthwise=options.depthwise))
                more = [name.split()[1] for name in options.also if name.split()[0] == part]
                found += [Job(**common, dtype=dtype, depthwise=form) for form in more]  # type: ignore[arg-type]  # as typed
            elif side == "torch.compile":
                if f"{part} {dtype}" in (options.fast or [f"{part} {dtype}"]):
                    found.append(Job(**common, side=side, dtype=dtype))
            elif side == "torch" and dtype == "float32":  # it does both
                found.append(Job(**common, side=side))
    return found


def start(job: Job, options: Options, folder: Path) -> Running:
    """A process of its own, that can be ended with all it starts."""
    file = Path(tempfile.mkdtemp(dir=folder), "found.json")
    command = [sys.executable, "-m", "benchmarks.accelerator.child", "--record", str(file)]
    command += ["--lock", str(folder / "lock")]
    if options.beside:
        command += ["--beside", str(options.beside)]
    for field in dataclasses.fields(job):
        value, name = getattr(job, field.name), field.name.replace("_", "-")
        if isinstance(value, bool):
            command.append(f"--job.{name}" if value else f"--job.no-{name}")
        elif value:
            command += [f"--job.{name}", str(value)]
    env = dict(os.environ)
    if job.side != "jaxcore":
        env["JAX_PLATFORMS"] = "cpu"  # it shall not take the card
    elif options.cache:
        env["JAX_COMPILATION_CACHE_DIR"] = options.cache
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    if options.smoke:
        env["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    process = subprocess.Popen(command, env=env, process_group=0)
    return Running(job, process, file, time.time())


def too_long(one: Running, state: dict[str, Any], limit: float, deadline: float) -> str:
    """Why a process has to end now; empty if it may go on."""
    now, doing = time.time(), state.get("doing", "starting")
    if now >= deadline:
        return f"the budget was spent while {doing}"
    if doing != "waiting" and now - state.get("since", one.started) > limit:
        return f"{doing} took more than {limit:g} s"
    return ""


def look(one: Running, found: dict[str, Any], limit: float, deadline: float) -> bool:
    """Take over what a process has found; whether it has ended."""
    over = one.process.poll() is not None
    state = read(one.file)
    doing = state.get("doing", "starting")
    for name, facts in state.get("found", {}).items():
        place = found if name == "environment" else found["rows"]
        place[name] = facts
    reason = "" if over else too_long(one, state, limit, deadline)
    if reason:
        one.stop()
    elif over and doing != "done":
        reason = f"ended with {one.process.returncode} while {doing}"
    if reason:
        row = doing.partition(" ")[2] or f"{one.job.side} {one.job.dtype}".strip()
        found["rows"].setdefault(row, {})["failed"] = reason
    return over or bool(reason)


def room(going: Sequence[Running], at_once: int) -> bool:
    """Whether another may start: not once the first have compiled, or all would wait for it."""
    young = all(time.time() - one.started < TOGETHER for one in going)
    return len(going) < at_once and young


def say(text: str) -> None:
    """A line with the time of day; without JAX, which would take the card."""
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", flush=True)


def measure(options: Options) -> dict[str, Any]:
    """Run everything, writing as it goes."""
    record: dict[str, Any] = {}
    if options.output.exists():
        record = json.loads(options.output.read_text())
    deadline = time.time() + options.budget
    machine = {"smoke": options.smoke, "date": datetime.date.today().isoformat(), **card()}
    machine |= {"at_once": options.at_once, "training_beside": options.beside is not None}
    queue = [job for part in options.parts for job in jobs(part, options)]
    queue.sort(key=lambda job: job.side == "torch.compile")  # minutes each, and all wait for it
    going: list[Running] = []
    begun: dict[str, float] = {}
    busy = time.time()  # when something was timed last
    with tempfile.TemporaryDirectory() as folder:
        try:
            while queue or going:
                while queue and room(going, options.at_once) and time.time() < deadline:
                    going.append(start(queue.pop(0), options, Path(folder)))
                    part = going[-1].job.part
                    if part not in begun:
                        begun[part] = time.time()
                        old = record.get(part, {}).get("rows", {})
                        record[part] = {"machine": machine, "rows": dict(old)}
                        say(f"{part} begins")
                time.sleep(POLL)
                if any(read(one.file).get("doing", "").startswith("timing") for one in going):
                    busy = time.time()
                elif options.beside and time.time() - busy > TOGETHER:
                    beside.resume(options.beside, Path(folder, "lock"))
                for one in list(going):
                    found = record[one.job.part]
                    found["wall_s"] = round(time.time() - begun[one.job.part])
                    if look(one, found, options.limit, deadline):
                        going.remove(one)
                if time.time() >= deadline:
                    for job in queue:
                        found = record.setdefault(job.part, {"machine": machine, "rows": {}})
                        found["note"] = "the budget was spent before all of it was started"
                    queue = []
                write_json(options.output, report.judged(record))
                for part in [part for part in begun if begun[part]]:
                    if all(job.part != part for job in [*queue, *(one.job for one in going)]):
                        begun[part] = 0
                        for line in report.lines(record, part):
                            say(line)
        finally:
            for one in going:
                one.stop()
            if options.beside:
                beside.resume(options.beside)
    return report.judged(record)


def _end(*_: Any) -> None:
    """Ask for the way out once, on which processes are ended; `timeout` asks twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main(options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Run parts and print the table.

    Args:
      options: what is run.
    """
    if options.table is None:
        signal.signal(signal.SIGTERM, _end)
        unknown: Sequence[str] = [part for part in options.parts if part not in PARTS]
        if unknown:
            raise SystemExit(f"Expected parts among {', '.join(PARTS)}; found {unknown[0]!r}.")
        if not options.parts:
            options = dataclasses.replace(options, parts=SMOKE_PARTS if options.smoke else PARTS)
        if not options.sides:
            options = dataclasses.replace(options, sides=SIDES[:2] if options.smoke else SIDES)
        record = measure(options)
    else:
        record = json.loads(options.table.read_text())
    for line in report.lines(record):
        print(line)


if __name__ == "__main__":
    tyro.cli(main)
