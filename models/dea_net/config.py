"""Sizes and options of DEA-Net."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from jaxcore.bounds import AtLeast, Count
from jaxcore.errors import UserError
from jaxcore.models.config import DType, NetworkConfig

Form = Literal["train", "deploy"]
Depths: TypeAlias = tuple[Count, Count, Count, Count, Count]

MULTIPLE = 4
"""Height and width of an input must be multiples of this: two halvings."""
LEAST = 16
"""Least height and width: a quarter of it is reflected by three pixels."""

BRANCHES = ("cdc", "hdc", "vdc", "adc")
"""Difference convolutions beside the vanilla one, in the order of the checkpoints."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DEANetConfig(NetworkConfig):
    """Everything that decides what the network computes.

    The defaults are the published network. ``form`` says how the detail-enhanced convolutions
    are stored: "train" as five sets of weights, "deploy" as the one kernel they add up to. Both
    run one convolution each and compute the same; see `reparameterize`.

    The fields from ``cdc`` to ``mixup`` switch parts of the published network off, to measure
    what they contribute; a switched-off part has no parameters.

    >>> cfg = DEANetConfig.small()
    >>> cfg.depths
    (3, 3, 6, 3, 3)
    >>> DEANetConfig.from_dict(cfg.to_dict()) == cfg
    True
    """

    title: ClassVar[str] = "DEA-Net"
    in_channels: ClassVar[int] = 3  # RGB in, RGB out

    base_dim: Annotated[int, AtLeast(2)] = (
        32  # channels at full resolution; doubled at each of two halvings
    )
    depths: Depths = (4, 4, 8, 4, 4)  # blocks of down 1, down 2, 3, up 2, up 1
    form: Form = "train"
    cdc: bool = True  # central difference convolution
    hdc: bool = True  # horizontal difference convolution
    vdc: bool = True  # vertical difference convolution
    adc: bool = True  # angular difference convolution
    cga: bool = True  # content-guided attention in the blocks of level 3
    mixup: bool = True  # attention weighs the maps that are fused; False adds them

    double_sigmoid: bool = True  # of the fusion's weights, as the released code has it
    global_residual: bool = False  # add the input to the output; eases short trainings
    dtype: DType = "float32"  # of activations; means, sigmoids' inputs and sums are not narrower
    param_dtype: DType = "float32"
    remat: bool = False  # recompute each block in the backward pass
    # One compiled body per level; False unrolls; None: a loop but on a GPU. Same parameters
    scan_blocks: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "deploy" and not all(getattr(self, name) for name in BRANCHES):
            raise UserError(
                "Merged kernels do not tell what they are the sum of: leave cdc, hdc, vdc and adc "
                "at true with form='deploy'."
            )

    @property
    def branches(self) -> tuple[str, ...]:
        """Difference convolutions that are switched on."""
        return tuple(name for name in BRANCHES if getattr(self, name))

    @classmethod
    def base(cls, **changes: Any) -> Self:
        """The published DEA-Net: 3.65 M parameters in the deploy form, 7.79 M in training."""
        return cls(**changes)

    @classmethod
    def small(cls, **changes: Any) -> Self:
        """The published DEA-Net-S: 2.84 M parameters in the deploy form."""
        return cls(**{"depths": (3, 3, 6, 3, 3), **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """A quarter of the width, with a residual: trains on a CPU; no published weights.

        Unrolled, which is a tenth faster on a CPU.
        """
        sizes = {"base_dim": 8, "depths": (1, 1, 2, 1, 1), "global_residual": True}
        return cls(**{**sizes, "scan_blocks": False, **changes})

    def deployed(self) -> Self:
        """The same network with merged kernels."""
        return dataclasses.replace(self, form="deploy", **dict.fromkeys(BRANCHES, True))
