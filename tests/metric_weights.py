"""Random weights of metrics with the keys of the published networks, a few channels wide."""

import numpy as np

ALEX = {0: (11, 4, 2), 3: (5, 1, 2), 6: (3, 1, 1), 8: (3, 1, 1), 10: (3, 1, 1)}
VGG = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def convolution(rng, name, fan_in, fan_out, side):
    scale = 1.4 / np.sqrt(fan_in * side**2)
    kernel = scale * rng.standard_normal((fan_out, fan_in, side, side))
    return {
        f"{name}.weight": kernel.astype(np.float32),
        f"{name}.bias": 0.1 * rng.standard_normal(fan_out).astype(np.float32),
    }


def thin(network, width=3):
    """Random weights with the keys of torchvision's network, a few channels wide."""
    rng, weights, fan_in = np.random.default_rng(0), {}, 3
    plan = {index: side for index, (side, _, _) in ALEX.items()}
    if network == "vgg":
        plan = {index: 3 for block in VGG for index in block}
    for index, side in plan.items():
        weights |= convolution(rng, f"features.{index}", fan_in, width, side)
        fan_in = width
    return weights


def heads_of(widths):
    rng = np.random.default_rng(1)
    lins = {
        f"lin{i}.model.1.weight": rng.random((1, n, 1, 1), np.float32) for i, n in enumerate(widths)
    }
    both = {name: rng.random((1, 3 + sum(widths), 1, 1), np.float32) for name in ("alpha", "beta")}
    return lins, both
