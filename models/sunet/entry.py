"""SUNet as the rest of the library knows it."""

import numpy as np

from jaxcore.models.base import ImageNetwork
from jaxcore.models.sunet import model
from jaxcore.models.sunet import params as weights
from jaxcore.models.sunet.config import SUNetConfig
from jaxcore.typing import Params, StateDict


class _SUNet(ImageNetwork[SUNetConfig]):
    def from_torch(self, state_dict: StateDict, cfg: SUNetConfig) -> Params:
        return weights.from_torch(state_dict, cfg)

    def to_torch(self, params: Params, cfg: SUNetConfig) -> dict[str, np.ndarray]:
        return weights.to_torch(params, cfg)


NETWORK = _SUNet(
    name="sunet",
    package="jaxcore.models.sunet",
    config_class=SUNetConfig,
    draw=model.draw,
    apply=model.apply,
    channels=lambda cfg: cfg.in_channels,
    multiple=lambda cfg: cfg.multiple,
    tiny=SUNetConfig.tiny,
    recipes="jaxcore.train.recipes.sunet",
    rules=weights.rules,
    config_from_state_dict=weights.config_from_state_dict,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
restore = NETWORK.restore
