"""AOSA: let training itself choose between the residual and the noise as the objective.

One network gives an output that is read both as residual and as noise, and a learnt weight in
[0, 1] mixes both readings. Once the weight has left a margin around one half, the side it went to
is the objective, and a fresh network is trained on that alone. Three slips of the released code
are not repeated: its result is used (there it is overwritten by "residual"), "noise" is a result
like the other (there it counts as "undecided" and starts the search again), and the weight itself
decides, not its moving average.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.errors import UserError
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.losses import ApplyFn, Draw, distance, draw, model_input
from jaxcore.models.rddm.process.objectives import LossName, RDDMObjective, TimeConditioning
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.typing import Key

Choice = Literal["residual", "noise"]

START = 0.5
"""Weight at the beginning: undecided."""

OBJECTIVES: dict[Choice, Literal["pred_res", "pred_noise"]] = {
    "residual": "pred_res",
    "noise": "pred_noise",
}


class SelectionLoss(NamedTuple):
    """Loss of the search, and its parts."""

    total: Float[Array, ""]
    residual: Float[Array, ""]  # distance of the residual; 0 once noise is chosen
    noise: Float[Array, ""]  # distance of the noise; 0 once the residual is chosen
    decided: Int[Array, ""]  # -1 undecided, 1 residual, 0 noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSelector:
    """The search; hashable. Its parameters are ``{"network": ..., "weight": scalar}``.

    >>> ObjectiveSelector().choice(0.52), ObjectiveSelector().choice(0.495)
    ('residual', None)
    """

    margin: float = 0.01  # of the weight around one half in which nothing is decided
    loss: LossName = "l1"
    time_conditioning: TimeConditioning = "index"
    concat_input: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.margin < 0.5:
            raise UserError(f"Expected a margin between 0 and 0.5, found {self.margin}.")

    def choice(self, weight: float | Array) -> Choice | None:
        """What a weight means; None inside the margin. Compared in float32, as the loss does."""
        off = float(jnp.float32(weight) - jnp.float32(0.5))
        if abs(off) < float(jnp.float32(self.margin)):
            return None
        return "residual" if off > 0 else "noise"

    def objective(self, choice: Choice) -> RDDMObjective:
        """The objective of the second phase, for a network with fresh parameters."""
        return RDDMObjective(
            name=OBJECTIVES[choice],
            loss=self.loss,
            time_conditioning=self.time_conditioning,
            concat_input=self.concat_input,
        )

    def score(
        self, weight: Float[Array, ""], output: Float[Array, "b h w c"], drawn: Draw
    ) -> SelectionLoss:
        """Loss of one output under a weight; the gradient reaches the weight in four places."""
        x, degraded, level = drawn.x, drawn.degraded, drawn.level
        clean = jnp.clip(forward.clean_from_noise(x, degraded, output, level), -1, 1)
        noise = forward.noise_from_residual(x, degraded, output, level)

        def search() -> tuple[Array, Array, Array]:
            mixed_residual = weight * output + (1 - weight) * (degraded - clean)
            mixed_noise = weight * noise + (1 - weight) * output
            residual_part = distance(mixed_residual, drawn.residual, self.loss)
            noise_part = distance(mixed_noise, drawn.noise, self.loss)
            total = weight * residual_part + (1 - weight) * noise_part
            return total, residual_part, noise_part

        def take_residual() -> tuple[Array, Array, Array]:
            part = distance(output, drawn.residual, self.loss)
            return part, part, jnp.zeros_like(part)

        def take_noise() -> tuple[Array, Array, Array]:
            part = distance(output, drawn.noise, self.loss)
            return part, jnp.zeros_like(part), part

        off = weight - 0.5
        state = jnp.where(jnp.abs(off) < self.margin, -1, (off > 0).astype(jnp.int32))
        branch = jnp.where(state < 0, 0, 2 - state)
        parts = jax.lax.switch(branch, (search, take_residual, take_noise))
        return SelectionLoss(*parts, state)

    def search_loss(
        self,
        params: Mapping[str, Any],
        apply_fn: ApplyFn,
        batch: Mapping[str, Array],
        key: Key,
        *,
        schedule: RDDMSchedule,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Loss of the first phase; same arguments as `rddm_loss`."""
        drawn = draw(batch, key, schedule)
        times = forward.network_times(drawn.t, schedule, self.time_conditioning, 1)
        objective = RDDMObjective(name="pred_res", concat_input=self.concat_input)
        outputs = apply_fn(params["network"], model_input(drawn, batch, objective), times)
        objective.check_outputs(outputs, drawn.x)
        found = self.score(params["weight"], outputs[0], drawn)
        metrics = {"loss_res": found.residual, "loss_noise": found.noise}
        return found.total, {**metrics, "weight": params["weight"]}


class Selection(NamedTuple):
    """Result of the first phase."""

    choice: Choice
    weight: float
    updates: int


def search(
    selector: ObjectiveSelector,
    apply_fn: ApplyFn,
    network: Any,
    batches: Iterable[Mapping[str, Array]],
    key: Key,
    *,
    schedule: RDDMSchedule,
    optimiser: Any,
    report: Callable[[int, float], None] | None = None,
) -> Selection:
    """The first phase: update network and weight together until the weight has decided.

    Train a fresh network with ``selector.objective(choice)`` afterwards.

    Args:
      selector: margin, distance and conditioning.
      apply_fn: one network.
      network: its parameters at the start.
      batches: as of `rddm_loss`; as many as it takes.
      key: for times and noise.
      schedule: both schedules.
      optimiser: an Optax transformation for network and weight together. With Adam at rate r the
        weight moves by about r per update, so at least margin / r updates pass.
      report: called with the number of updates and the weight.

    Raises:
      UserError: the batches ended before the weight had decided.
    """
    import optax

    @jax.jit
    def update(params: Any, state: Any, batch: Any, key: Key) -> tuple[Any, Any]:
        gradient, _ = jax.grad(
            lambda p: selector.search_loss(p, apply_fn, batch, key, schedule=schedule),
            has_aux=True,
        )(params)
        change, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, change), state

    params = {"network": network, "weight": jnp.float32(START)}
    state, weight, count = optimiser.init(params), START, 0
    for count, batch in enumerate(batches, start=1):
        params, state = update(params, state, batch, jax.random.fold_in(key, count))
        weight = float(params["weight"])
        if report is not None:
            report(count, weight)
        choice = selector.choice(weight)
        if choice is not None:
            return Selection(choice, weight, count)
    raise UserError(
        f"Expected batches until the weight leaves 0.5 by {selector.margin}, found that it is at "
        f"{weight:.4f} after all {count}."
    )
