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
from jaxcore.models.adair.frequency import (
    AFLB,
    ChannelGate,
    FrequencyMining,
    FrequencyModulation,
    SpatialGate,
)
from jaxcore.models.adair.model import AdaIR, apply, init
from jaxcore.models.adair.params import (
    RULES,
    config_from_state_dict,
    from_torch,
    to_torch,
    trainable,
)
from jaxcore.models.adair.pipeline import restore

__all__ = [
    "AFLB",
    "GDFN",
    "MDTA",
    "MULTIPLE",
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
    "restore",
    "to_torch",
    "trainable",
]
