"""What the networks are trained to give, and how their outputs are read.

An objective names the target of every network. When sampling, a mode chooses which outputs are
used: SM-Res-N ("res_noise") all of them, SM-Res ("res") only the residual, SM-N ("noise") only
the noise, and "x0" only the clean image.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcore.bounds import Positive
from jaxcore.errors import UserError
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.forward import Level
from jaxcore.serial import Serial

ObjectiveName = Literal[
    "pred_res_noise",
    "pred_res_add_noise",
    "pred_x0_noise",
    "pred_x0_add_noise",
    "pred_res",
    "pred_noise",
    "pred_x0",
]
Mode = Literal["res_noise", "res", "noise", "x0"]
TimeConditioning = Literal["index", "cumulative"]
LossName = Literal["l1", "l2"]

SEARCH = "auto_res_noise"
"""Name for the search between residual and noise (AOSA), which has a learnt weight."""


class Form(NamedTuple):
    """One objective: targets of its networks, and the modes it can be sampled in."""

    targets: tuple[str, ...]
    modes: tuple[Mode, ...]  # the first is the default


FORMS: Mapping[str, Form] = {
    "pred_res_noise": Form(("residual", "noise"), ("res_noise", "res", "noise")),
    "pred_res_add_noise": Form(("residual", "residual+noise"), ("res_noise", "res")),
    "pred_x0_noise": Form(("clean", "noise"), ("res_noise", "x0", "noise")),
    "pred_x0_add_noise": Form(("clean", "clean+noise"), ("res_noise", "x0")),
    "pred_res": Form(("residual",), ("res",)),
    "pred_noise": Form(("noise",), ("noise",)),
    "pred_x0": Form(("clean",), ("x0",)),
}


class Prediction(NamedTuple):
    """What one call of the networks gives."""

    residual: Array
    noise: Array
    clean: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Serial):
    """What the networks are trained to give; it may be left to a search (AOSA)."""

    name: ObjectiveName | Literal["auto_res_noise"] = "pred_res_noise"
    loss: LossName = "l1"
    time_conditioning: TimeConditioning = "index"  # "cumulative": independent of the schedule
    self_condition: bool = False  # show the last predicted clean image too
    # The residual lies in [-2, 2]. The released code cuts it at 1, which costs range where a dark
    # input has a bright target; 2 and None (no cut) are ours.
    residual_clip: Positive | None = 1.0

    def chosen(self, name: ObjectiveName | None = None, *, concat_input: bool) -> "RDDMObjective":
        """The objective, with the result ``name`` of the search where it was left to that."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(ObjectiveConfig)}
        fields["name"] = name or self.name
        return RDDMObjective(**fields, concat_input=concat_input)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RDDMObjective(ObjectiveConfig):
    """How the networks are called and their outputs read, in training and in sampling; hashable.

    >>> objective = RDDMObjective(name="pred_res_noise")
    >>> objective.num_outputs, objective.default_mode
    (2, 'res_noise')
    """

    name: ObjectiveName = "pred_res_noise"
    concat_input: bool = True  # False: the networks do not see I_in (image translation)

    @property
    def num_outputs(self) -> int:
        """Number of networks."""
        return len(FORMS[self.name].targets)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Modes it can be sampled in."""
        return FORMS[self.name].modes

    @property
    def default_mode(self) -> Mode:
        """All outputs are used."""
        return self.modes[0]

    def targets(
        self,
        clean: Float[Array, "b h w c"],
        residual: Float[Array, "b h w c"],
        noise: Float[Array, "b h w c"],
    ) -> tuple[Float[Array, "b h w c"], ...]:
        """What each network should have given."""
        parts = {"clean": clean, "residual": residual, "noise": noise}
        return tuple(
            parts[target] if target in parts else parts[target.removesuffix("+noise")] + noise
            for target in FORMS[self.name].targets
        )

    def check_mode(self, mode: Mode | None) -> Mode:
        """The given mode, or the default.

        Raises:
          UserError: the objective cannot be sampled in it.
        """
        if mode is None:
            return self.default_mode
        if mode not in self.modes:
            raise UserError(
                f"Expected a mode of {self.name} ({', '.join(self.modes)}), found {mode!r}."
            )
        return mode

    def check_outputs(self, outputs: tuple[Array, ...], x: Array) -> None:
        """Refuse another number of outputs, or outputs of another shape than the images."""
        shapes = [tuple(o.shape) for o in outputs]
        if shapes != [tuple(x.shape)] * self.num_outputs:
            raise UserError(
                f"Expected {self.num_outputs} network output(s) of shape {tuple(x.shape)} for "
                f"{self.name}, found {shapes}."
            )

    def predict(
        self,
        outputs: tuple[Float[Array, "b h w c"], ...],
        x: Float[Array, "b h w c"],
        degraded: Float[Array, "b h w c"],
        level: Level,
        *,
        mode: Mode | None = None,
        clip: bool = True,
    ) -> Prediction:
        """Read the outputs of the networks.

        As in the released code the residual is cut to ``residual_clip`` and the clean image to
        [-1, 1], in the order of its own formulas, and the noise is not derived again afterwards.

        Args:
          outputs: one per network.
          x: images at the present time.
          degraded: ``I_in``; zeros for generation.
          level: of the present time.
          mode: which outputs to use; None for all.
          clip: cut the residual and the clean image.
        """
        mode = self.check_mode(mode)
        self.check_outputs(outputs, x)
        first, last = outputs[0], outputs[-1]
        kind = FORMS[self.name].targets

        def cut(image: Array) -> Array:
            return jnp.clip(image, -1, 1) if clip else image

        def cut_residual(residual: Array) -> Array:
            bound = self.residual_clip
            return residual if bound is None or not clip else jnp.clip(residual, -bound, bound)

        if mode == "noise":
            clean = cut(forward.clean_from_noise(x, degraded, last, level))
            return Prediction(cut_residual(degraded - clean), last, clean)
        residual = cut_residual(first if kind[0] == "residual" else degraded - first)
        if mode in ("res", "x0"):
            noise = forward.noise_from_residual(x, degraded, residual, level)
            return Prediction(residual, noise, cut(degraded - residual))
        noise = last - first if kind[1].endswith("+noise") else last
        if kind[0] == "clean":
            return Prediction(residual, noise, cut(first))
        return Prediction(residual, noise, cut(forward.clean_from_both(x, residual, noise, level)))
