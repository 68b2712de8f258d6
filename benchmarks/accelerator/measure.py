"""Turns on the card, times of loops of calls, cost of compiling, and what is written of them."""

import contextlib
import fcntl
import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator import beside
from jaxcore.atomic import write_json

LOOP = 0.1  # seconds per loop of calls, at least
SHORT = 0.03  # the same for one of many small programs
LONG = 1.0  # seconds of a call that is timed once
LOOPS = 5
RESTS = (8, 16, 24)  # seconds between attempts at getting memory
MOST_CALLS = 200


class Record:
    """Findings of one process, in a file that is replaced at every change.

    Args:
      path: the file.
      lock: a file on which processes wait for their turn on the card.
      beside: holds the number of a process group that is paused while something is timed.
    """

    def __init__(self, path: Path, lock: Path, beside: Path | None = None):
        self.path, self.lock, self.beside = path, lock, beside
        self.found: dict[str, Any] = {}
        self.state("starting")

    def state(self, doing: str) -> None:
        """Say what is being done now, for whoever watches the time."""
        self.doing, self.since = doing, time.time()
        self._write()

    def add(self, row: str, **facts: Any) -> None:
        """Facts of a row."""
        self.found.setdefault(row, {}).update(facts)
        self._write()

    def _write(self) -> None:
        write_json(self.path, {"doing": self.doing, "since": self.since, "found": self.found})

    @contextlib.contextmanager
    def compiling(self, row: str) -> Iterator[None]:
        """Beside others that compile, while nobody is timed."""
        with self._turn(fcntl.LOCK_SH, f"compiling {row}"):
            yield

    @contextlib.contextmanager
    def timing(self, row: str) -> Iterator[None]:
        """Alone on the card."""
        with self._turn(fcntl.LOCK_EX, f"timing {row}"):
            if self.beside is not None:
                beside.pause(self.beside)
            yield

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Alone in taking much of the card's memory, while others compile."""
        self.state("waiting")
        with self.lock.with_name("memory").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _turn(self, kind: int, doing: str) -> Iterator[None]:
        self.state("waiting")
        with self.lock.open("a") as file:
            fcntl.flock(file, kind)
            self.state(doing)
            yield
        self.state("waiting")

    def attempt(self, row: str, run: Callable[[], None]) -> None:
        """Run; a failure is recorded in one line and the next row goes on.

        Where the card's memory is full, others give it back when they end: it is tried again.
        """
        for rest in (*RESTS, 0):
            try:
                run()
            except Exception as error:
                words = " ".join(f"{type(error).__name__}: {error}".split())
                full = "RESOURCE_EXHAUSTED" in words or "OutOfMemoryError" in words
                if not full or not rest:
                    self.add(row, failed=words[:300])
                    return
            else:
                return
            self.state("waiting")
            time.sleep(rest)


def read(path: Path) -> dict[str, Any]:
    """What a process has written so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def timed(
    call: Callable[[], Any], wait: Callable[[Any], Any], loop: float = LOOP
) -> dict[str, Any]:
    """Median over loops of many calls that take ``loop`` seconds, waiting once per loop."""
    wait(call())
    start = time.perf_counter()
    wait(call())
    one = time.perf_counter() - start
    count = min(max(math.ceil(loop / max(one, 1e-6)), 1), MOST_CALLS)
    each = []
    for _ in range(LOOPS if one < LONG else 1):
        start = time.perf_counter()
        out = None
        for _ in range(count):
            out = call()
        wait(out)
        each.append((time.perf_counter() - start) / count)
    low, median, high = np.percentile(each, [0, 50, 100])
    spread = [round(1e3 * float(v), 4) for v in (low, high)]
    return {"ms": round(1e3 * float(median), 4), "spread_ms": spread, "calls": count}


def card() -> dict[str, Any]:
    """Name, driver and memory of the first NVIDIA card; empty where there is none."""
    fields = "name,driver_version,memory.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in out.stdout.splitlines()[0].split(",")]
    return dict(zip(("card", "driver", "memory"), values, strict=True))


def quiet_allocation(share: float) -> None:
    """Memory is taken as needed, up to a share of the card; set before JAX starts."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{share:g}"
