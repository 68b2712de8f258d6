"""A golden file: inputs, weights and results of the official code, and how to compare."""

import json
from pathlib import Path

import numpy as np


class Golden:
    """Arrays of one `.npz` file by group; the file's own configuration is `config`."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        self.config = json.loads(str(arrays.pop("config", "{}")))
        self.arrays = arrays

    def group(self, name: str) -> dict[str, np.ndarray]:
        """Arrays below ``name/``, without that prefix."""
        prefix = name + "/"
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def image(self, key: str) -> np.ndarray:
        """An NCHW array as NHWC; bytes become floats in [0, 1]."""
        array = nhwc(self.arrays[key])
        return array.astype(np.float32) / np.float32(255) if array.dtype == np.uint8 else array


def nhwc(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -3, -1)


def close(ours, golden: np.ndarray, *, atol: float, rtol: float, what: str) -> None:
    """Same shape, and |ours - golden| <= atol + rtol |golden| everywhere."""
    ours = np.asarray(ours)
    assert ours.shape == golden.shape, f"{what}: shape {ours.shape}, expected {golden.shape}"
    assert np.isfinite(ours).all(), f"{what}: not finite"
    np.testing.assert_allclose(ours, golden, rtol=rtol, atol=atol, err_msg=what)
