"""AdaIR and Restormer; see README.md beside this file."""

from jaxcore.models.adair.blocks import (
    GDFN,
    MDTA,
    ChannelCrossAttention,
    Downsample,
    TransformerBlock,
    Upsample,
)
from jaxcore.models.adair.config import MULTIPLE, AdaIRConfig
from jaxcore.models.adair.entry import (
    NETWORK,
    from_torch,
    init,
    param_shapes,
    restore,
    to_torch,
)
from jaxcore.models.adair.frequency import (
    AFLB,
    ChannelGate,
    FrequencyMining,
    FrequencyModulation,
    SpatialGate,
)
from jaxcore.models.adair.model import AdaIR, apply
from jaxcore.models.adair.params import (
    RULES,
    config_from_state_dict,
    trainable,
)

__all__ = [
    "AFLB",
    "GDFN",
    "MDTA",
    "MULTIPLE",
    "NETWORK",
    "RULES",
    "AdaIR",
    "AdaIRConfig",
    "ChannelCrossAttention",
    "ChannelGate",
    "Downsample",
    "FrequencyMining",
    "FrequencyModulation",
    "SpatialGate",
    "TransformerBlock",
    "Upsample",
    "apply",
    "config_from_state_dict",
    "from_torch",
    "init",
    "param_shapes",
    "restore",
    "to_torch",
    "trainable",
]
