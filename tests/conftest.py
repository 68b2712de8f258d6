"""JAX in its strict mode for every test: no silent promotion, warnings are errors."""

import os
from pathlib import Path

# Fake devices are fixed before JAX starts; one device stays the default for ordinary tests.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


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
        default=Path(__file__).parent / "golden",
        type=Path,
        help="folder of golden files, one sub-folder per system, for tests/parity",
    )
