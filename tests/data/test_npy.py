"""NumPy's array files: what a header claims is checked before it is read."""

import tracemalloc

import numpy as np
import pytest

from jaxcore.data.npy import open_npy


def test_a_header_that_claims_half_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[6:12] = b"\x03\x00" + (2**29).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="claims 536870912 bytes"):
            open_npy(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
