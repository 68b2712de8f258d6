"""Pretrained DDPM and DDIM networks as RDDM: the other way to write the same sampler.

With nothing as the degraded image, ``R = -I_0``, and ``alphas_cumsum = 1 - sqrt(a)``,
``betas_cumsum = sqrt(1 - a)`` (`RDDMSchedule.from_ddpm`) RDDM's forward marginals are DDPM's and
its deterministic step is DDIM's. Two things differ. With predictions cut to [-1, 1], RDDM's step
still starts from the uncut image, and differs from DDIM's by sqrt(a_t) times what was cut: that is
``clip_mode="official"``; "ddim_exact" agrees. And RDDM's own fresh noise has DDIM's variance times
the ``a`` of the next time: ``variance="ddim"`` makes them agree.

Published: networks that predict the noise, `adjust_alpha`, thresholding. Ours: networks that
predict the clean image or the velocity, and exact clipping.
"""

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.errors import UserError
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.coefficients import Shape, coefficients
from jaxcore.models.rddm.process.forward import Level
from jaxcore.models.rddm.process.objectives import Mode, Prediction
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.solvers import ClipMode, SamplingTable, sampling_table

Parametrisation = Literal["epsilon", "x0", "v"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIMNetwork:
    """How a network trained for DDPM is read as RDDM; stands where an `RDDMObjective` stands.

    >>> DDIMNetwork(prediction="v").num_outputs
    1
    """

    prediction: Parametrisation = "epsilon"
    clip_range: float = 1.0  # images are cut to [-clip_range, clip_range]
    # Dynamic thresholding instead: this quantile of the absolute values of each image, at least 1
    # and at most max_threshold, becomes the new 1. None leaves it out.
    threshold: float | None = None
    max_threshold: float = 1.0
    rederive_noise: bool = False  # "use_clipped_model_output": noise that fits what was cut
    self_condition: bool = False  # show the last estimate of the clean image too
    # Fixed for this kind of network.
    time_conditioning: Literal["index"] = "index"
    concat_input: Literal[False] = False

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Parametrisation):
            raise UserError(
                f"Unknown prediction {self.prediction!r}: expected one of "
                f"{', '.join(get_args(Parametrisation))}."
            )
        if not self.clip_range > 0:
            raise UserError(f"Expected a positive clip_range, found {self.clip_range}.")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(f"Expected a threshold in (0, 1], found {self.threshold}.")
        if not self.max_threshold >= 1:
            raise UserError(f"Expected max_threshold of at least 1, found {self.max_threshold}.")

    @property
    def num_outputs(self) -> int:
        """One network."""
        return 1

    def check_mode(self, mode: Mode | None) -> None:
        """There is one mode only."""
        if mode is not None:
            raise UserError(f"Expected no mode for a DDIM network, found {mode!r}.")

    def predict(
        self,
        outputs: tuple[Float[Array, "b h w c"], ...],
        x: Float[Array, "b h w c"],
        degraded: Float[Array, "b h w c"],
        level: Level,
        *,
        mode: Mode | None = None,
        clip: bool = True,
    ) -> Prediction:
        """Residual, noise and clean image; the divisor stays that of the unadjusted schedule."""
        del degraded, mode
        output = outputs[0]
        if output.shape != x.shape:
            raise UserError(f"Expected a network output of shape {x.shape}, found {output.shape}.")
        residual, noise = self._split(output, x, level)
        clean = forward.clean_from_both(x, residual, noise, level)
        if clip:
            clean, residual = self._cut(clean), self._cut(residual)
            if self.rederive_noise:
                left = x - clean - level.alpha * residual
                noise = left / jnp.maximum(level.beta, 1e-12)
        return Prediction(residual, noise, clean)

    def _split(self, output: Array, x: Array, level: Level) -> tuple[Array, Array]:
        """Residual (minus the clean image) and noise, of the unadjusted schedule."""
        signal = level.rest
        if self.prediction == "epsilon":
            return (x - level.beta * output) / -jnp.maximum(signal, 1e-12), output
        if self.prediction == "x0":
            left = x - signal * output
            return -output, left / jnp.maximum(level.beta, 1e-12)
        return level.beta * output - signal * x, signal * output + level.beta * x

    def _cut(self, image: Array) -> Array:
        if self.threshold is None:
            return jnp.clip(image, -self.clip_range, self.clip_range)
        return dynamic_threshold(image, self.threshold, self.max_threshold)


