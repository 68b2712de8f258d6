"""SUNet; see README.md beside this file."""

from jaxcore.models.sunet.blocks import (
    MLP,
    DualUp,
    Linear,
    PatchMerging,
    PReLU,
    SwinBlock,
    SwinPair,
    WindowAttention,
)
from jaxcore.models.sunet.config import SUNetConfig
from jaxcore.models.sunet.entry import (
    NETWORK,
    from_torch,
    init,
    param_shapes,
    restore,
    to_torch,
)
from jaxcore.models.sunet.model import SUNet, apply
from jaxcore.models.sunet.params import PREFIX, buffers, config_from_state_dict, rules
from jaxcore.models.sunet.pipeline import (
    STEPS,
    Deconvolved,
    Ensemble,
    Normalised,
    deconvolve,
    deconvolve_ensemble,
    normalise,
)
from jaxcore.models.sunet.windows import merge, partition, relative_index, shift_mask

__all__ = [
    "MLP",
    "NETWORK",
    "PREFIX",
    "STEPS",
    "Deconvolved",
    "DualUp",
    "Ensemble",
    "Linear",
    "Normalised",
    "PReLU",
    "PatchMerging",
    "SUNet",
    "SUNetConfig",
    "SwinBlock",
    "SwinPair",
    "WindowAttention",
    "apply",
    "buffers",
    "config_from_state_dict",
    "deconvolve",
    "deconvolve_ensemble",
    "from_torch",
    "init",
    "merge",
    "normalise",
    "param_shapes",
    "partition",
    "relative_index",
    "restore",
    "rules",
    "shift_mask",
    "to_torch",
]
