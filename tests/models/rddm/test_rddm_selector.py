"""AOSA decides by its weight, either way, and says so when it cannot."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.losses import draw
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.process.selector import ObjectiveSelector, search


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


def test_the_weight_goes_to_what_can_be_learnt(getkey):
    selector, seen = ObjectiveSelector(margin=0.05), []
    found = search(
        selector, constant, jnp.float32(0.0), itertools.repeat(batch()), getkey(),
        schedule=SCHEDULE, optimiser=optax.adam(5e-3),
        report=lambda count, weight: seen.append(weight),
    )  # fmt: skip
    assert found.choice == "residual" and found.weight > 0.55
    assert found.updates == len(seen) >= 0.05 / 5e-3
    assert selector.objective(found.choice).name == "pred_res"


def test_noise_is_a_result_like_the_other(getkey):
    # Residuals larger than any noise: what cannot be learnt is far off as a residual.
    wild = batch()
    wild["degraded"] = wild["clean"] + np.random.default_rng(1).choice(
        np.float32([-2, 2]), wild["clean"].shape
    )
    selector = ObjectiveSelector(margin=0.05)
    found = search(
        selector, constant, jnp.float32(0.0), itertools.repeat(wild), getkey(),
        schedule=SCHEDULE, optimiser=optax.adam(5e-3),
    )  # fmt: skip
    assert found.choice == "noise" and selector.objective(found.choice).name == "pred_noise"


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


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ObjectiveSelector(margin=0.5), "a margin between 0 and 0.5, found 0.5"),
        (
            lambda: search(
                ObjectiveSelector(),
                constant,
                jnp.float32(0),
                [batch()] * 2,
                jax.random.key(0),
                schedule=SCHEDULE,
                optimiser=optax.adam(1e-5),
            ),
            "until the weight leaves 0.5 by 0.01, found that it is at 0.50.* after all 2",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
