"""RDDM as the rest of the library knows it."""

from jaxcore.models.base import Network
from jaxcore.models.rddm import params, pipeline, unet
from jaxcore.models.rddm.config import PRESETS, RDDMConfig


class _RDDM(Network[RDDMConfig]):
    restore = staticmethod(pipeline.restore)
    from_torch = staticmethod(params.from_torch)
    to_torch = staticmethod(params.to_torch)


NETWORK = _RDDM(
    name="rddm",
    package="jaxcore.models.rddm",
    config_class=RDDMConfig,
    draw=unet.draw,
    apply=unet.apply,
    channels=lambda cfg: cfg.channels,
    multiple=lambda cfg: cfg.multiple,
    tiny=lambda: RDDMConfig.tiny(dim=8, groups=2, heads=1, dim_head=4),
    task="diffusion",
    recipes="jaxcore.train.recipes.rddm",
    presets=PRESETS,
    rules=params.RULES,
    config_from_state_dict=params.config_from_state_dict,
    trainable=unet.trainable,
    restores=lambda cfg: cfg.kind != "generation",
    restore_options=("steps", "seed", "condition"),
    searching=lambda cfg: cfg.searching,
    chosen=pipeline.chosen,
)
