"""Metrics of ``jaxcore evaluate`` beside PSNR and SSIM, on weights of the user."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.train.tasks.images import Restored

MetricName: TypeAlias = Literal["lpips", "dists", "fid"]
_FEW = 2048  # pictures below which a Frechet distance is mostly noise and bias


class Further:
    """The metrics that were asked for, image by image.

    Args:
      metrics: their names.
      files: of weights.

    Raises:
      UserError: a metric without its weights, or weights without a metric.
    """

    def __init__(self, metrics: Sequence[MetricName], files: Sequence[Path]) -> None:
        from jaxcore.metrics.inception import is_fid_edition
        from jaxcore.weights.metric_files import check, lpips_network, read_metric_weights

        if files and not metrics:
            raise UserError("Expected --metrics beside --metric-weights, found none.")
        self._weights = read_metric_weights(files)
        for metric in metrics:
            check(metric, self._weights)
        self._metrics = tuple(dict.fromkeys(metrics))
        self._scores: dict[str, dict[str, list[float]]] = {}
        self._clouds: dict[str, dict[str, Any]] = {}
        self._network = lpips_network(self._weights) if "lpips" in metrics else ""
        fid = self._weights.inception is not None and is_fid_edition(self._weights.inception)
        self._frechet = "fid" if fid else "frechet_torchvision"

    def add(self, image: "Restored") -> dict[str, float]:
        """Measure one image; its values before and after, by name."""
        from jaxcore.metrics.perceptual import LEAST_SIDE, dists_compiled, lpips_compiled

        least = min(image.clean.shape[:2])
        if self._metrics and least < LEAST_SIDE:
            raise UserError(
                f"Expected pictures of at least {LEAST_SIDE} pixels for {self._metrics[0]}, found "
                f"{least} in {image.name} of {image.group}."
            )
        weights, values = self._weights, {}
        clean = image.clean[None]
        for ending, pixels in (("_in", image.degraded[None]), ("", image.restored[None])):
            if "lpips" in self._metrics:
                features = weights.alexnet if self._network == "alex" else weights.vgg16
                assert features is not None and weights.lpips is not None  # of `check`
                (value,) = lpips_compiled(
                    features, weights.lpips, pixels, clean, network=self._network
                )
                values[f"lpips_{self._network}{ending}"] = float(value)
            if "dists" in self._metrics:
                assert weights.vgg16 is not None and weights.dists is not None
                (value,) = dists_compiled(weights.vgg16, weights.dists, pixels, clean)
                values[f"dists{ending}"] = float(value)
        group = self._scores.setdefault(image.group, {})
        for name, value in values.items():
            group.setdefault(name, []).append(value)
        if "fid" in self._metrics:
            self._add_cloud(image)
        return values

    def _add_cloud(self, image: "Restored") -> None:
        from jaxcore.metrics.frechet import Cloud
        from jaxcore.metrics.inception import inception_compiled

        assert self._weights.inception is not None
        clouds = self._clouds.setdefault(image.group, {})
        for name in ("degraded", "restored", "clean"):
            pixels = getattr(image, name)[None]
            fid = self._frechet == "fid"
            features = inception_compiled(self._weights.inception, pixels, fid=fid)
            cloud = Cloud.of(np.asarray(features))
            clouds[name] = clouds[name] + cloud if name in clouds else cloud

    def summary(self) -> dict[str, float]:
        """Means over the images of each degradation, and distances of sets; ``<group>/<name>``."""
        from jaxcore.metrics.frechet import frechet_distance

        out = {
            f"{group}/{name}": float(np.mean(values))
            for group, found in self._scores.items()
            for name, values in found.items()
        }
        for group, clouds in self._clouds.items():
            if clouds["clean"].count > 1:
                for ending, name in (("_in", "degraded"), ("", "restored")):
                    distance = frechet_distance(clouds[name], clouds["clean"])
                    out[f"{group}/{self._frechet}{ending}"] = distance
        return out

    def lines(self) -> list[str]:
        """A table: a line for each degradation and metric, before and after; smaller is better."""
        found = self.summary()
        lines = [
            f"{name:38}{found[f'{name}_in']:10.4f}  ->{value:10.4f}"
            for name, value in found.items()
            if not name.endswith("_in")
        ]
        count = max((clouds["clean"].count for clouds in self._clouds.values()), default=_FEW)
        if count < _FEW:
            lines.append(
                f"a Frechet distance of {count} pictures is far above that of many: compare it "
                "with others of the same pictures only"
            )
        return lines
