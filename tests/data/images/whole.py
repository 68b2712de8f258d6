"""Whole images as tests look at them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxcore.data.images.pipeline import evaluation_samples
from jaxcore.data.images.sources import Group


def whole_images(group: Group, **options: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, degraded and clean image of every sample."""
    for sample in evaluation_samples(group, **options):
        yield sample["name"], sample["degraded"], sample["clean"]
