"""Networks from images to propensities and outcomes; those of all folds are trained at once."""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxcore.train.tasks.image_fits import ImageFits
from jaxcore.typing import Key, Params

Kind: TypeAlias = Literal["propensity", "outcome", "joint"]
"""What a network tells: log-odds of the target; its mean; log-odds of the treatment, and means of
the outcome without it and with it."""

OUTPUTS: dict[Kind, int] = {"propensity": 1, "outcome": 1, "joint": 3}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PropensityTask(ImageFits):
    """Train networks that tell treatment, outcome or both, as `ImageFits` are."""

    name: ClassVar[str] = "propensity"
    kind: Kind = "propensity"
    label_smoothing: float = 0.05  # of treatments
    treatment_loss: float = 1.0  # its part in the loss of "joint", beside squared errors

    @property
    def width(self) -> int:
        """Numbers that the network gives for a unit."""
        return OUTPUTS[self.kind]

    def errors(
        self,
        out: Float[Array, "b o"],
        target: Float[Array, "b t"],
        learned: Params,
        key: Key | None,
    ) -> Float[Array, " b"]:
        """Cross-entropy of the treatment (smoothed in training), squared errors of outcomes."""
        if self.kind == "outcome":
            return (out[:, 0] - target[:, 0]) ** 2
        a, smoothing = target[:, 0], 0.0 if key is None else self.label_smoothing
        smooth = a * (1 - smoothing) + smoothing / 2
        entropy = optax.sigmoid_binary_cross_entropy(out[:, 0], smooth)
        if self.kind == "propensity":
            return entropy
        return (
            self.treatment_loss * entropy
            + (jnp.where(a > 0.5, out[:, 2], out[:, 1]) - target[:, 1]) ** 2
        )
