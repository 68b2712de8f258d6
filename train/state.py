"""The one train state: pure data, so that it can be sharded, donated and saved."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxcore.errors import UserError
from jaxcore.typing import Key, Params


def wide(x: jax.Array) -> jax.Array:
    """Floats below 32 bits as float32; everything else as it is.

    >>> wide(jnp.ones(2, jnp.bfloat16)).dtype, wide(jnp.ones(2, jnp.int8)).dtype
    (dtype('float32'), dtype('int8'))
    """
    low = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return x.astype(jnp.float32) if low else x


def start_average(params: Params) -> Params:
    """A moving average before the first update: a copy of the parameters, at least float32.

    In bfloat16 a decay such as 0.999 rounds to 1 and the average would never move.
    """
    return jax.tree.map(lambda p: jnp.array(wide(p), copy=True), params)


@flax.struct.dataclass
class TrainState:
    """Everything a run needs to go on, and nothing else (no functions, no optimiser)."""

    step: jax.Array  # int32: steps done, skipped ones included; one batch each
    params: Params
    opt_state: Any
    ema_params: Params | None  # at least float32; None: no average is kept
    collections: dict[str, Any]  # what a task carries besides parameters, e.g. replications done
    rng: Key  # never changes: step s draws from fold_in(rng, s)
    skipped: jax.Array  # int32: updates that were not finite

    @property
    def eval_params(self) -> Params:
        """The parameters to evaluate: their moving average, where one is kept."""
        return self.params if self.ema_params is None else self.ema_params


def create_state(
    params: Params,
    tx: optax.GradientTransformation,
    *,
    key: Key,
    ema: bool = False,
    collections: Mapping[str, Any] | None = None,
) -> TrainState:
    """State before the first step.

    Args:
      params: initial parameters.
      tx: the optimiser.
      key: key of all steps.
      ema: keep a moving average of the parameters, starting as their copy.
      collections: further arrays to carry.

    Raises:
      UserError: the parameters are no nested dict of arrays.

    >>> import jax, optax
    >>> state = create_state({"w": jax.numpy.ones(2)}, optax.sgd(0.1), key=jax.random.key(0))
    >>> int(state.step)
    0
    """
    _check_params(params, ())
    with jax.numpy_dtype_promotion("standard"):  # optax mixes floats and integer counts
        opt_state = tx.init(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=opt_state,
        ema_params=start_average(params) if ema else None,  # apart: the step donates both trees
        collections=dict(collections or {}),
        rng=key,
        skipped=jnp.zeros((), jnp.int32),
    )


def _check_params(params: Any, place: tuple[str, ...]) -> None:
    if isinstance(params, Mapping):
        for name, below in params.items():
            _check_params(below, (*place, str(name)))
    elif not place or not hasattr(params, "dtype"):
        where = f" at {'/'.join(place)}" if place else ""
        raise UserError(
            f"Expected as parameters a nested dict of arrays, found {type(params).__name__}{where}."
        )
