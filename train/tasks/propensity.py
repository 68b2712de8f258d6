"""Networks from images to propensities and outcomes; those of all folds are trained at once."""

import dataclasses
from typing import Any, ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.special import expit

from jaxcore.train.tasks.image_fits import ImageFits
from jaxcore.typing import Key, Params

Kind: TypeAlias = Literal["propensity", "outcome", "joint"]
"""What a network tells: log-odds of the target; its mean; log-odds of the treatment, and means of
the outcome without it and with it."""

OUTPUTS: dict[Kind, int] = {"propensity": 1, "outcome": 1, "joint": 3}
TARGETING = "targeting"
"""Where the shift of the outcomes stands among the parameters."""

_BOUND = 0.01  # of propensities that shifts are divided by


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PropensityTask(ImageFits):
    """Train networks that tell treatment, outcome or both, as `ImageFits` are.

    With targeted regularisation a network of both has one more parameter, ``shift``. Outcomes are
    moved by ``shift / e`` with treatment and ``-shift / (1 - e)`` without, and the squared error of
    the moved ones is part of the loss, so that at its minimum the outcomes solve the equation of
    the efficient influence function on the units of the training.

    References:
      Shi, Blei and Veitch (2019), Adapting neural networks for the estimation of treatment effects.
    """

    name: ClassVar[str] = "propensity"
    kind: Kind = "propensity"
    label_smoothing: float = 0.05  # of treatments
    treatment_loss: float = 1.0  # its part in the loss of "joint", beside squared errors
    targeting: float = 0.0  # weight of targeted regularisation of "joint"; 0: none

    @property
    def width(self) -> int:
        """Numbers that the network gives for a unit."""
        return OUTPUTS[self.kind]

    @property
    def targeted(self) -> bool:
        """Whether outcomes are moved."""
        return self.kind == "joint" and self.targeting > 0

    def init_params(self, key: Key) -> Params:
        """Fresh parameters of each fit; shifts begin at 0."""
        learned = super().init_params(key)
        if not self.targeted:
            return learned
        return {**learned, TARGETING: {"shift": jnp.zeros(len(self.numbers))}}

    def of_network(self, learned: Params) -> Params:
        """All but the shift."""
        return {name: tree for name, tree in learned.items() if name != TARGETING}

    def outputs(
        self, params: Params, collections: dict[str, Any], *, chunk: int = 512
    ) -> Float[np.ndarray, "k n o"]:
        """What the network of each fit says of every unit, with outcomes moved."""
        found = super().outputs(params, collections, chunk=chunk)
        if not self.targeted:
            return found
        shift = np.asarray(params[TARGETING]["shift"])[:, None]
        e = np.clip(expit(found[..., 0]), _BOUND, 1 - _BOUND)
        moved = [found[..., 0], found[..., 1] - shift / (1 - e), found[..., 2] + shift / e]
        return np.stack(moved, axis=-1)

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
        error = target[:, 1] - jnp.where(a > 0.5, out[:, 2], out[:, 1])
        found = self.treatment_loss * entropy + error**2
        if key is None or not self.targeted:
            return found
        e = jnp.clip(jax.nn.sigmoid(out[:, 0]), _BOUND, 1 - _BOUND)
        shift = learned[TARGETING]["shift"] * (a / e - (1 - a) / (1 - e))
        return found + self.targeting * (error - shift) ** 2
