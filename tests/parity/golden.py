"""A golden file: inputs, weights and results of the official code, and how to compare."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcore.convert import Rule, from_state_dict


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and configuration of one file."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays.pop("config", "{}")))


class Golden:
    """Arrays of one `.npz` file by group; the file's own configuration is `config`."""

    def __init__(self, path: Path):
        self.arrays, self.config = load(path)

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


def part_params(
    module: Any,
    rules: Sequence[Rule],
    weights: Mapping[str, np.ndarray],
    path: str,
    key: str,
    *inputs: Any,
    stacked: bool = False,
) -> Any:
    """Weights of one part, through the key table of the network it sits in.

    Args:
      module: the part.
      rules: key table of the whole network.
      weights: official keys within the part.
      path: where the part sits in our tree, joined by slashes.
      key: where it sits in the official network.
      *inputs: of the part.
      stacked: the part is the only layer of a stack, with a leading axis.
    """
    target = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    if stacked:
        target = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape), a.dtype), target)
    for name in reversed(path.split("/")):
        target = {name: target}
    official = {f"{key}.{name}": value for name, value in weights.items()}
    params = from_state_dict(official, rules, target)
    for name in path.split("/"):
        params = params[name]
    return jax.tree.map(lambda a: a[0], params) if stacked else params


def run(module: Any, params: Any, *inputs: Any) -> Any:
    """What a part computes, compiled."""
    return jax.jit(lambda p, *a: module.apply({"params": p}, *a))(params, *inputs)


def like_stored(ours, golden: np.ndarray) -> np.ndarray:
    """Files may hold the first samples only, and every n-th row and column."""
    ours = np.asarray(ours)
    step = max(-(-ours.shape[1] // golden.shape[1]), 1)
    return ours[: golden.shape[0], ::step, ::step]


def close(
    ours, golden: np.ndarray, *, atol: float, rtol: float, what: str, where_finite: bool = False
) -> None:
    """Same shape, and |ours - golden| <= atol + rtol |golden| everywhere.

    With ``where_finite`` the released code may have divided by zero: ours must be finite there.
    """
    ours = np.asarray(ours)
    assert ours.shape == golden.shape, f"{what}: shape {ours.shape}, expected {golden.shape}"
    assert np.isfinite(ours).all(), f"{what}: not finite"
    if where_finite:
        ours, golden = (np.where(np.isfinite(golden), a, 0) for a in (ours, golden))
    np.testing.assert_allclose(ours, golden, rtol=rtol, atol=atol, err_msg=what)


def close_gradients(ours: Mapping[str, np.ndarray], file: Golden) -> None:
    """Gradients by official key, each within a thousandth of its own largest entry."""
    for name, golden in file.group("out/grad").items():
        bound = 1e-3 * float(np.max(np.abs(golden))) + 1e-7
        close(ours[name], golden, atol=bound, rtol=0, what=f"gradient of {name}")
    for name, norm in file.config.get("grad_l2", {}).items():
        off = abs(np.linalg.norm(ours[name]) - norm)
        assert off <= 1e-3 * norm + 1e-7, f"norm of the gradient of {name}: off by {off}"


def equal(ours, golden: np.ndarray, *, what: str) -> None:
    """Same shape, and equal everywhere."""
    np.testing.assert_array_equal(np.asarray(ours), golden, err_msg=what)


def beside(path: Path, name: str) -> Path:
    """Another file of the same set: ``net_train_2.npz`` for ``grads_train_2.npz`` where it is.

    Args:
      path: the file that refers to another.
      name: the other one without what a set adds to its names.
    """
    stem, _, ending = name.partition(".")
    for cut in range(len(path.stem)):
        other = path.with_name(f"{stem}{path.stem[cut:]}.{ending}")
        if path.stem[cut] in "_-" and other.exists():
            return other
    return path.with_name(name)
