"""Commands to print: as they can be typed where this one was."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def command(*words: str | Path) -> str:
    """A call of ``jaxcore`` that works in the shell and the folder this program runs in.

    Args:
      *words: what follows ``jaxcore``; quoted where they need it.
    """
    return quoted([*_program(), *words])


def quoted(words: Sequence[str | Path]) -> str:
    """Words as a shell takes them."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def _program() -> list[str]:
    """How this program was called, as short as it can be found."""
    called = Path(sys.argv[0])
    if called.stem == "jaxcore":
        return [_found("jaxcore", called)]
    # ``python -m jaxcore``, or a program of the user's own
    return [_found("python", Path(sys.executable)), "-m", "jaxcore"]


def _found(name: str, program: Path) -> str:
    """The bare name where the shell finds this program under it, else the path to it."""
    there, program = shutil.which(name), Path(os.path.abspath(program))
    if there is not None and os.path.abspath(there) == str(program):
        return name
    here = Path.cwd()
    if here == program.parent:
        return os.path.join(".", program.name)
    return str(program.relative_to(here) if here in program.parents else program)
