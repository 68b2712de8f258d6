"""RDDM as the rest of the library knows it."""

from typing import Any

import numpy as np

from jaxcore.models.base import Network
from jaxcore.models.rddm import model, pipeline
from jaxcore.models.rddm import params as weights
from jaxcore.models.rddm.config import PRESETS, RDDMConfig
from jaxcore.typing import Params, StateDict


class _RDDM(Network[RDDMConfig]):
    def from_torch(self, state_dict: StateDict, cfg: RDDMConfig) -> Params:
        return weights.from_torch(state_dict, cfg)

    def to_torch(self, params: Params, cfg: RDDMConfig) -> dict[str, np.ndarray]:
        return weights.to_torch(params, cfg)

    def restore(
        self, params: Params, image: np.ndarray, cfg: RDDMConfig, **options: Any
    ) -> np.ndarray:
        return pipeline.restore(params, image, cfg, **options)


NETWORK = _RDDM(
    name="rddm",
    package="jaxcore.models.rddm",
    config_class=RDDMConfig,
    draw=model.draw,
    apply=model.apply,
    channels=lambda cfg: cfg.unet.channels,
    multiple=lambda cfg: cfg.multiple,
    tiny=lambda: RDDMConfig.tiny(unet={"dim": 8, "groups": 2, "heads": 1, "dim_head": 4}),
    task="diffusion",
    recipes="jaxcore.train.recipes.rddm",
    presets=PRESETS,
    rules=weights.RULES,
    config_from_state_dict=weights.config_from_state_dict,
    trainable=model.trainable,
    start=weights.start,
    restores=lambda cfg: cfg.kind != "generation",
    restore_options=("steps", "seed", "condition"),
    searching=lambda cfg: cfg.searching,
    chosen=pipeline.chosen,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
