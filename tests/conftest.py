"""JAX in its strict mode for every test, and what keeps compiling, most of their time, short."""

import atexit
import gc
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

# Fake devices are fixed before JAX starts; one device stays the default for ordinary tests.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
if "PYTEST_XDIST_WORKER" not in os.environ:
    # What one test has compiled, others only read: in all workers, and in the commands they start.
    # A folder named in JAXCORE_TEST_CACHE stays for the next run.
    compiled = os.environ.get("JAXCORE_TEST_CACHE")
    if not compiled:
        compiled = tempfile.mkdtemp(prefix="jaxcore-tests-")
        atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import jax
import pytest

pytest_plugins = ["tests.budget"]

_FLAGS = os.environ["XLA_FLAGS"]
_QUICKLY = ["--xla_backend_optimization_level=0"]
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # an error in later ones
    _QUICKLY.append("--xla_cpu_use_fusion_emitters=false")
_COMMITTED = Path(__file__).parent / "golden"

# Tracing makes millions of objects that stay; looking for garbage among them took a sixth of it.
gc.set_threshold(100_000, 20, 10)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_ignore_collect(collection_path):
    """Examples are run in the library; here, files that are no tests are not for importing."""
    is_no_test = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_no_test else None


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Programs of one folder are of little use to the next, and add up to gigabytes."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        jax.clear_caches()
        gc.unfreeze()
        gc.collect()
    # What is there by now is not looked through again, each time that something asks for it.
    if nextitem is None or nextitem.path != item.path:
        gc.freeze()


@pytest.fixture
def getkey():
    """A function that returns a fresh key at every call."""
    key = jax.random.key(0)
    count = 0

    def next_key():
        nonlocal count
        count += 1
        return jax.random.fold_in(key, count)

    return next_key


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        default=_COMMITTED,
        type=Path,
        help="folder of golden files, one sub-folder per system, for tests/parity",
    )


def pytest_configure(config):
    """Compiling is nearly all of the time, and optimising two thirds of that.

    A golden set that is named is checked with what users run.
    """
    if "optimization" not in _FLAGS and config.getoption("--golden-dir") == _COMMITTED:
        os.environ["XLA_FLAGS"] = " ".join((_FLAGS, *_QUICKLY))
