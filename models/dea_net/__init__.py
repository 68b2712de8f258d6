"""DEA-Net; see README.md beside this file."""

from jaxcore.models.dea_net.blocks import (
    CGAFusion,
    ChannelAttention,
    ContentGuidedAttention,
    DEABlock,
    DEBlock,
    PixelAttention,
    SpatialAttention,
)
from jaxcore.models.dea_net.config import BRANCHES, LEAST, MULTIPLE, DEANetConfig
from jaxcore.models.dea_net.contrastive import (
    VGG19Features,
    contrastive_regularization,
    vgg19_from_torch,
    vgg19_to_torch,
)
from jaxcore.models.dea_net.deconv import DEConv, effective_kernel, merge, reparameterize
from jaxcore.models.dea_net.entry import (
    NETWORK,
    dehaze,
    from_torch,
    init,
    param_shapes,
    restore,
    to_torch,
)
from jaxcore.models.dea_net.model import DEANet, apply
from jaxcore.models.dea_net.params import (
    RULES,
    config_from_state_dict,
    deploy,
    form_of,
    start,
)

__all__ = [
    "BRANCHES",
    "LEAST",
    "MULTIPLE",
    "NETWORK",
    "RULES",
    "CGAFusion",
    "ChannelAttention",
    "ContentGuidedAttention",
    "DEABlock",
    "DEANet",
    "DEANetConfig",
    "DEBlock",
    "DEConv",
    "PixelAttention",
    "SpatialAttention",
    "VGG19Features",
    "apply",
    "config_from_state_dict",
    "contrastive_regularization",
    "dehaze",
    "deploy",
    "effective_kernel",
    "form_of",
    "from_torch",
    "init",
    "merge",
    "param_shapes",
    "reparameterize",
    "restore",
    "start",
    "to_torch",
    "vgg19_from_torch",
    "vgg19_to_torch",
]
