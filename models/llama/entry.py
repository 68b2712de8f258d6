"""Decoders of the LLaMA family as the rest of the library knows them."""

from jaxcore.models.base import TokenNetwork
from jaxcore.models.llama import model
from jaxcore.models.llama import params as weights
from jaxcore.models.llama.config import LlamaConfig
from jaxcore.typing import Params, StateDict


class _Llama(TokenNetwork[LlamaConfig]):
    def from_torch(self, state_dict: StateDict, cfg: LlamaConfig) -> Params:
        return weights.from_torch(state_dict, cfg)


NETWORK = _Llama(
    name="llama",
    package="jaxcore.models.llama",
    config_class=LlamaConfig,
    draw=model.draw,
    apply=model.apply,
    tiny=LlamaConfig.tiny,
    presets={
        "vicuna_7b": LlamaConfig.vicuna_7b,
        "smollm2_135m": LlamaConfig.smollm2_135m,
        "qwen2_7b": LlamaConfig.qwen2_7b,
    },
    rules=weights.rules,
    recipes="jaxcore.train.recipes.llama",
    config_from_state_dict=weights.config_from_state_dict,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
