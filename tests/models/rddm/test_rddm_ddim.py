"""DDPM's networks as RDDM: equal to DDIM where they should be, and off by the known amount."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.coefficients import ddpm_betas, leading_times
from jaxcore.models.rddm.process.forward import Level
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.ddim import (
    DDIMNetwork,
    adjust_alpha,
    ddim_step,
    ddim_step_as_rddm,
    ddim_table,
    dynamic_threshold,
)
from jaxcore.models.rddm.sampling.released import generalised
from jaxcore.models.rddm.sampling.sampler import sample

SHAPE = (2, 4, 4, 3)
# Running products as diffusion libraries hold them: float32, accumulated in float64.
PRODUCTS = np.cumprod((np.float32(1) - ddpm_betas("linear")).astype(np.float64)).astype(np.float32)
PRODUCTS = np.append(PRODUCTS, 1.0).astype(np.float64)
SCHEDULE = RDDMSchedule.from_ddpm("linear")
X, OUTPUT, NOISE = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


def level(t):
    if t < 0:
        return Level(*jnp.float32([0, 0, 1]))
    sums = SCHEDULE.alphas_cumsum, SCHEDULE.betas_cumsum, SCHEDULE.one_minus_alphas_cumsum
    return Level(*(jnp.float32(s[t]) for s in sums))


def sigma(t, s, eta):
    a_t, a_s = PRODUCTS[t], PRODUCTS[s]
    return eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)) ** 0.5


def both(t, s, eta, network, clip_mode):
    spread = np.float32(sigma(t, s, eta))
    ours = ddim_step_as_rddm(
        X,
        OUTPUT,
        level(t),
        level(s),
        network=network,
        sigma=spread,
        noise=NOISE,
        clip_mode=clip_mode,
    )
    a_t, a_s = np.float32(PRODUCTS[t]), np.float32(PRODUCTS[s])
    theirs = ddim_step(
        X, OUTPUT, a_t, a_s, network=network, sigma=spread, noise=NOISE, clip=clip_mode != "none"
    )
    return ours, theirs


@pytest.mark.parametrize("rederive", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("clip_mode", ["none", "ddim_exact"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_steps_agree_without_clipping_and_with_exact_clipping(
    eta, clip_mode, prediction, rederive
):
    network = DDIMNetwork(prediction=prediction, rederive_noise=rederive)
    for t, s in ((900, 800), (500, 250), (100, -1)):
        ours, theirs = both(t, s, eta, network, clip_mode)
        bound = 1e-5 * float(np.abs(theirs.x).max())
        np.testing.assert_allclose(ours.x, theirs.x, atol=bound)
        # The signal, 1 - alphas_cumsum, is small and rounded: so is its inverse.
        bound = 1e-5 * max(1, float(np.abs(theirs.clean).max()))
        np.testing.assert_allclose(ours.clean, theirs.clean, atol=bound)


def test_official_clipping_differs_by_what_was_cut():
    network = DDIMNetwork()
    ours, theirs = both(600, 400, 0.0, network, "official")
    free, _ = both(600, 400, 0.0, network, "none")
    cut = np.asarray(free.clean) - np.clip(free.clean, -1, 1)
    assert np.abs(cut).max() > 0.5
    np.testing.assert_allclose(ours.x - theirs.x, PRODUCTS[600] ** 0.5 * cut, atol=1e-5)


def test_rddms_variance_is_ddims_times_the_product_of_the_next_time():
    own = generalised(SCHEDULE, 10, eta=1.0, spacing="leading")
    ddim = ddim_table(SCHEDULE, 10, eta=1.0)
    times = leading_times(1000, 10)
    expected = [sigma(t, s, 1.0) for t, s in itertools.pairwise(times)]
    np.testing.assert_allclose(ddim.rows.sigma, expected, rtol=2e-5)
    product = PRODUCTS[times[1:]]
    np.testing.assert_allclose(own.rows.sigma**2, ddim.rows.sigma**2 * product, rtol=1e-4)


def epsilon(params, x, time):
    t = time[0][:, None, None, None] / 1000
    return (x * (0.9 + 0.05 * t) + 0.1 * jnp.sin(3 * x),)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("clip_mode", ["none", "ddim_exact"])
def test_whole_trajectories_agree(clip_mode, eta):
    network, steps = DDIMNetwork(), 6
    z = np.random.default_rng(1).normal(size=(steps, *SHAPE)).astype(np.float32)
    _, seen = sample(
        epsilon,
        {},
        table=ddim_table(SCHEDULE, steps, eta=eta, clip_mode=clip_mode),
        objective=network,
        noise=z,
        shape=SHAPE,
        return_trajectory=True,
    )
    x, times = z[0], leading_times(1000, steps)
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        output = epsilon({}, x, (jnp.full(SHAPE[:1], float(t)),))[0]
        a_t, a_s = np.float32(PRODUCTS[t]), np.float32(PRODUCTS[s])
        fresh = z[i + 1] if s >= 0 else np.zeros(SHAPE, np.float32)
        x = ddim_step(
            x,
            output,
            a_t,
            a_s,
            network=network,
            sigma=np.float32(sigma(t, s, eta)),
            noise=fresh,
            clip=clip_mode != "none",
        ).x
        np.testing.assert_allclose(seen.states[i], x, atol=2e-6 * max(1, np.abs(x).max()) + 4e-6)


def test_the_three_parametrisations_of_one_network_agree():
    clean, noise = X, NOISE
    at = level(500)
    x = at.rest * clean + at.beta * noise
    outputs = {"epsilon": noise, "x0": clean, "v": at.rest * noise - at.beta * clean}
    for name, output in outputs.items():
        found = DDIMNetwork(prediction=name).predict((output,), x, x, at, clip=False)
        np.testing.assert_allclose(found.clean, clean, atol=2e-5)
        np.testing.assert_allclose(found.noise, noise, atol=2e-5)
        np.testing.assert_allclose(found.residual, -clean, atol=2e-5)


def test_adjusted_alpha_keeps_the_divisor_and_the_noise():
    other = adjust_alpha(SCHEDULE, "decreased", 0.3)
    np.testing.assert_array_equal(other.betas_cumsum, SCHEDULE.betas_cumsum)
    np.testing.assert_array_equal(other.one_minus_alphas_cumsum, SCHEDULE.one_minus_alphas_cumsum)
    assert other.alphas_cumsum[-1] == pytest.approx(1, abs=1e-6)
    assert np.abs(other.alphas_cumsum - SCHEDULE.alphas_cumsum).max() > 0.1


def test_thresholds_scale_each_image_by_its_own_quantile():
    image = jnp.stack([jnp.full((4, 4, 3), 0.5), jnp.full((4, 4, 3), 3.0)])
    found = dynamic_threshold(image, 0.995, 2.0)
    np.testing.assert_allclose(found[0], 0.5)  # nothing is amplified
    np.testing.assert_allclose(found[1], 1.0)
    network = DDIMNetwork(threshold=0.9, max_threshold=10.0)
    at = level(900)
    found = network.predict((OUTPUT,), X, X, at)
    assert float(jnp.abs(found.clean).max()) <= 1 + 1e-6
    assert 0.01 < float((jnp.abs(found.clean) < 0.99).mean()) < 0.95
    plain = DDIMNetwork().predict((OUTPUT,), X, X, at)
    assert float((jnp.abs(plain.clean) < 0.99).mean()) < float((jnp.abs(found.clean) < 0.99).mean())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: DDIMNetwork(prediction="score"),
            "prediction must be one of epsilon, x0, v",
        ),
        (lambda: DDIMNetwork(clip_range=0.0), "clip_range must be a number above 0, found 0.0"),
        (
            lambda: DDIMNetwork(threshold=1.5),
            "threshold must be a number above 0 and of at most 1",
        ),
        (
            lambda: DDIMNetwork(max_threshold=0.5),
            "max_threshold must be a number of at least 1",
        ),
        (lambda: DDIMNetwork().check_mode("res"), "no mode for a DDIM network, found 'res'"),
        (
            lambda: DDIMNetwork().predict((X[..., :1],), X, X, level(5)),
            "network output of shape \\(2, 4, 4, 3\\), found \\(2, 4, 4, 1\\)",
        ),
        (lambda: ddim_table(SCHEDULE, 1001), "between 1 and 1000 sampling steps, found 1001"),
        (
            lambda: ddim_table(RDDMSchedule.polynomial(1000), 5, eta=1.0),
            "a schedule from DDPM for DDIM's variance",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


def test_the_description_of_a_network_is_hashable():
    assert hash(DDIMNetwork()) == hash(dataclasses.replace(DDIMNetwork()))
    assert jax.tree.leaves(ddim_table(SCHEDULE, 4))[0].shape == (4,)
