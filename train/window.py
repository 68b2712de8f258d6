"""Means of metrics between two records."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


class Window:
    """Means of the metrics since the last record; survives a restart."""

    def __init__(self, stored: Mapping[str, Any] | None = None) -> None:
        stored = stored or {}
        self.sums: dict[str, float] = dict(stored.get("sums", {}))
        self.counts: dict[str, int] = dict(stored.get("counts", {}))
        self._fresh: list[dict[str, jax.Array]] = []

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Take the metrics of a step that has ended."""
        self._fresh.append(metrics)
        if len(self._fresh) >= 64:  # few transfers, little memory
            self._fold()

    def _fold(self) -> None:
        for metrics in jax.device_get(self._fresh):
            for name, value in metrics.items():
                self.counts.setdefault(name, 0)
                self.sums.setdefault(name, 0.0)
                if name == "skipped":  # a count so far, not something to average
                    self.sums[name], self.counts[name] = float(value), 1
                elif np.isfinite(value):
                    self.sums[name] += float(value)
                    self.counts[name] += 1
        self._fresh = []

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        self._fold()
        return {"sums": self.sums, "counts": self.counts}

    def means(self) -> dict[str, float]:
        """Means over the finite values (NaN without any)."""
        self._fold()
        return {k: v / self.counts[k] if self.counts[k] else np.nan for k, v in self.sums.items()}

    def restart(self) -> None:
        """Start anew, when the means are written down."""
        self.sums, self.counts = {}, {}
