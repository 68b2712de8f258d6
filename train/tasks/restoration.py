"""All-in-one restoration of photographs: one network, several degradations, L1 loss."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.data.config import DataConfig, evaluation_groups, training_groups
from jaxcore.data.pipeline import Stage, TrainingBatches, evaluation_items, training_batches
from jaxcore.metrics import psnr, ssim
from jaxcore.models import adair
from jaxcore.typing import Batch, Key, Params


@functools.cache
def _groups() -> tuple[Any, Any]:
    return training_groups(DataConfig()), evaluation_groups(DataConfig())


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestorationTask:
    """AdaIR on the photographs of `jaxcore.data.photos`; the held-out ones are never trained on."""

    name: ClassVar[str] = "restoration"
    network: adair.AdaIRConfig
    patch: int = 64  # pixels
    batch_size: int = 4
    eval_side: int = 256  # side of the central square that is evaluated, pixels

    def init_params(self, key: Key) -> Params:
        """Fresh parameters."""
        return adair.init(key, self.network)

    def trainable(self, params: Params) -> Any:
        """False for weights the network never uses or never gives a gradient."""
        return adair.trainable(params, self.network)

    def loss(self, params: Params, batch: Batch, key: Key) -> tuple[jax.Array, dict[str, Any]]:
        """Mean absolute error."""
        restored = adair.apply(params, batch["degraded"], self.network)
        return jnp.mean(jnp.abs(restored - batch["clean"])), {}

    def batches(self, seed: int, start_step: int) -> TrainingBatches:
        """Random crops of the training photographs."""
        stage = Stage(patch=self.patch, batch_size=self.batch_size)
        return training_batches(_groups()[0], stages=[stage], seed=seed, start_step=start_step)

    def examples(self, params: Params) -> dict[str, list[dict[str, np.ndarray]]]:
        """Degraded, restored and clean held-out images of each degradation."""
        out: dict[str, list[dict[str, np.ndarray]]] = {}
        for group in _groups()[1]:
            for _, degraded, clean in evaluation_items(group, seed=2024, side=self.eval_side):
                restored = np.clip(adair.restore(params, degraded, self.network), 0, 1)
                images = {"degraded": degraded, "restored": restored, "clean": clean}
                out.setdefault(group.name, []).append(images)
        return out

    def evaluate(self, params: Params) -> dict[str, float]:
        """PSNR (dB) and SSIM before and after, per degradation, and the mean gain in dB."""
        return summarise(self.examples(params))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"name": self.name, **fields, "network": self.network.to_dict()}


def summarise(examples: dict[str, list[dict[str, np.ndarray]]]) -> dict[str, float]:
    """Mean metrics of each degradation."""
    metrics: dict[str, float] = {}
    for kind, images in examples.items():
        for metric in (psnr, ssim):
            for when, source in (("in", "degraded"), ("out", "restored")):
                values = [
                    float(metric(jnp.asarray(i[source]), jnp.asarray(i["clean"]))) for i in images
                ]
                metrics[f"{kind}/{metric.__name__}_{when}"] = float(np.mean(values))
    gains = [metrics[f"{kind}/psnr_out"] - metrics[f"{kind}/psnr_in"] for kind in examples]
    return {**metrics, "gain": float(np.mean(gains))}
