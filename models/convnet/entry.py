"""The depthwise-separable network as the rest of the library knows it."""

from jaxcore.models.convnet import model
from jaxcore.models.convnet import params as weights
from jaxcore.models.convnet.config import ConvNetConfig
from jaxcore.models.regression import RegressionNetwork

NETWORK = RegressionNetwork(
    name="convnet",
    package="jaxcore.models.convnet",
    config_class=ConvNetConfig,
    draw=model.draw,
    apply=model.apply,
    features=model.features,
    learn=model.learn,
    collections=model.CARRIED,
    channels=lambda cfg: cfg.in_channels,
    multiple=lambda cfg: 1,
    least=lambda cfg: cfg.least,
    tiny=ConvNetConfig.tiny,
    rules=weights.RULES,
    config_from_state_dict=weights.config_from_state_dict,
)

init, param_shapes = NETWORK.init, NETWORK.param_shapes
from_torch, to_torch = NETWORK.from_torch, NETWORK.to_torch
