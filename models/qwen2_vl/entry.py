"""Qwen2-VL as the rest of the library knows it."""

from typing import Any

import numpy as np

from jaxcore.models.base import TokenNetwork
from jaxcore.models.qwen2_vl import model
from jaxcore.models.qwen2_vl import params as weights
from jaxcore.models.qwen2_vl.config import Qwen2VLConfig
from jaxcore.typing import Params, StateDict


class _Qwen2VL(TokenNetwork[Qwen2VLConfig]):
    def from_torch(self, state_dict: StateDict, cfg: Qwen2VLConfig, **options: Any) -> Params:
        return weights.from_torch(state_dict, cfg, **options)

    def to_torch(self, params: Params, cfg: Qwen2VLConfig, **options: Any) -> dict[str, np.ndarray]:
        return weights.to_torch(params, cfg, **options)


NETWORK = _Qwen2VL(
    name="qwen2_vl",
    package="jaxcore.models.qwen2_vl",
    config_class=Qwen2VLConfig,
    draw=model.draw,
    apply=model.apply,
    tiny=Qwen2VLConfig.tiny,
    presets={
        "qwen2_vl_7b": Qwen2VLConfig.qwen2_vl_7b,
        "qwen2_vl_2b": Qwen2VLConfig.qwen2_vl_2b,
    },
    rules=weights.rules,
    config_from_state_dict=weights.config_from_state_dict,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = weights.from_torch, weights.to_torch
