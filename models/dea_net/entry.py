"""DEA-Net as the rest of the library knows it."""

import numpy as np
from jaxtyping import Float

from jaxcore.models.base import ImageNetwork
from jaxcore.models.dea_net import model, params
from jaxcore.models.dea_net.config import LEAST, MULTIPLE, DEANetConfig
from jaxcore.typing import Params, StateDict


class _DEANet(ImageNetwork[DEANetConfig]):
    def from_torch(self, state_dict: StateDict, cfg: DEANetConfig) -> Params:
        """Official weights as our parameters; see `Network.from_torch`.

        Raises:
          UserError: weights of the other form, too.
        """
        if any(key.endswith("conv2.weight") for key in state_dict):
            params.check_form(params.form_of(state_dict), cfg.form)
        return super().from_torch(state_dict, cfg)


NETWORK = _DEANet(
    name="dea_net",
    package="jaxcore.models.dea_net",
    config_class=DEANetConfig,
    draw=model.draw,
    apply=model.apply,
    channels=lambda cfg: cfg.in_channels,
    multiple=lambda cfg: MULTIPLE,
    least=lambda cfg: LEAST,
    tiny=DEANetConfig.tiny,
    recipes="jaxcore.train.recipes.dea_net",
    rules=params.RULES,
    config_from_state_dict=params.config_from_state_dict,
    start=params.start,
    deploy=params.deploy,
    apart=params.apart,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
restore = NETWORK.restore


def dehaze(
    params: Params,
    image: Float[np.ndarray, "*b h w 3"],
    cfg: DEANetConfig,
    tile: int | None = None,
) -> Float[np.ndarray, "*b h w 3"]:
    """:func:`restore`, clipped to [0, 1] as the published evaluation does."""
    return np.clip(restore(params, image, cfg, tile=tile), 0, 1)
