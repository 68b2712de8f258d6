"""What a command compiles is kept for the next; whatever is wrong with that, it works without."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from jaxcore.cli import compiled
from jaxcore.cli.compiled import FOLDER, keep_compiled

pytestmark = pytest.mark.newest

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import sys
from jaxcore.cli.compiled import keep_compiled
keep_compiled()
import os
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
import jax
print(jax.jit(lambda x: x + 1)(1.0))
"""


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A user without a cache so far."""
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    yield tmp_path / "cache"
    os.environ.pop(FOLDER, None)
    os.environ.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", None)


def used():
    return os.environ.get(FOLDER)


def compute():
    """A process that compiles one program; what it says."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


def entries(folder):
    return [path for path in folder.rglob("*-cache") if path.is_file()]


def test_programs_are_kept_below_the_cache_of_the_user_and_damaged_ones_replaced(fresh):
    said = compute()
    (first, *_) = entries(fresh)
    whole = first.read_bytes()
    assert first.is_relative_to(fresh / "jaxcore")
    first.write_bytes(whole[: len(whole) // 2])  # a full disk, a killed process
    assert compute() == said
    assert len(first.read_bytes()) > len(whole) // 2
    first.write_bytes(b"\0" * len(whole))
    assert compute() == said and any(first.read_bytes())


def test_the_user_moves_it_or_switches_it_off(fresh, monkeypatch, tmp_path):
    keep_compiled("off")
    assert used() == ""
    monkeypatch.delenv(FOLDER)
    keep_compiled(str(tmp_path / "other"))
    assert Path(used()).parent == tmp_path / "other"
    monkeypatch.setenv(FOLDER, "/mine")
    keep_compiled()
    assert used() == "/mine"


def test_nothing_is_kept_where_that_cannot_be_or_others_can_write(fresh, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled()
    assert used() is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # nobody knows the home
    keep_compiled()
    assert used() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh))
    keep_compiled()
    Path(used()).chmod(0o777)
    monkeypatch.delenv(FOLDER)
    keep_compiled()
    assert used() is None


def test_what_was_not_used_for_longest_goes_first(fresh, monkeypatch):
    keep_compiled()
    folder = Path(used())
    for age in range(5):
        path = folder / f"jit_{age}-cache"
        path.write_bytes(bytes(1000))
        os.utime(path, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(compiled, "LIMIT", 2500)
    monkeypatch.delenv(FOLDER)
    keep_compiled()
    assert sorted(path.name for path in entries(folder)) == ["jit_0-cache", "jit_1-cache"]


def test_the_library_keeps_nothing(fresh):
    code = (
        "import os, jaxcore.models.adair, jaxcore.train.loop; print(os.environ.get('JAX_CO', ''))"
    )
    code = code.replace("JAX_CO", FOLDER)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert found.stdout == "\n" and not fresh.exists()
