"""Check of the golden file of DEA-Net's contrastive regularisation."""

from pathlib import Path

import jax
import jax.numpy as jnp

from jaxcore.models.dea_net import contrastive
from tests.parity.golden import Golden, close, nhwc

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def check_contrast_loss(path: Path) -> None:
    file = Golden(path)
    weights = file.group("param")
    vgg = contrastive.vgg19_from_torch(weights, width=64 // file.config["vgg_width_divisor"])
    assert list(contrastive.WEIGHTS) == file.config["weights"]
    out, clear, hazy = (file.image(f"in/{name}") for name in ("anchor", "positive", "negative"))

    @jax.jit
    def everything(out, clear, hazy):
        loss, gradient = jax.value_and_grad(contrastive.contrastive_regularization)(
            out, clear, hazy, vgg
        )
        single = contrastive.contrastive_regularization(out, clear, hazy, vgg, positive_only=True)
        distances = contrastive.contrastive_distances(out, clear, hazy, vgg)
        return loss, single, gradient, [jnp.mean(d, axis=1) for d in distances]

    loss, single, gradient, distances = everything(out, clear, hazy)
    close(loss, file["out/loss"], **TOLERANCE, what="loss")
    close(single, file["out/loss_positive_only"], **TOLERANCE, what="positive only")
    for name, rows in zip(("d_ap", "d_an"), distances, strict=True):
        for i in range(len(contrastive.WEIGHTS)):
            close(rows[i], file[f"mid/{name}{i}"], **TOLERANCE, what=f"{name}{i}")
    expected = nhwc(file["out/grad_anchor"])
    close(gradient, expected, atol=1e-4 * abs(expected).max(), rtol=0, what="gradient")
    again = contrastive.vgg19_to_torch(vgg)
    assert again.keys() == weights.keys()
    assert all((again[key] == weights[key]).all() for key in weights)


CHECKS = {"contrast_loss": check_contrast_loss}
