"""AOSA: let training itself choose between the residual and the noise as the objective.

One network gives an output that is read both as residual and as noise, and a learnt weight in
[0, 1] mixes both readings. Once the weight has left a margin around one half, the side it went to
is the objective, and a fresh network is trained on that alone. Three slips of the released code
are not repeated: its result is used (there it is overwritten by "residual"), "noise" is a result
like the other (there it counts as "undecided" and starts the search again), and the weight itself
decides, not its moving average.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcore.bounds import Above, Below
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.losses import ApplyFn, Draw, distance, draw, model_input
from jaxcore.models.rddm.process.objectives import SEARCH, ObjectiveConfig, RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.serial import Serial
from jaxcore.typing import Key

Choice = Literal["residual", "noise"]

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
class ObjectiveSelector(Serial):
    """The search; hashable. Its parameters are ``{"network": ..., "weight": scalar}``.

    >>> ObjectiveSelector().choice(0.52), ObjectiveSelector().choice(0.495)
    ('residual', None)
    """

    margin: Annotated[float, Above(0), Below(0.5)] = 0.01  # inside it nothing is decided
    config: ObjectiveConfig = dataclasses.field(
        default_factory=lambda: ObjectiveConfig(name=SEARCH)
    )
    concat_input: bool = True  # the network sees I_in

    def choice(self, weight: float | Array) -> Choice | None:
        """What a weight means; None inside the margin. Compared in float32, as the loss does."""
        off = float(jnp.float32(weight) - jnp.float32(0.5))
        if abs(off) < float(jnp.float32(self.margin)):
            return None
        return "residual" if off > 0 else "noise"

    def objective(self, choice: Choice) -> RDDMObjective:
        """The objective of the second phase, for a network with fresh parameters."""
        return self.config.chosen(OBJECTIVES[choice], concat_input=self.concat_input)

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
            residual_part = distance(mixed_residual, drawn.residual, self.config.loss)
            noise_part = distance(mixed_noise, drawn.noise, self.config.loss)
            total = weight * residual_part + (1 - weight) * noise_part
            return total, residual_part, noise_part

        def take_residual() -> tuple[Array, Array, Array]:
            part = distance(output, drawn.residual, self.config.loss)
            return part, part, jnp.zeros_like(part)

        def take_noise() -> tuple[Array, Array, Array]:
            part = distance(output, drawn.noise, self.config.loss)
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
        objective = self.objective("residual")  # what is shown is the same for both
        times = forward.network_times(drawn.t, schedule, objective.time_conditioning, 1)
        outputs = apply_fn(params["network"], model_input(drawn, batch, objective), times)
        objective.check_outputs(outputs, drawn.x)
        found = self.score(params["weight"], outputs[0], drawn)
        metrics = {"loss_res": found.residual, "loss_noise": found.noise}
        return found.total, {**metrics, "weight": params["weight"]}
