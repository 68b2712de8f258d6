"""Sizes and options of AdaIR and, with ``decoder=False``, of Restormer."""

import dataclasses
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args

from jaxcore.bounds import Count, Positive
from jaxcore.errors import UserError
from jaxcore.models.config import DType, NetworkConfig

MaskMode = Literal["official", "fixed", "ratio", "soft"]
NormType = Literal["WithBias", "BiasFree"]
Spectral = Literal["fft", "matrix"]
Preset = Literal["official", "fixed"]
Levels: TypeAlias = tuple[Count, Count, Count, Count]

MULTIPLE = 8
"""Height and width of an input must be multiples of this: three halvings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaIRConfig(NetworkConfig):
    """Everything that decides what the network computes.

    The defaults are the published network. Fields down to ``decoder`` fix the parameters, so a
    checkpoint fits only a configuration that agrees in them; the others change the computation.

    The official code derives the size of the low-frequency window by whole-number arithmetic
    that makes it empty on nearly every image and lets no gradient through (``mask_mode=
    "official"``). "fixed" is the constant window of the paper's ablation; "ratio" and "soft" are
    extensions of this library: "ratio" scales the window to the map, so that it is non-empty at
    training size, but still cuts the gradient; "soft" has a logistic edge, and its threshold
    learns.

    >>> cfg = AdaIRConfig.five_task()
    >>> cfg.dim, cfg.num_blocks, cfg.mask_mode
    (48, (4, 6, 6, 8), 'official')
    >>> AdaIRConfig.from_dict(cfg.to_dict()) == cfg
    True
    """

    title: ClassVar[str] = "AdaIR"

    in_channels: Count = 3
    out_channels: Count = 3  # equal to in_channels: the input is added to the output
    dim: Count = 48  # channels at full resolution; doubled at each of three halvings
    num_blocks: Levels = (4, 6, 6, 8)  # per level; the last is the latent
    num_refinement_blocks: Count = 4
    heads: Levels = (1, 2, 4, 8)  # per level; every AFLB takes the third
    ffn_expansion: Positive = 2.66
    bias: bool = False  # in attention, feed-forward, channel reduction and output convolutions
    norm_type: NormType = "WithBias"
    decoder: bool = True  # False: no frequency blocks at all, which is Restormer

    mask_mode: MaskMode = "official"
    mask_unit: Count = 128  # "official": map size per unit of half width, in pixels
    mask_side: Count = 10  # "fixed": side of the window, in frequency bins
    soft_tau: Positive = 1.0  # "soft": width of the window's edge, in frequency bins
    skip_empty_mask: bool = True  # leave out spectral work where a window is empty for any t < 1
    spectral: Spectral = "fft"  # "matrix": two products with the window's kernel, no FFT

    stat_window: Count | None = None  # side, in input pixels, of windows for attention and pools
    dtype: DType = "float32"  # of activations; norms, softmax, Gram and FFT stay in float32
    param_dtype: DType = "float32"
    remat: bool = False  # recompute each block in the backward pass
    # One compiled body per level; False unrolls; None: a loop but on a GPU. Same parameters
    scan_blocks: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ranges(self)
        _check_divisibility(self)

    @classmethod
    def five_task(cls, *, preset: Preset = "official", **changes: Any) -> Self:
        """Network of the five-degradation model: noise, rain, haze, blur, low light.

        All published AdaIR models share one architecture, so this, :meth:`three_task` and
        :meth:`single_task` differ only in name.

        Args:
          preset: "official" computes what the released code computes; "fixed" takes the soft
            window, whose threshold learns.
          **changes: fields to replace.
        """
        if preset not in get_args(Preset):
            raise UserError(f"preset must be 'official' or 'fixed', found {preset!r}.")
        mask_mode = "official" if preset == "official" else "soft"
        return cls(**{"mask_mode": mask_mode, **changes})

    @classmethod
    def three_task(cls, *, preset: Preset = "official", **changes: Any) -> Self:
        """Network of the three-degradation model: noise, rain, haze."""
        return cls.five_task(preset=preset, **changes)

    @classmethod
    def single_task(cls, *, preset: Preset = "official", **changes: Any) -> Self:
        """Network of the single-degradation models."""
        return cls.five_task(preset=preset, **changes)

    @classmethod
    def restormer(cls, **changes: Any) -> Self:
        """Restormer: no frequency blocks, norms with bias."""
        return cls(**{"decoder": False, **changes})

    @classmethod
    def restormer_bias_free(cls, **changes: Any) -> Self:
        """Restormer as released for Gaussian and real denoising: bias-free norms."""
        return cls(**{"decoder": False, "norm_type": "BiasFree", **changes})

    @classmethod
    def base(cls, **changes: Any) -> Self:
        """The published width and depth: 28.8 M parameters."""
        return cls(**changes)

    @classmethod
    def small(cls, **changes: Any) -> Self:
        """Half the width and half the depth: 4.5 M parameters; no published weights."""
        sizes = {"dim": 24, "num_blocks": (2, 3, 3, 4), "num_refinement_blocks": 2}
        return cls(**{**sizes, **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """A third of the width, one block per level: 1.1 M parameters; trains on a CPU."""
        sizes = {"dim": 16, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}
        return cls(**{**sizes, **changes})


def _check_ranges(cfg: AdaIRConfig) -> None:
    if cfg.stat_window is not None and cfg.stat_window % MULTIPLE:
        raise UserError(
            f"stat_window must be None or a multiple of {MULTIPLE}, found {cfg.stat_window}."
        )
    if cfg.in_channels != cfg.out_channels:
        raise UserError(
            "out_channels must equal in_channels, because the input is added to the output; "
            f"found {cfg.out_channels} and {cfg.in_channels}."
        )


def _check_divisibility(cfg: AdaIRConfig) -> None:
    if cfg.dim % 2:
        raise UserError(f"dim must be even, found {cfg.dim}.")
    uses = [(cfg.dim * 2**level, heads) for level, heads in enumerate(cfg.heads)]
    if cfg.decoder:
        if cfg.dim < 8:
            raise UserError(f"dim must be at least 8 with decoder=True, found {cfg.dim}.")
        uses += [(cfg.dim * factor, cfg.heads[2]) for factor in (2, 4, 8)]
    for width, heads in uses:
        if width % heads:
            raise UserError(f"{width} channels cannot be divided among {heads} heads.")
