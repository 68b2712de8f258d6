"""The vision transformer as the rest of the library knows it."""

from jaxcore.models.regression import RegressionNetwork
from jaxcore.models.vit import model
from jaxcore.models.vit import params as weights
from jaxcore.models.vit.config import ViTConfig
from jaxcore.typing import Params, StateDict


class _ViT(RegressionNetwork[ViTConfig]):
    def from_torch(self, state_dict: StateDict, cfg: ViTConfig) -> Params:
        return weights.from_torch(state_dict, cfg)


NETWORK = _ViT(
    name="vit",
    package="jaxcore.models.vit",
    config_class=ViTConfig,
    draw=model.draw,
    apply=model.apply,
    features=model.features,
    learn=model.learn,
    channels=lambda cfg: cfg.in_channels,
    multiple=lambda cfg: 1,
    least=lambda cfg: cfg.least,
    tiny=ViTConfig.tiny,
    rules=weights.RULES,
    config_from_state_dict=weights.config_from_state_dict,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
