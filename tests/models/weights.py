"""Random official weights of a network, and what every network's conversion must hold."""

from typing import Any

import jax
import numpy as np

from jaxcore.convert import official_shapes


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_weights(model: Any, cfg: Any, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    official = official_shapes(model.param_shapes(cfg), model.RULES)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in official.items()}


def check_counts(model: Any, cfg: Any, parameters: int, tensors: int | None) -> None:
    tree = model.param_shapes(cfg)
    assert count(tree) == parameters
    if tensors is not None:
        assert len(official_shapes(tree, model.RULES)) == tensors


def check_round_trip(model: Any, cfg: Any, weights: dict[str, np.ndarray]) -> None:
    """In and out again, in the same order and to the bit."""
    again = model.to_torch(model.from_torch(weights, cfg), cfg)
    assert list(again) == list(weights)
    for key, value in weights.items():
        np.testing.assert_array_equal(again[key], value)


def check_uniform(weights: dict[str, np.ndarray], key: str) -> None:
    """PyTorch's first values: uniform, bounded by the fan-in of the kernel (also of a bias).

    A transposed convolution takes the channels of its result, which come second.
    """
    w = weights[key]
    kernel = weights[key.removesuffix("bias").removesuffix("weight") + "weight"]
    bound = np.prod(kernel.shape[1:]) ** -0.5
    assert np.abs(w).max() <= bound, key
    if w.size > 100:
        assert np.abs(w).max() > 0.9 * bound, key
        assert abs(w.std() * 3**0.5 / bound - 1) < 0.2, key
