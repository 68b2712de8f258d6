"""An ensemble of small multilayer perceptrons."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxcore.estimators.nuisance import penalised
from jaxcore.estimators.nuisance.base import static
from jaxcore.train.state import create_state
from jaxcore.train.step import Loss, Mean, make_train_step
from jaxcore.typing import Batch, Key, Params


class _Network(nn.Module):
    width: int
    depth: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n p"]) -> Float[Array, " n"]:
        for _ in range(self.depth):
            x = nn.gelu(nn.Dense(self.width, dtype=self.dtype, param_dtype=self.dtype)(x))
        return nn.Dense(1, dtype=self.dtype, param_dtype=self.dtype)(x)[:, 0]


class MLPFit(NamedTuple):
    """Parameters of the ensemble (leading axis: members) and the standardisation."""

    params: Any
    mean: Float[Array, " p"]
    factor: Float[Array, " p"]
    centre: Float[Array, ""]
    spread: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MLP:
    """GELU networks trained full-batch by AdamW, stopped at the best hold-out loss, averaged.

    The step is that of every training run (`train.make_train_step`), under `jax.vmap` over members
    and folds: an update that is not finite is left out.

    Inputs (and the target of a regression) are standardised on the training rows.
    """

    per_arm: ClassVar[bool] = False
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    binary: bool = static(False)  # log-loss and probabilities instead of squared error
    width: int = static(64)
    depth: int = static(2)
    steps: int = static(500)
    members: int = static(5)
    holdout: float = static(0.2)  # share of the training rows kept for early stopping

    def fit(
        self, X: Float[Array, "n p"], y: Float[Array, " n"], w: Float[Array, " n"], key: Key
    ) -> MLPFit:
        """Train all members at once."""
        share = w / jnp.sum(w)
        mean, factor = penalised.standardisation(X, share, scale=True)
        centre, spread = jnp.zeros((), X.dtype), jnp.ones((), X.dtype)
        if not self.binary:
            centre = share @ y
            sd = jnp.sqrt(share @ (y - centre) ** 2)
            spread = jnp.where(sd > 0, sd, 1.0)
        S, t = (X - mean[None]) * factor[None], (y - centre) / spread
        params = jax.vmap(lambda k: self._train(S, t, w, k))(jax.random.split(key, self.members))
        return MLPFit(params, mean, factor, centre, spread)

    def predict(self, fitted: MLPFit, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Mean prediction of the members."""
        S = (X - fitted.mean[None]) * fitted.factor[None]
        net = self._network(X.dtype)
        out: Any = jax.vmap(lambda p: net.apply(p, S))(fitted.params)
        if self.binary:
            return jnp.mean(jax.nn.sigmoid(out), axis=0)
        return fitted.centre + fitted.spread * jnp.mean(out, axis=0)

    def _network(self, dtype: Any) -> _Network:
        return _Network(self.width, self.depth, dtype)

    def _train(self, S: Array, t: Array, w: Array, key: Key) -> Params:
        k_split, k_init = jax.random.split(key)
        held = jax.random.uniform(k_split, w.shape) < self.holdout
        train, check = jnp.where(held, 0, w), jnp.where(held, w, 0)
        net = self._network(S.dtype)
        tx = optax.adamw(self.learning_rate, weight_decay=self.weight_decay)

        def loss(variables: Any, rows: Batch, key: Key, frozen: None) -> Loss:
            out: Any = net.apply(variables["params"], rows["features"])
            target = rows["target"]
            each = jax.nn.softplus(out) - target * out if self.binary else (out - target) ** 2 / 2
            held_out = Mean(check @ each, jnp.maximum(jnp.sum(check), 1e-12))
            return Loss(train @ each, jnp.sum(train), {"held_out": held_out})

        one_step = make_train_step(loss, tx)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            state, best, least = carry
            new, metrics = one_step(state, {"features": S, "target": t})
            better = metrics["held_out"] < least  # of the parameters before the step
            best = jax.tree.map(lambda a, b: jnp.where(better, a, b), state.params, best)
            return (new, best, jnp.minimum(metrics["held_out"], least)), None

        first: Any = net.init(k_init, S[:1])
        state = create_state(first, tx, key=key)
        start = (state, state.params, jnp.full((), jnp.inf, jnp.float32))
        return jax.lax.scan(step, start, None, length=self.steps)[0][1]
