"""AOSA decides by its weight, either way, and until then nothing is decided."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.losses import draw
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.process.selector import ObjectiveSelector


@pytest.fixture(autouse=True)
def optax_promotes():
    """Optax mixes whole numbers and floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


SCHEDULE = RDDMSchedule.polynomial(50)


def batch(residual=0.2, seed=0):
    """A darkening by a constant: the residual is the same everywhere."""
    clean = np.random.default_rng(seed).uniform(-0.5, 0.5, (8, 4, 4, 3)).astype(np.float32)
    return {"clean": clean, "degraded": clean + np.float32(residual)}


def constant(params, x, time):
    """A network that can learn the residual of `batch` but no noise."""
    return (jnp.zeros_like(x[..., :3]) + params,)


def search(selector, batch, key):
    """Update network and weight together until the weight has decided."""
    optimiser = optax.adam(5e-3)

    @jax.jit
    def update(params, state, key):
        gradient = jax.grad(
            lambda p: selector.search_loss(p, constant, batch, key, schedule=SCHEDULE)[0]
        )(params)
        change, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, change), state

    params = {"network": jnp.float32(0), "weight": jnp.float32(0.5)}
    state = optimiser.init(params)
    for count in range(1, 1000):
        params, state = update(params, state, jax.random.fold_in(key, count))
        if choice := selector.choice(params["weight"]):
            return choice, count
    raise AssertionError("no choice")


def test_the_weight_goes_to_what_can_be_learnt(getkey):
    selector = ObjectiveSelector(margin=0.05)
    choice, updates = search(selector, batch(), getkey())
    assert choice == "residual" and updates >= 0.05 / 5e-3
    assert selector.objective(choice).name == "pred_res"


def test_noise_is_a_result_like_the_other(getkey):
    # Residuals larger than any noise: what cannot be learnt is far off as a residual.
    wild = batch()
    wild["degraded"] = wild["clean"] + np.random.default_rng(1).choice(
        np.float32([-2, 2]), wild["clean"].shape
    )
    selector = ObjectiveSelector(margin=0.05)
    choice, _ = search(selector, wild, getkey())
    assert choice == "noise" and selector.objective(choice).name == "pred_noise"


def test_after_the_choice_the_other_part_is_gone(getkey):
    selector = ObjectiveSelector()
    drawn = draw(batch(), getkey(), SCHEDULE)
    output = jnp.full_like(drawn.x, 0.2)
    residual = selector.score(jnp.float32(0.6), output, drawn)
    assert float(residual.noise) == 0 and float(residual.total) < 1e-6
    noise = selector.score(jnp.float32(0.4), output, drawn)
    assert float(noise.residual) == 0 and float(noise.total) > 0.5
    by_weight = jax.grad(lambda w: selector.score(w, output, drawn).total)
    assert float(by_weight(jnp.float32(0.6))) == 0 != float(by_weight(jnp.float32(0.5)))


def test_a_margin_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"margin must be a number above 0 and below 0\.5, found"):
        ObjectiveSelector(margin=0.5)
