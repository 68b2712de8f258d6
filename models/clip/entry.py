"""CLIP's image part as the rest of the library knows it."""

from jaxcore.models.base import Network
from jaxcore.models.clip import model
from jaxcore.models.clip import params as weights
from jaxcore.models.clip.config import CLIPConfig
from jaxcore.typing import Params, StateDict


class _CLIP(Network[CLIPConfig]):
    def from_torch(self, state_dict: StateDict, cfg: CLIPConfig) -> Params:
        return weights.from_torch(state_dict, cfg)


NETWORK = _CLIP(
    name="clip",
    package="jaxcore.models.clip",
    config_class=CLIPConfig,
    draw=model.draw,
    apply=model.apply,
    channels=lambda cfg: cfg.in_channels,
    multiple=lambda cfg: cfg.image_size,
    tiny=CLIPConfig.tiny,
    task="",
    rules=weights.rules,
    config_from_state_dict=weights.config_from_state_dict,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
