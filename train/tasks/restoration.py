"""All-in-one restoration of photographs: one network, several degradations, L1 loss."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.data.crops import KINDS, CropBatches, degrade
from jaxcore.data.photos import demo_photos
from jaxcore.metrics import psnr, ssim
from jaxcore.models import adair
from jaxcore.typing import Batch, Key, Params


@functools.cache
def _photos() -> tuple[list[Any], list[Any]]:
    return demo_photos()


def centre(image: np.ndarray, side: int) -> np.ndarray:
    """The central square of an image."""
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


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

    def batches(self, seed: int, start_step: int) -> CropBatches:
        """Random crops of the training photographs."""
        images = [photo.image for photo in _photos()[0]]
        return CropBatches(images, self.patch, self.batch_size, seed, start_step)

    def examples(self, params: Params) -> dict[str, list[dict[str, np.ndarray]]]:
        """Degraded, restored and clean held-out images of each degradation."""
        out: dict[str, list[dict[str, np.ndarray]]] = {}
        for i, kind in enumerate(KINDS):
            for j, photo in enumerate(_photos()[1]):
                clean = centre(photo.image, self.eval_side)
                degraded = degrade(clean, kind, np.random.default_rng((2024, i, j)))
                restored = np.clip(adair.restore(params, degraded, self.network), 0, 1)
                target = (clean / 255).astype(np.float32)
                images = {"degraded": degraded, "restored": restored, "clean": target}
                out.setdefault(kind, []).append(images)
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
