"""Pretrained DDPM and DDIM networks as RDDM: the other way to write the same sampler.

With nothing as the degraded image, ``R = -I_0``, and ``alphas_cumsum = 1 - sqrt(a)``,
``betas_cumsum = sqrt(1 - a)`` (`RDDMSchedule.from_ddpm`) RDDM's forward marginals are DDPM's and
its deterministic step is DDIM's. Two things differ. With predictions cut to [-1, 1], RDDM's step
still starts from the uncut image, and differs from DDIM's by sqrt(a_t) times what was cut: that is
``clip_mode="official"``; "ddim_exact" agrees. And RDDM's own fresh noise has DDIM's variance times
the ``a`` of the next time: `ddim_table` has DDIM's.

Published: networks that predict the noise, `adjust_alpha`, thresholding. Ours: networks that
predict the clean image or the velocity, and exact clipping.
"""

import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcore.bounds import Above, AtLeast, AtMost, Positive
from jaxcore.errors import UserError
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.coefficients import Shape, coefficients
from jaxcore.models.rddm.process.forward import Level
from jaxcore.models.rddm.process.objectives import Mode, Prediction
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.released import moves
from jaxcore.models.rddm.sampling.table import (
    SamplingTable,
    Steps,
    Weight,
    along,
    check_eta,
    make_table,
    steps_of,
)
from jaxcore.serial import Serial

ClipMode = Literal["official", "ddim_exact", "none"]
Parametrisation = Literal["epsilon", "x0", "v"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIMNetwork(Serial):
    """How a network trained for DDPM is read as RDDM; stands where an `RDDMObjective` stands.

    >>> DDIMNetwork(prediction="v").num_outputs
    1
    """

    prediction: Parametrisation = "epsilon"
    clip_range: Positive = 1.0  # images are cut to [-clip_range, clip_range]
    # Dynamic thresholding instead: this quantile of the absolute values of each image, at least 1
    # and at most max_threshold, becomes the new 1. None leaves it out.
    threshold: Annotated[float, Above(0), AtMost(1)] | None = None
    max_threshold: Annotated[float, AtLeast(1)] = 1.0
    rederive_noise: bool = False  # "use_clipped_model_output": noise that fits what was cut
    self_condition: bool = False  # show the last estimate of the clean image too
    # Fixed for this kind of network.
    time_conditioning: Literal["index"] = "index"
    concat_input: Literal[False] = False

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


def ddim(
    schedule: RDDMSchedule, steps: int, *, eta: float = 0.0, clip: bool = True
) -> SamplingTable:
    """DDIM's form of RDDM's step at RDDM's times: the image is made anew from the predictions.

    ``I_s = I_0 + a_s R + sqrt(b_s^2 - sigma^2) e + sigma z``, with ``sigma^2`` as in `generalised`,
    from which it differs where predictions were cut. The last step gives the predicted clean image.

    Args:
      schedule: both schedules.
      steps: calls of the networks.
      eta: fresh noise, 0 to 1; multiplies the variance.
      clip: cut the predictions.

    Raises:
      UserError: more steps than times, or a value out of range.
    """
    at = steps_of(schedule, steps)
    return make_table(schedule, at, _remade(at, at.variance(eta)), clip=clip)


def _remade(at: Steps, variance: Float[np.ndarray, " s"]) -> dict[str, Weight]:
    """Weights of `ddim`, for fresh noise of any variance."""
    return {
        "clean": 1.0,
        "residual": at.a_s,
        "noise": at.kept(variance),
        "sigma": np.sqrt(variance),
    }


def ddim_table(
    schedule: RDDMSchedule, steps: int, *, eta: float = 0.0, clip_mode: ClipMode = "official"
) -> SamplingTable:
    """DDIM as converted to RDDM: Song et al., "Denoising Diffusion Implicit Models", ICLR 2021.

    Times are multiples of T // steps, the last step is like the others, and fresh noise has DDIM's
    variance ``sigma^2 = eta^2 (b_s^2 / b_t^2) (1 - p_t / p_s)`` with DDPM's running product
    ``p = (1 - a)^2`` of the unadjusted schedule.

    Args:
      schedule: from `RDDMSchedule.from_ddpm`, or adjusted.
      steps: number of steps.
      eta: fresh noise as in DDIM: multiplies the standard deviation.
      clip_mode: "official" cuts what is predicted but moves the image as it is, see `generalised`;
        "ddim_exact" makes it anew from the cut predictions, see `ddim`, and agrees with DDIM;
        "none" cuts nothing and agrees with DDIM.

    Raises:
      UserError: a schedule that is not DDPM's, more steps than times, or a value out of range.

    >>> table = ddim_table(RDDMSchedule.from_ddpm("linear"), 4)
    >>> table.rows.index.tolist()
    [750.0, 500.0, 250.0, 0.0]
    """
    at = steps_of(schedule, steps, "leading")
    check_eta(eta)
    p_t, p_s = (np.square(v) for v in along(schedule.one_minus_alphas_cumsum, at.times, 1.0))
    if (np.abs(p_t + at.b_t**2 - 1) > 1e-3).any():
        raise UserError("Expected a schedule from DDPM for DDIM's variance, found another.")
    added = np.maximum(at.b_t**2 - at.b_s**2, 0)
    exact = np.where(p_s > 0.5, added, p_s - p_t)  # whichever float32 holds with more digits
    variance = eta**2 * at.share * exact / p_s
    weights = (_remade if clip_mode == "ddim_exact" else moves)(at, variance)
    return make_table(schedule, at, weights, clip=clip_mode != "none", end="step")


class Step(NamedTuple):
    """One step, and the predicted clean image."""

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
      clip_mode: see `ddim_table`.
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
