"""The network of the paper of 2023 as the rest of the library knows it."""

from jaxcore.models.convnet.cnn2023 import model
from jaxcore.models.convnet.cnn2023 import params as weights
from jaxcore.models.convnet.cnn2023.config import CNN2023Config
from jaxcore.models.regression import RegressionNetwork

NETWORK = RegressionNetwork(
    name="cnn2023",
    package="jaxcore.models.convnet.cnn2023",
    config_class=CNN2023Config,
    draw=model.draw,
    apply=model.apply,
    features=model.features,
    learn=model.learn,
    collections=model.CARRIED,
    channels=lambda cfg: cfg.in_channels,
    multiple=lambda cfg: 1,
    least=lambda cfg: cfg.least,
    tiny=CNN2023Config.tiny,
    rules=weights.RULES,
    config_from_state_dict=weights.config_from_state_dict,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
