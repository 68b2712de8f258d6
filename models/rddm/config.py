"""RDDM's configuration: networks, schedule, objective, and what the networks are shown."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from jaxcore.bounds import Above, AtLeast, AtMost, Index, Positive
from jaxcore.errors import UserError
from jaxcore.models.config import NetworkConfig
from jaxcore.models.rddm.network.config import UnetConfig
from jaxcore.models.rddm.process.coefficients import DDPMName, Shape, Version
from jaxcore.models.rddm.process.objectives import FORMS, SEARCH, ObjectiveConfig, RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.serial import Serial

Kind = Literal["restoration", "translation", "generation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Serial):
    """How much residual and how much noise an image holds at each time; see `RDDMSchedule`.

    >>> len(ScheduleConfig(timesteps=100, ddpm="linear").make())
    100
    """

    timesteps: Annotated[int, AtLeast(2)] = 1000
    ddpm: DDPMName | None = None  # schedule of DDPM; then alpha, beta, ratios, version are unused
    alpha: Shape = "decreased"
    beta: Shape = "increased"
    ratio_a: Positive = 1.0
    ratio_b: Positive = 1.0
    version: Version = "v1"
    sum_scale: Annotated[float, Above(0), AtMost(1)] = 1.0  # noise variance at the end
    compat_last_one_minus_alpha: bool = True  # as the released code, see RDDMSchedule

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version == "v1" and self.ddpm is None:
            own = [self.ratio_a, self.ratio_b] != [1, 1] or "normal" in (self.alpha, self.beta)
            if own:
                raise UserError("Ratios and the shape 'normal' need version='v2', found 'v1'.")

    def make(self) -> RDDMSchedule:
        """Both schedules."""
        compat = self.compat_last_one_minus_alpha
        if self.ddpm is not None:
            return RDDMSchedule.from_ddpm(
                self.ddpm, self.timesteps, compat_last_one_minus_alpha=compat
            )
        return RDDMSchedule.polynomial(
            self.timesteps,
            alpha=self.alpha,
            beta=self.beta,
            ratio_a=self.ratio_a,
            ratio_b=self.ratio_b,
            sum_scale=self.sum_scale,
            version=self.version,
            compat_last_one_minus_alpha=compat,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RDDMConfig(NetworkConfig):
    """Everything that decides what the networks compute and how they are trained and sampled.

    A checkpoint does not tell the objective, the loss, the time conditioning and the groups, so an
    official file needs the variant it was trained as. The variants below take changes, in which a
    dict changes single fields of a part.

    >>> cfg = RDDMConfig.deraining(unet={"dim": 16})
    >>> cfg.num_unet, cfg.input_channels, cfg.multiple, cfg.unet.dim
    (2, 6, 8, 16)
    >>> RDDMConfig.from_dict(cfg.to_dict()) == cfg
    True
    """

    title: ClassVar[str] = "RDDM"

    unet: UnetConfig = dataclasses.field(default_factory=UnetConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)  # of training
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    kind: Kind = "restoration"  # translation: networks do not see I_in; generation: there is none
    condition_channels: Index = 0  # further channels shown to the networks, such as a mask

    def __post_init__(self) -> None:
        super().__post_init__()
        shared, objective = self.unet.share_encoder, self.objective
        if shared and self.num_unet != 2:
            raise UserError(
                f"share_encoder needs an objective of two outputs, found {objective.name}."
            )
        if shared and objective.time_conditioning != "index":
            raise UserError(
                "share_encoder needs time_conditioning='index', since its encoder takes one time; "
                f"found {objective.time_conditioning!r}."
            )
        if self.searching and (self.kind == "generation" or objective.self_condition):
            raise UserError(
                "The search of an objective needs restoration without self conditioning."
            )

    @classmethod
    def migrate(cls, data: dict[str, Any]) -> dict[str, Any]:
        """From the layout in which all fields stood side by side."""
        if "dim" not in data:
            return data
        data["name"] = data.pop("objective")
        del data["num_unet"]
        parts = {"unet": UnetConfig, "schedule": ScheduleConfig, "objective": ObjectiveConfig}
        for part, kind in parts.items():
            names = [f.name for f in dataclasses.fields(kind) if f.name in data]
            data[part] = {name: data.pop(name) for name in names}
        return data

    def replace(self, **changes: Any) -> Self:
        """A copy with other values; a dict changes single fields of a part.

        >>> RDDMConfig.tiny().replace(schedule={"timesteps": 10}).schedule.timesteps
        10
        """
        values = {
            name: dataclasses.replace(getattr(self, name), **value)
            if isinstance(value, Mapping)
            else value
            for name, value in changes.items()
        }
        return dataclasses.replace(self, **values)

    @property
    def num_unet(self) -> int:
        """Networks (or decoders): one output each."""
        return 1 if self.objective.name == SEARCH else len(FORMS[self.objective.name].targets)

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return self.unet.multiple

    @property
    def inputs(self) -> dict[str, int]:
        """Channels of the networks' input: what they are -> how many, in their order."""
        image = self.unet.channels
        parts = {
            "self conditioning": image * self.objective.self_condition,
            "I_t": image,
            "I_in": image * (self.kind == "restoration"),
            "conditions": self.condition_channels,
        }
        return {name: count for name, count in parts.items() if count}

    @property
    def input_channels(self) -> int:
        """Channels of the networks' input."""
        return sum(self.inputs.values())

    @property
    def input_description(self) -> str:
        """In words, what the channels of the input are."""
        return " + ".join(f"{name} {count}" for name, count in self.inputs.items())

    @property
    def searching(self) -> bool:
        """Whether the objective is still to be found (AOSA)."""
        return self.objective.name == SEARCH

    def make_objective(self) -> RDDMObjective:
        """How the networks are called and their outputs read.

        Raises:
          UserError: the objective is still to be found.
        """
        if self.searching:
            raise UserError(
                f"Expected a chosen objective ({', '.join(FORMS)}), found {SEARCH}, whose search "
                "has no result yet."
            )
        return self.objective.chosen(concat_input=self.kind == "restoration")

    @classmethod
    def deraining(cls, **changes: Any) -> Self:
        """Experiment 2 (RainDrop): two networks, residual and noise; 5 steps."""
        return cls().replace(**changes)

    @classmethod
    def low_light(cls, **changes: Any) -> Self:
        """The paper's low light (LOL, SID): one network, the residual; 2 steps."""
        return cls(objective=ObjectiveConfig(name="pred_res")).replace(**changes)

    @classmethod
    def shadow_removal(cls, **changes: Any) -> Self:
        """The paper's shadow removal (ISTD): one network, the noise, a mask shown; 5 steps."""
        return cls(
            schedule=ScheduleConfig(sum_scale=0.01),
            objective=ObjectiveConfig(name="pred_noise"),
            condition_channels=3,
        ).replace(**changes)

    @classmethod
    def deblurring(cls, **changes: Any) -> Self:
        """The paper's deblurring (GoPro): as deraining; 2 steps."""
        return cls.deraining(**changes)

    @classmethod
    def objective_search(cls, **changes: Any) -> Self:
        """Experiment 3 (AOSA): one network and a weight that chooses its objective."""
        return cls(
            schedule=ScheduleConfig(ddpm="linear"), objective=ObjectiveConfig(name=SEARCH)
        ).replace(**changes)

    @classmethod
    def inpainting(cls, **changes: Any) -> Self:
        """Experiment 4 (CelebA-HQ 64, centre mask): networks see neither mask nor input."""
        return cls(
            schedule=ScheduleConfig(version="v2"),
            objective=ObjectiveConfig(loss="l2", time_conditioning="cumulative"),
            kind="translation",
        ).replace(**changes)

    @classmethod
    def translation(cls, **changes: Any) -> Self:
        """Experiment 5 (dogs to cats, 64): networks do not see the input."""
        return cls(
            schedule=ScheduleConfig(ddpm="linear"),
            objective=ObjectiveConfig(loss="l2", time_conditioning="cumulative"),
            kind="translation",
        ).replace(**changes)

    @classmethod
    def generation(cls, **changes: Any) -> Self:
        """Experiment 6 (CelebA 64), the paper's second table."""
        return cls(
            schedule=ScheduleConfig(version="v2"),
            objective=ObjectiveConfig(loss="l2"),
            kind="generation",
        ).replace(**changes)

    @classmethod
    def path_independence(cls, **changes: Any) -> Self:
        """Experiment 0 (CelebA 64): generation whose networks do not depend on the schedule."""
        return cls.translation(kind="generation").replace(**changes)

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """A network of two levels and 0.4 M parameters for the residual; trains on a CPU."""
        return cls.low_light(unet={"dim": 16, "dim_mults": (1, 2)}).replace(**changes)


PRESETS = {
    "deraining": RDDMConfig.deraining,
    "low_light": RDDMConfig.low_light,
    "shadow_removal": RDDMConfig.shadow_removal,
    "deblurring": RDDMConfig.deblurring,
    "objective_search": RDDMConfig.objective_search,
    "inpainting": RDDMConfig.inpainting,
    "translation": RDDMConfig.translation,
    "generation": RDDMConfig.generation,
    "path_independence": RDDMConfig.path_independence,
}
"""Name of an experiment -> its configuration, for weights that do not hold theirs."""

DEFAULT_STEPS: Mapping[str, int] = {
    "pred_res_noise": 5,
    "pred_res": 2,
    "pred_noise": 5,
}
"""Steps of a sampler that the released scripts use for restoration with an objective."""
