"""Work of others on the same card: a process group that is paused while something is timed."""

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

IDLE = 2  # readings without use of the card, one after another
PATIENCE = 6.0  # seconds until the card is taken for idle all the same


def pause(file: Path) -> None:
    """Stop the group whose number stands in ``file``, and wait until the card is idle."""
    group = _group(file)
    if group is None or _stopped(group):
        return
    _signal(group, signal.SIGSTOP)
    seen, last = 0, time.time() + PATIENCE
    while seen < IDLE and time.time() < last:
        time.sleep(0.1)
        seen = seen + 1 if _use() == 0 else 0


def resume(file: Path, lock: Path | None = None) -> None:
    """Let it go on; with ``lock`` only if nobody holds the turn to be timed."""
    group = _group(file)
    if group is None:
        return
    if lock is None:
        _signal(group, signal.SIGCONT)
        return
    with lock.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _signal(group, signal.SIGCONT)


def _group(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _signal(group: int, which: signal.Signals) -> None:
    try:
        os.killpg(group, which)
    except ProcessLookupError:
        pass


def _stopped(group: int) -> bool:
    try:
        return Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def _use() -> int:
    """Per cent of the last fraction of a second in which the card computed; 0 without a card."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return int(out.stdout.split()[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return 0
