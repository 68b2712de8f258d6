"""What a command has compiled is kept for the next one, in JAX's own cache on disk.

Only commands do so, never the library. Whatever is wrong with the cache, a command works without.
"""

import contextlib
import glob
import hashlib
import os
import platform
import re
import sys
import warnings
from pathlib import Path
from typing import Any

FOLDER = "JAX_COMPILATION_CACHE_DIR"  # JAX's own variable: moves the cache, or, empty, does without
LIMIT = 2_000_000_000  # bytes kept
_LEAST = "0.1"  # seconds a compilation must take to be kept
_TROUBLE = re.compile(r"Error (reading|writing) persistent compilation cache entry for '(.*?)'")


def keep_compiled(asked: str | None = None) -> None:
    """Tell JAX, which must not be imported yet, where to keep what it compiles.

    Args:
      asked: a folder, or "off". None takes what the environment says, and else a folder below the
        user's cache directory. Folders of ours hold `LIMIT` bytes at most: what was not used for
        longest is deleted.
    """
    if asked == "off":
        os.environ[FOLDER] = ""
    if asked == "off" or (asked is None and FOLDER in os.environ):
        return
    root = _user_folder() if asked is None else Path(asked).expanduser().absolute()
    if root is None:
        return
    # Programs compiled for another processor may not run on this one, and homes are shared.
    folder = root / _machine()
    if not _is_ours(folder):
        return
    with contextlib.suppress(OSError):
        _bound(root, LIMIT)
    os.environ[FOLDER] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", _LEAST)
    _forget_damaged(folder)


def _user_folder() -> Path | None:
    """A folder of this program in the user's cache directory, where the platform has it."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else os.path.join(home, ".cache")
    return Path(base, "jaxcore", "compiled") if os.path.isabs(base) else None


def _machine() -> str:
    """A name for processors that run each other's programs."""
    about = [platform.machine()]
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        about += [next((x for x in lines if x.startswith(("flags", "Features"))), "")]
    return hashlib.sha256("".join(about).encode()).hexdigest()[:12]


def _is_ours(folder: Path) -> bool:
    """Make the folder, unless others could write into it: what is in it gets run."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError:
        return False
    return not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o022)


def _bound(root: Path, limit: int) -> None:
    """Delete what was not used for longest until at most ``limit`` bytes are left."""
    entries = []
    for path in root.glob("*/*-cache"):
        with contextlib.suppress(OSError):  # another process may have deleted it
            about = path.stat()
            entries.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


def _forget_damaged(folder: Path) -> None:
    """Say nothing of an entry that cannot be read, and delete it, so that it is written anew."""
    shown = warnings.showwarning

    def show(message: Warning | str, *about: Any, **options: Any) -> None:
        found = _TROUBLE.match(str(message))
        if found is None:
            shown(message, *about, **options)
        elif found[1] == "reading":
            for entry in folder.glob(f"{glob.escape(found[2])}-*"):
                with contextlib.suppress(OSError):
                    entry.unlink()

    warnings.showwarning = show
