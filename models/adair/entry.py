"""AdaIR as the rest of the library knows it."""

from jaxcore.models.adair import model, params
from jaxcore.models.adair.config import MULTIPLE, AdaIRConfig
from jaxcore.models.base import ImageNetwork

NETWORK = ImageNetwork(
    name="adair",
    package="jaxcore.models.adair",
    config_class=AdaIRConfig,
    draw=model.draw,
    apply=model.apply,
    channels=lambda cfg: cfg.in_channels,
    multiple=lambda cfg: MULTIPLE,
    tiny=lambda: AdaIRConfig.tiny(dim=8, heads=(1, 1, 1, 1)),
    recipes="jaxcore.train.recipes.adair",
    rules=params.RULES,
    config_from_state_dict=params.config_from_state_dict,
    trainable=params.trainable,
    restore_changes=("stat_window",),
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
restore = NETWORK.restore