def dynamic_threshold(
    image: Float[Array, "b h w c"], quantile: float, largest: float
) -> Float[Array, "b h w c"]:
    """Cut each image at a quantile of its absolute values and scale that to 1.

    The quantile counts as at least 1 (nothing is amplified) and at most ``largest``.

    >>> image = jnp.array([0.0, 1.0, 2.0, 4.0]).reshape(1, 2, 2, 1)
    >>> dynamic_threshold(image, 1.0, 4.0).ravel().tolist()
    [0.0, 0.25, 0.5, 1.0]
    """
    size = jnp.quantile(jnp.abs(image).reshape(image.shape[0], -1), quantile, axis=1)
    bound = jnp.clip(size, 1, largest).astype(image.dtype)[:, None, None, None]
    return jnp.clip(image, -bound, bound) / bound


def adjust_alpha(schedule: RDDMSchedule, shape: Shape, ratio: float = 1.0) -> RDDMSchedule:
    """DDPM's schedule with another alpha, for the published experiment of readjusting it.

    Noise and the divisor of "clean image from noise" stay as they are.

    Args:
      schedule: from `RDDMSchedule.from_ddpm`.
      shape: new shape of alpha.
      ratio: its exponent.
    """
    alphas = coefficients(len(schedule), shape, ratio=ratio, precision="float64")
    sums = np.clip(np.cumsum(alphas), 0, 1).astype(np.float32)
    return dataclasses.replace(schedule, alphas=alphas.astype(np.float32), alphas_cumsum=sums)


def ddim_table(
    schedule: RDDMSchedule,
    steps: int,
    *,
    eta: float = 0.0,
    clip_mode: ClipMode = "official",
) -> SamplingTable:
    """DDIM's times and steps: leading spacing, DDIM's variance, the last step like the others.

    Args:
      schedule: from `RDDMSchedule.from_ddpm`, or adjusted.
      steps: number of steps.
      eta: fresh noise as in DDIM: multiplies the standard deviation.
      clip_mode: "official", "ddim_exact" (agrees with DDIM) or "none" (agrees with DDIM).

    >>> table = ddim_table(RDDMSchedule.from_ddpm("linear"), 4)
    >>> table.rows.index.tolist()
    [750.0, 500.0, 250.0, 0.0]
    """
    return sampling_table(
        schedule, steps, method="euler", eta=eta, clip_mode=clip_mode, spacing="leading",
        variance="ddim", final="step",
    )  # fmt: skip


class Step(NamedTuple):
    """One step, and the clean image it believed in."""

    x: Array
    clean: Array


def ddim_step_as_rddm(
    x: Float[Array, "b h w c"],
    output: Float[Array, "b h w c"],
    level: Level,
    before: Level,
    *,
    network: DDIMNetwork,
    sigma: float | Array = 0.0,
    noise: Float[Array, "b h w c"] | None = None,
    clip_mode: ClipMode = "official",
) -> Step:
    """One step of a converted network, for loops of one's own.

    Args:
      x: images at the present time.
      output: of the network.
      level: of the present time.
      before: of the next (earlier) time; ``Level(0, 0, 1)`` is the clean image.
      network: how to read the output.
      sigma: standard deviation of the fresh noise.
      noise: the fresh noise.
      clip_mode: see `sampling_table`.
    """
    found = network.predict((output,), x, x, level, clip=clip_mode != "none")
    keep = jnp.sqrt(jnp.maximum(jnp.square(before.beta) - jnp.square(sigma), 0))
    if clip_mode == "ddim_exact":
        after = found.clean + before.alpha * found.residual + keep * found.noise
    else:
        moved = (level.alpha - before.alpha) * found.residual
        after = x - moved - (level.beta - keep) * found.noise
    return Step(after if noise is None else after + sigma * noise, found.clean)


def ddim_step(
    x: Float[Array, "b h w c"],
    output: Float[Array, "b h w c"],
    product: Any,
    product_before: Any,
    *,
    network: DDIMNetwork,
    sigma: float | Array = 0.0,
    noise: Float[Array, "b h w c"] | None = None,
    clip: bool = True,
) -> Step:
    """The same step as DDIM writes it, from the running products of DDPM; for comparison.

    Args:
      x: images at the present time.
      output: of the network.
      product: DDPM's running product at the present time.
      product_before: at the next (earlier) time; 1 is the clean image.
      network: how to read the output.
      sigma: standard deviation of the fresh noise.
      noise: the fresh noise.
      clip: cut the clean image.
    """
    signal, spread = jnp.sqrt(product), jnp.sqrt(1 - product)
    level = Level(1 - signal, spread, signal)
    found = network.predict((output,), x, x, level, clip=clip)
    keep = jnp.sqrt(jnp.maximum(1 - product_before - jnp.square(sigma), 0))
    after = jnp.sqrt(product_before) * found.clean + keep * found.noise
    return Step(after if noise is None else after + sigma * noise, found.clean)
