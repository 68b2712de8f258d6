"""LLaVA-1.5 as the rest of the library knows it."""

from typing import Any

import numpy as np

from jaxcore.models.base import TokenNetwork
from jaxcore.models.llava import model
from jaxcore.models.llava import params as weights
from jaxcore.models.llava.config import LlavaConfig
from jaxcore.typing import Params, StateDict


class _Llava(TokenNetwork[LlavaConfig]):
    def from_torch(self, state_dict: StateDict, cfg: LlavaConfig, **options: Any) -> Params:
        return weights.from_torch(state_dict, cfg, **options)

    def to_torch(self, params: Params, cfg: LlavaConfig, **options: Any) -> dict[str, np.ndarray]:
        return weights.to_torch(params, cfg, **options)


NETWORK = _Llava(
    name="llava",
    package="jaxcore.models.llava",
    config_class=LlavaConfig,
    draw=model.draw,
    apply=model.apply,
    tiny=LlavaConfig.tiny,
    task="colour_questions",
    recipes="jaxcore.train.recipes.llava",
    presets={
        "llava_1_5_7b": LlavaConfig.llava_1_5_7b,
        "llava_1_5_13b": LlavaConfig.llava_1_5_13b,
        "original_7b": LlavaConfig.original_7b,
    },
    rules=weights.rules,
    config_from_state_dict=weights.config_from_state_dict,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = weights.from_torch, weights.to_torch
