"""Sizes of RDDM's networks, and what they are trained and asked for."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args

from jaxcore.errors import UserError
from jaxcore.models.config import (
    DType,
    NetworkConfig,
    check_choices,
    check_counts,
    check_flags,
    check_positive,
    is_count,
)
from jaxcore.models.rddm.process.coefficients import DDPMName, Shape, Version
from jaxcore.models.rddm.process.objectives import (
    FORMS,
    LossName,
    ObjectiveName,
    RDDMObjective,
    TimeConditioning,
)
from jaxcore.models.rddm.process.schedule import RDDMSchedule

Kind = Literal["restoration", "translation", "generation"]
TimeEmbedding = Literal["sinusoidal", "learned", "random"]

SEARCH = "auto_res_noise"
"""Objective of the search between residual and noise (AOSA), which has a learnt weight."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RDDMConfig(NetworkConfig):
    """Everything that decides what the networks compute and how they are trained and sampled.

    Fields down to ``learned_frequencies`` fix the parameters. A checkpoint does not tell the
    objective, the loss, the time conditioning and the groups, so an official file needs the
    variant it was trained as.

    >>> cfg = RDDMConfig.deraining()
    >>> cfg.num_unet, cfg.input_channels, cfg.multiple
    (2, 6, 8)
    >>> RDDMConfig.from_dict(cfg.to_dict()) == cfg
    True
    """

    title: ClassVar[str] = "RDDM"

    dim: int = 64  # channels at full resolution
    dim_mults: tuple[int, ...] = (1, 2, 4, 8)  # channels per level, in units of dim
    channels: int = 3  # of an image
    groups: int = 8  # of the group norms
    heads: int = 4
    dim_head: int = 32
    num_unet: int = 2  # networks: one output each
    share_encoder: bool = False  # two decoders behind one encoder instead of two networks
    kind: Kind = "restoration"  # translation: networks do not see I_in; generation: there is none
    condition_channels: int = 0  # further channels shown to the networks, such as a mask
    self_condition: bool = False  # show the last estimate of the clean image too
    time_embedding: TimeEmbedding = "sinusoidal"  # "learned", "random": Fourier features
    learned_frequencies: int = 8  # of the Fourier features

    objective: ObjectiveName | Literal["auto_res_noise"] = "pred_res_noise"
    loss: LossName = "l1"
    time_conditioning: TimeConditioning = "index"  # "cumulative": independent of the schedule
    residual_clip: float | None = 1.0  # see RDDMObjective

    timesteps: int = 1000
    ddpm: DDPMName | None = None  # schedule of DDPM; then alpha, beta, ratios, version are unused
    alpha: Shape = "decreased"
    beta: Shape = "increased"
    ratio_a: float = 1.0
    ratio_b: float = 1.0
    version: Version = "v1"
    sum_scale: float = 1.0  # noise variance at the end
    compat_last_one_minus_alpha: bool = True  # as the released code, see RDDMSchedule

    eps: float = 1e-5  # of weight standardisation and layer norms; official: 1e-3 below float32
    dtype: DType = "float32"  # of activations; statistics, softmax and the time stay in float32
    param_dtype: DType = "float32"
    remat: bool = False  # recompute each block in the backward pass

    def __post_init__(self):
        _check_types(self)
        _check_ranges(self)
        _check_objective(self)

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return 2 ** (len(self.dim_mults) - 1)

    @property
    def input_channels(self) -> int:
        """Channels of the networks' input: self conditioning, I_t, I_in, further conditions."""
        images = 1 + (self.kind == "restoration") + self.self_condition
        return self.channels * images + self.condition_channels

    @property
    def input_description(self) -> str:
        """In words, what the channels of the input are."""
        parts = [(self.self_condition, "self conditioning"), (True, "I_t")]
        parts += [(self.kind == "restoration", "I_in")]
        named = [f"{name} {self.channels}" for present, name in parts if present]
        if self.condition_channels:
            named.append(f"conditions {self.condition_channels}")
        return " + ".join(named)

    @property
    def searching(self) -> bool:
        """Whether the objective is still to be found (AOSA)."""
        return self.objective == SEARCH

    def make_schedule(self) -> RDDMSchedule:
        """Both schedules, of training."""
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

    def make_objective(self) -> RDDMObjective:
        """How the networks are asked and read.

        Raises:
          UserError: the objective is still to be found.
        """
        if self.searching:
            raise UserError(
                f"Expected a chosen objective ({', '.join(FORMS)}), found {self.objective}, whose "
                "search has no result yet."
            )
        return RDDMObjective(
            name=self.objective,  # type: ignore[arg-type]  # checked above
            loss=self.loss,
            time_conditioning=self.time_conditioning,
            concat_input=self.kind == "restoration",
            self_condition=self.self_condition,
            residual_clip=self.residual_clip,
        )

    @classmethod
    def deraining(cls, **changes: Any) -> Self:
        """Experiment 2 (RainDrop): two networks, residual and noise; 5 steps."""
        return cls(**changes)

    @classmethod
    def low_light(cls, **changes: Any) -> Self:
        """The paper's low light (LOL, SID): one network, the residual; 2 steps."""
        return cls(**{"num_unet": 1, "objective": "pred_res", **changes})

    @classmethod
    def shadow_removal(cls, **changes: Any) -> Self:
        """The paper's shadow removal (ISTD): one network, the noise, a mask shown; 5 steps."""
        fields = {"num_unet": 1, "objective": "pred_noise", "sum_scale": 0.01}
        return cls(**{**fields, "condition_channels": 3, **changes})

    @classmethod
    def deblurring(cls, **changes: Any) -> Self:
        """The paper's deblurring (GoPro): as deraining; 2 steps."""
        return cls(**changes)

    @classmethod
    def objective_search(cls, **changes: Any) -> Self:
        """Experiment 3 (AOSA): one network and a weight that chooses its objective."""
        fields = {"num_unet": 1, "objective": SEARCH, "ddpm": "linear"}
        return cls(**{**fields, **changes})

    @classmethod
    def inpainting(cls, **changes: Any) -> Self:
        """Experiment 4 (CelebA-HQ 64, centre mask): networks see neither mask nor input."""
        fields = {"kind": "translation", "loss": "l2", "time_conditioning": "cumulative"}
        return cls(**{**fields, "version": "v2", **changes})

    @classmethod
    def translation(cls, **changes: Any) -> Self:
        """Experiment 5 (dogs to cats, 64): networks do not see the input."""
        fields = {"kind": "translation", "loss": "l2", "time_conditioning": "cumulative"}
        return cls(**{**fields, "ddpm": "linear", **changes})

    @classmethod
    def generation(cls, **changes: Any) -> Self:
        """Experiment 6 (CelebA 64), the paper's second table."""
        fields = {"kind": "generation", "loss": "l2", "version": "v2"}
        return cls(**{**fields, **changes})

    @classmethod
    def path_independence(cls, **changes: Any) -> Self:
        """Experiment 0 (CelebA 64): generation whose networks do not depend on the schedule."""
        fields = {"kind": "generation", "loss": "l2", "time_conditioning": "cumulative"}
        return cls(**{**fields, "ddpm": "linear", **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """A network of one level and 0.4 M parameters for the residual; trains on a CPU."""
        sizes = {"dim": 16, "dim_mults": (1, 2), "num_unet": 1, "objective": "pred_res"}
        return cls(**{**sizes, **changes})


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
"""Name of an experiment -> its configuration, for weights that do not tell theirs."""

DEFAULT_STEPS: Mapping[str, int] = {
    "pred_res_noise": 5,
    "pred_res": 2,
    "pred_noise": 5,
}
"""Steps of a sampler that the released scripts use for restoration with an objective."""

_CHOICES = {
    "kind": Kind,
    "time_embedding": TimeEmbedding,
    "loss": LossName,
    "time_conditioning": TimeConditioning,
    "alpha": Shape,
    "beta": Shape,
    "version": Version,
    "dtype": DType,
    "param_dtype": DType,
}
_FLAGS = ("share_encoder", "self_condition", "compat_last_one_minus_alpha", "remat")
_COUNTS = {
    **dict.fromkeys(("dim", "channels", "groups", "heads", "dim_head", "num_unet"), 1),
    **{"condition_channels": 0, "learned_frequencies": 1, "timesteps": 2},
}


def _check_types(cfg: RDDMConfig) -> None:
    choices = {name: get_args(values) for name, values in _CHOICES.items()}
    choices |= {"objective": (*FORMS, SEARCH), "ddpm": (None, *get_args(DDPMName))}
    check_choices(cfg, choices)
    check_flags(cfg, _FLAGS)
    check_counts(cfg, _COUNTS)
    check_positive(cfg, ("ratio_a", "ratio_b", "sum_scale", "eps"))
    mults = cfg.dim_mults
    if not (isinstance(mults, tuple) and mults and all(map(is_count, mults))):
        raise UserError(f"dim_mults must be positive whole numbers, found {mults!r}.")


def _check_ranges(cfg: RDDMConfig) -> None:
    if cfg.sum_scale > 1:
        raise UserError(f"sum_scale must be at most 1, found {cfg.sum_scale}.")
    if cfg.version == "v1" and cfg.ddpm is None:
        own = [cfg.ratio_a, cfg.ratio_b] != [1, 1] or "normal" in (cfg.alpha, cfg.beta)
        if own:
            raise UserError("Ratios and the shape 'normal' need version='v2', found 'v1'.")
    if cfg.dim % 2 or (cfg.dim < 4 and cfg.time_embedding == "sinusoidal"):
        raise UserError(f"dim must be even and at least 4, found {cfg.dim}.")
    for width in {cfg.dim, *(cfg.dim * m for m in cfg.dim_mults)}:
        if width % cfg.groups:
            raise UserError(f"{width} channels cannot be divided into {cfg.groups} groups.")


def _check_objective(cfg: RDDMConfig) -> None:
    needed = 1 if cfg.searching else len(FORMS[cfg.objective].targets)
    if cfg.num_unet != needed:
        raise UserError(
            f"num_unet must be {needed} for the objective {cfg.objective}, found {cfg.num_unet}."
        )
    if cfg.share_encoder and cfg.num_unet != 2:
        raise UserError("share_encoder needs two outputs (num_unet=2), found one.")
    if cfg.share_encoder and cfg.time_conditioning != "index":
        raise UserError(
            "share_encoder needs time_conditioning='index', since its encoder is told one time; "
            f"found {cfg.time_conditioning!r}."
        )
    if cfg.searching and (cfg.kind == "generation" or cfg.self_condition):
        raise UserError("The search of an objective needs restoration without self conditioning.")
    clip = cfg.residual_clip
    if clip is not None and not clip > 0:
        raise UserError(f"residual_clip must be positive or None, found {clip!r}.")
