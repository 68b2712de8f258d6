"""Restoration of photographs: any network from image to image, any mixture of degradations."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxcore.bounds import AtLeast
from jaxcore.convert import read_state_dict
from jaxcore.errors import UserError
from jaxcore.models.dea_net import contrastive_regularization, vgg19_from_torch
from jaxcore.train.task import Frozen, Loss, Mean
from jaxcore.train.tasks.images import (
    ImageTask,
    Restored,
    Score,
    comparison,
    score,
    summarise,
)
from jaxcore.typing import Batch, Key, Params

__all__ = ["LossType", "RestorationTask", "Restored", "Score", "comparison", "score", "summarise"]

LossType = Literal["l1", "charbonnier"]
_CHARBONNIER = 1e-3  # eps of the MPRNet / NAFNet family, in units of intensity


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestorationTask(ImageTask):
    """Train a network ``image -> image`` on crops, evaluate it on whole images.

    >>> from jaxcore.models.adair import AdaIRConfig
    >>> task = RestorationTask(network=AdaIRConfig.tiny())
    >>> RestorationTask.from_dict(task.to_dict()) == task
    True
    """

    name: ClassVar[str] = "restoration"
    loss_type: LossType = "l1"
    # of DEA-Net-CR's loss, a distance of VGG19's features; 0 leaves it out
    contrastive_weight: Annotated[float, AtLeast(0)] = 0.0
    contrast_per_sample: bool = False  # one ratio of distances per image instead of per batch
    contrast_positive_only: bool = False  # the distance to the clean image alone
    vgg: str = ""  # for it: file of torchvision's vgg19

    def frozen(self) -> Params | None:
        """Weights of VGG19, if the loss needs them."""
        if self.contrastive_weight == 0:
            return None
        if not self.vgg:
            raise UserError("Expected a file of torchvision's vgg19 for the contrast, found none.")
        return vgg19_from_torch(read_state_dict(self.vgg).tensors)

    def loss(self, variables: Mapping[str, Any], batch: Batch, key: Key, frozen: Frozen) -> Loss:
        """Mean over all elements, and the mean of every degradation in the batch.

        Args:
          variables: parameters of the network.
          batch: rows of ``degraded``, ``clean`` and ``task``.
          key: nothing is drawn.
          frozen: of `frozen`, which the contrast needs.
        """
        restored = self.entry.apply(variables["params"], batch["degraded"], self.network)
        error = jnp.abs(restored - batch["clean"])
        if self.loss_type == "charbonnier":
            error = jnp.sqrt(error**2 + _CHARBONNIER**2)
        rows = jnp.mean(error, axis=(1, 2, 3))
        loss, parts = Mean.of(rows), _by_group(rows, batch["task"], self.group_names)
        if self.contrastive_weight == 0:
            return Loss(*loss, metrics=parts)
        if frozen is None:
            raise ValueError("a loss with a contrast needs the weights of VGG19: task.frozen()")
        contrast = contrastive_regularization(
            restored,
            batch["clean"],
            batch["degraded"],
            frozen,
            per_sample=self.contrast_per_sample,
            positive_only=self.contrast_positive_only,
        )
        total = loss.total + self.contrastive_weight * contrast * loss.weight
        parts["contrast"] = Mean(contrast * loss.weight, loss.weight)
        return Loss(total, loss.weight, metrics=parts)


def _by_group(rows: jax.Array, task: jax.Array, names: tuple[str, ...]) -> dict[str, Mean]:
    """Mean of the rows of every group, if there are several."""
    if len(names) == 1:
        return {}
    return {f"loss_{name}": Mean.of(rows, task == i) for i, name in enumerate(names)}
