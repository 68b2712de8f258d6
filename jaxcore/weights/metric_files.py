"""Weights that metrics need, in files of the user, told apart by their keys."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxcore.convert import read_state_dict, strip_prefix
from jaxcore.errors import UserError

#: Metric -> what its weights are, and where they come from.
NEEDED: dict[str, tuple[str, ...]] = {
    "lpips": (
        "alexnet or vgg16 of torchvision",
        "the linear layers of LPIPS 0.1 (alex.pth, vgg.pth)",
    ),
    "dists": ("vgg16 of torchvision", "alpha and beta of DISTS (weights.pt)"),
    "fid": ("Inception v3 of FID, or of torchvision",),
}


@dataclasses.dataclass(frozen=True, eq=False)
class MetricWeights:
    """Arrays of the networks that were found among some files; None for those that were not."""

    alexnet: Mapping[str, jnp.ndarray] | None = None
    vgg16: Mapping[str, jnp.ndarray] | None = None
    inception: Mapping[str, jnp.ndarray] | None = None
    lpips: Mapping[str, jnp.ndarray] | None = None
    dists: Mapping[str, jnp.ndarray] | None = None


_SIGNS = {  # kind -> a key that only its files have, among those that are looked for
    "inception": "Conv2d_1a_3x3.conv.weight",
    "lpips": "lin0.model.1.weight",
    "dists": "alpha",
    "vgg16": "features.28.weight",
    "alexnet": "features.10.weight",
}
_VGG19 = "features.34.weight"


def read_metric_weights(files: Sequence[str | Path]) -> MetricWeights:
    """Read files of metrics, in any order.

    Raises:
      UserError: a file that cannot be read, of no metric, or two of one kind.
    """
    found: dict[str, dict[str, jnp.ndarray]] = {}
    for file in files:
        tensors = strip_prefix(read_state_dict(file).tensors, tuple(_SIGNS.values()))
        kind = next((kind for kind, sign in _SIGNS.items() if sign in tensors), None)
        if kind is None or _VGG19 in tensors:
            raise UserError(
                f"Expected weights of a metric ({', '.join(_SIGNS)}), found others in {file}."
            )
        if kind in found:
            raise UserError(f"Expected one file of {kind}, found a second one, {file}.")
        found[kind] = {
            key: jnp.asarray(np.asarray(value, np.float32))
            for key, value in tensors.items()
            if np.issubdtype(np.dtype(value.dtype), np.floating)
            and not key.startswith("classifier.")  # most of AlexNet and VGG16, and not needed
        }
    return MetricWeights(**found)


def lpips_network(weights: MetricWeights) -> str:
    """Name of the features that the linear layers of LPIPS are for: alex or vgg.

    Raises:
      UserError: they fit no features among the weights.
    """
    if weights.lpips is not None:
        for name, features in (("alex", weights.alexnet), ("vgg", weights.vgg16)):
            index = {"alex": (0, 3), "vgg": (2, 7)}[name]
            widths = [weights.lpips[f"lin{i}.model.1.weight"].size for i in (0, 1)]
            if features is not None and widths == [
                len(features[f"features.{i}.bias"]) for i in index
            ]:
                return name
    raise _absent("lpips")


def _absent(metric: str) -> UserError:
    return UserError(
        f"Expected among --metric-weights files with {' and with '.join(NEEDED[metric])} for "
        f"{metric}, found none that fit."
    )


def check(metric: str, weights: MetricWeights) -> None:
    """Refuse a metric whose weights are not there.

    Raises:
      UserError: says what it needs.
    """
    there = {
        "dists": weights.dists is not None and weights.vgg16 is not None,
        "fid": weights.inception is not None,
    }
    if metric == "lpips":
        lpips_network(weights)
    elif not there[metric]:
        raise _absent(metric)
