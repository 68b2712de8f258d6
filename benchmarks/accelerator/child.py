"""One part, for one library, in a process of its own."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.accelerator.measure import Record, quiet_allocation
from benchmarks.accelerator.networks import Dtype
from jaxcore.ops.depthwise import Form

Side = Literal["jaxcore", "torch", "torch.compile"]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process does.

    Attributes:
      part: its name.
      side: whose.
      setting: for the part ``compile``: network, type and setting, separated by blanks.
      dtype: of our activations, and of the network that ``torch.compile`` gets.
      smoke: tiny sizes.
      depthwise: form of depthwise convolutions in our networks; None as they are.
      share: of the card's memory, at most.
    """

    part: str
    side: Side = "jaxcore"
    setting: str = ""
    dtype: Dtype = "float32"
    smoke: bool = False
    depthwise: Form | None = None
    share: float = 1.0


def run(job: Job, record: Record) -> None:
    """Measure, and write as it goes."""
    name, _, which = job.part.rpartition("_")
    if job.side != "jaxcore":
        from benchmarks.accelerator import rivals

        fast = job.dtype if job.side == "torch.compile" else None
        rivals.limit_memory(job.share)
        rivals.network(record, name, which, job.smoke, fast)  # type: ignore[arg-type]  # a part's name
        return
    from benchmarks import harness
    from benchmarks.accelerator import dehazing, ours, parity

    record.add("environment", **harness.environment("torch"))
    if job.part == "limits":
        ours.limits(record, job.smoke)
    elif job.part == "pieces":
        ours.pieces(record, job.smoke)
    elif job.part == "blocks":
        ours.blocks(record, job.dtype, job.smoke)
    elif job.part == "dense":
        dehazing.dense(record, job.dtype, job.smoke)
    elif job.part == "attention":
        dehazing.attention(record, job.dtype, job.smoke)
    elif job.part == "parity":
        parity.parity(record)
    elif job.part == "monte_carlo":
        ours.monte_carlo(record, job.smoke)
    elif job.part == "compile":
        network, dtype, setting = job.setting.split()
        ours.compiling(record, network, dtype, setting, job.smoke)  # type: ignore[arg-type]  # one of SETTINGS
    else:
        ours.network(record, name, which, job.dtype, job.smoke, job.depthwise)  # type: ignore[arg-type]  # a part's name


def main(job: Job, record: Path, lock: Path, beside: Path | None = None) -> None:
    """Do one job.

    Args:
      job: what.
      record: file of what is found.
      lock: file on which processes wait for their turn.
      beside: file with the number of a process group that is paused while something is timed.
    """
    quiet_allocation(job.share)
    written = Record(record, lock, beside)
    written.attempt("part", lambda: run(job, written))
    written.state("done")
    sys.stdout.flush()
    os._exit(0)  # what is left would only be tidied up


if __name__ == "__main__":
    tyro.cli(main)
