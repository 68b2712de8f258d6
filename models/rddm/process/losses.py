"""Training losses of RDDM."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.forward import Level
from jaxcore.models.rddm.process.objectives import LossName, Prediction, RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.typing import Key

ApplyFn = Callable[[Any, Array, tuple[Array, ...]], tuple[Array, ...]]
"""``(params, network input, one time per network) -> one output per network``."""


class Draw(NamedTuple):
    """A batch taken to random times."""

    x: Float[Array, "b h w c"]
    degraded: Float[Array, "b h w c"]  # zeros for generation
    clean: Float[Array, "b h w c"]
    noise: Float[Array, "b h w c"]
    t: Int[Array, " b"]
    level: Level

    @property
    def residual(self) -> Float[Array, "b h w c"]:
        """What separates the degraded image from the clean one."""
        return self.degraded - self.clean


def distance(
    prediction: Float[Array, "b h w c"], target: Float[Array, "b h w c"], loss: LossName
) -> Float[Array, ""]:
    """Mean absolute ("l1") or squared ("l2") difference over all entries, in float32."""
    gap = prediction.astype(target.dtype) - target
    return jnp.mean(jnp.abs(gap) if loss == "l1" else jnp.square(gap))


def draw(
    batch: Mapping[str, Array],
    key: Key,
    schedule: RDDMSchedule,
    *,
    t: Int[Array, " b"] | None = None,
    noise: Float[Array, "b h w c"] | None = None,
) -> Draw:
    """Take images to times drawn uniformly, or to those given.

    Args:
      batch: "clean" and, for restoration, "degraded": NHWC in [-1, 1].
      key: for times and noise.
      schedule: both schedules.
      t: times in 0..T-1 instead of random ones.
      noise: standard normal noise instead of a random one.
    """
    clean = batch["clean"]
    degraded = batch.get("degraded")
    if degraded is not None and degraded.shape != clean.shape:
        raise UserError(f"Expected degraded images of shape {clean.shape}, found {degraded.shape}.")
    degraded = jnp.zeros_like(clean) if degraded is None else degraded
    key_t, key_noise = jax.random.split(key)
    if t is None:
        t = jax.random.randint(key_t, clean.shape[:1], 0, len(schedule))
    noise = forward.noise_like(key_noise, clean) if noise is None else noise
    level = forward.level_at(schedule, t)
    x = forward.q_sample(clean, degraded - clean, noise, level)
    return Draw(x, degraded, clean, noise, t, level)


def model_input(
    drawn: Draw,
    batch: Mapping[str, Array],
    objective: RDDMObjective,
    self_condition: Array | None = None,
) -> Float[Array, "b h w i"]:
    """What the networks see; a batch without "degraded" gives no channels of it."""
    if objective.self_condition and self_condition is None:
        self_condition = jnp.zeros_like(drawn.x)
    shows = objective.concat_input and batch.get("degraded") is not None
    return forward.network_input(
        drawn.x,
        degraded=drawn.degraded if shows else None,
        condition=batch.get("condition"),
        self_condition=self_condition,
    )


def rddm_loss(
    params: Any,
    apply_fn: ApplyFn,
    batch: Mapping[str, Array],
    key: Key,
    *,
    schedule: RDDMSchedule,
    objective: RDDMObjective,
    t: Int[Array, " b"] | None = None,
    noise: Float[Array, "b h w c"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Sum over the networks of the distance to their targets.

    The released code trains two networks either on the sum or each on its own distance with its
    own optimiser; as they share nothing, the gradients are the same.

    Args:
      params: of the networks.
      apply_fn: the networks.
      batch: "clean"; for restoration "degraded"; optionally "condition" with further channels,
        such as a mask, which are passed on as they are. Images are NHWC in [-1, 1].
      key: for times, noise and the coin of self conditioning.
      schedule: both schedules.
      objective: targets, distance and time conditioning.
      t: times instead of random ones.
      noise: noise instead of a random one.

    Returns:
      The loss, and the distances of the single networks.

    >>> def nothing(params, x, time):
    ...     return (x[..., :3] * 0,)
    >>> batch = {"clean": jnp.ones((2, 4, 4, 3))}
    >>> schedule, objective = RDDMSchedule.polynomial(10), RDDMObjective(name="pred_x0")
    >>> loss, _ = rddm_loss({}, nothing, batch, jax.random.key(0), schedule=schedule,
    ...                     objective=objective)
    >>> float(loss)
    1.0
    """
    key_draw, key_coin = jax.random.split(key)
    drawn = draw(batch, key_draw, schedule, t=t, noise=noise)
    times = forward.network_times(
        drawn.t, schedule, objective.time_conditioning, objective.num_outputs
    )

    def run(self_condition: Array | None) -> tuple[Array, ...]:
        seen = model_input(drawn, batch, objective, self_condition)
        outputs = apply_fn(params, seen, times)
        objective.check_outputs(outputs, drawn.x)
        return outputs

    def estimate() -> Array:
        found: Prediction = objective.predict(run(None), drawn.x, drawn.degraded, drawn.level)
        return jax.lax.stop_gradient(found.clean.astype(drawn.x.dtype))

    guess = None
    if objective.self_condition:
        coin = jax.random.bernoulli(key_coin)
        guess = jax.lax.cond(coin, estimate, lambda: jnp.zeros_like(drawn.x))
    outputs = run(guess)
    targets = objective.targets(drawn.clean, drawn.residual, drawn.noise)
    parts = [distance(o, y, objective.loss) for o, y in zip(outputs, targets, strict=True)]
    total = jnp.sum(jnp.stack(parts))
    return total, {f"loss{i}": part for i, part in enumerate(parts)}
