"""Random crops of photographs, degraded on the fly."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxcore.data.degradations import gaussian_noise, haze

KINDS = ("noise25", "noise50", "haze")


def smooth_depth(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random smooth depth in [0.2, 1.2]: a coarse 3x3 field enlarged bilinearly."""
    coarse = rng.random((3, 3))
    rows, columns = np.linspace(0, 2, height), np.linspace(0, 2, width)
    wide = np.stack([np.interp(columns, np.arange(3), row) for row in coarse])
    return 0.2 + np.stack([np.interp(rows, np.arange(3), column) for column in wide.T], axis=1)


def degrade(clean: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A degraded float32 copy in [0, 1] of a uint8 image; ``kind`` is one of ``KINDS``."""
    if kind == "haze":
        depth = smooth_depth(*clean.shape[:2], rng)
        hazy = haze(clean / 255, depth, rng.uniform(0.6, 1.8), rng.uniform(0.7, 1.0))
        return hazy.astype(np.float32)
    noise = rng.standard_normal(clean.shape)
    return (gaussian_noise(clean, float(kind[5:]), noise) / 255).astype(np.float32)


@dataclasses.dataclass
class CropBatches:
    """Endless batches; batch ``step`` depends on the seed and the step alone."""

    images: Sequence[np.ndarray]
    patch: int
    batch_size: int
    seed: int
    step: int = 0

    def __next__(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, self.step))
        self.step += 1
        clean, degraded = [], []
        for _ in range(self.batch_size):
            image = self.images[rng.integers(len(self.images))]
            top = rng.integers(image.shape[0] - self.patch + 1)
            left = rng.integers(image.shape[1] - self.patch + 1)
            crop = image[top : top + self.patch, left : left + self.patch]
            crop = np.rot90(crop, rng.integers(4))
            crop = np.ascontiguousarray(crop[:, :: rng.choice((1, -1))])
            degraded.append(degrade(crop, KINDS[rng.integers(len(KINDS))], rng))
            clean.append((crop / 255).astype(np.float32))
        return {"degraded": np.stack(degraded), "clean": np.stack(clean)}

    def get_state(self) -> dict[str, int]:
        """Position in the stream."""
        return {"step": self.step}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position from `get_state`."""
        self.step = state["step"]
