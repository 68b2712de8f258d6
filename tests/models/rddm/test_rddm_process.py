"""Forward process, posterior and the reading of outputs, against the laws they come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.forward import Level
from jaxcore.models.rddm.process.losses import draw, rddm_loss
from jaxcore.models.rddm.process.objectives import FORMS, Prediction, RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule


def images(seed=0, shape=(3, 4, 4, 3)):
    clean, degraded = np.random.default_rng(seed).uniform(-1, 1, (2, *shape)).astype(np.float32)
    noise = np.random.default_rng(seed + 1).normal(size=shape).astype(np.float32)
    return clean, degraded, noise


def test_the_chain_of_steps_has_the_marginal_law():
    schedule, count = RDDMSchedule.polynomial(12, sum_scale=0.25), 40_000
    rng = np.random.default_rng(0)
    clean, residual = 0.3, -0.8
    x = np.full(count, clean)
    for t in range(12):
        noise = rng.normal(size=count)
        x = x + schedule.alphas[t] * residual + np.sqrt(schedule.betas2[t]) * noise
        mean = clean + float(schedule.alphas_cumsum[t]) * residual
        spread = float(schedule.betas_cumsum[t])
        assert x.mean() == pytest.approx(mean, abs=4 * spread / count**0.5)
        assert x.std() == pytest.approx(spread, rel=4 / (2 * count) ** 0.5)


def test_the_posterior_is_the_conditional_law_of_two_jointly_normal_images():
    level, before = Level(*jnp.float32([0.7, 0.8, 0.3])), Level(*jnp.float32([0.4, 0.5, 0.6]))
    clean, degraded, noise = images()
    residual = degraded - clean
    x = forward.q_sample(clean, residual, noise, level)
    found = forward.q_posterior(x, residual, clean, level, before)
    gain = before.beta**2 / level.beta**2  # covariance over variance
    mean = clean + before.alpha * residual + gain * (x - clean - level.alpha * residual)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.variance, before.beta**2 * (1 - gain), rtol=1e-5)
    # The other way to write it: what is left of the noise.
    other = x - (level.alpha - before.alpha) * residual
    other = other - (level.beta**2 - before.beta**2) / level.beta * noise
    np.testing.assert_allclose(found.mean, other, atol=1e-6)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_every_prediction_is_the_truth_when_the_outputs_are(version):
    schedule = RDDMSchedule.polynomial(20, version=version)
    clean, degraded, noise = images()
    t = jnp.array([1, 7, 17])
    level = forward.level_at(schedule, t)
    x = forward.q_sample(clean, degraded - clean, noise, level)
    truth = Prediction(degraded - clean, noise, clean)
    for name, form in FORMS.items():
        objective = RDDMObjective(name=name, residual_clip=2.0)
        outputs = objective.targets(clean, degraded - clean, noise)
        for mode in form.modes:
            found = objective.predict(outputs, x, degraded, level, mode=mode)
            for field, ours, wanted in zip(truth._fields, found, truth, strict=True):
                np.testing.assert_allclose(
                    ours, wanted, atol=2e-4, err_msg=f"{name} {mode} {field}"
                )


def test_predictions_are_finite_where_there_is_no_noise_and_no_clean_image():
    clean, degraded, noise = images()
    nothing, everything = Level(*jnp.float32([0, 0, 1])), Level(*jnp.float32([1, 1, 0]))
    for name in FORMS:
        objective = RDDMObjective(name=name)
        outputs = (clean,) * objective.num_outputs
        for mode in objective.modes:
            for level in (nothing, everything):
                found = objective.predict(outputs, degraded + noise, degraded, level, mode=mode)
                assert all(np.isfinite(part).all() for part in found), (name, mode)
    held = RDDMObjective(name="pred_res").predict((degraded - clean,), clean, degraded, nothing)
    np.testing.assert_allclose(
        held.clean, np.clip(degraded - np.clip(degraded - clean, -1, 1), -1, 1)
    )


def test_the_residual_is_cut_as_published_unless_told_otherwise():
    x = jnp.zeros((1, 2, 2, 3))
    level = Level(*jnp.float32([0.5, 0.5, 0.5]))
    outputs = (jnp.full_like(x, -1.7),)
    for clip, expected in ((1.0, -1.0), (2.0, -1.7), (None, -1.7)):
        objective = RDDMObjective(name="pred_res", residual_clip=clip)
        assert float(objective.predict(outputs, x, x, level).residual[0, 0, 0, 0]) == np.float32(
            expected
        )
    free = RDDMObjective(name="pred_res").predict(outputs, x, x, level, clip=False)
    assert float(free.clean[0, 0, 0, 0]) == np.float32(1.7)


def zero(params, x, time):
    return (jnp.zeros_like(x[..., :3]) + params,) * 2


def test_the_loss_of_a_perfect_network_is_nothing_and_gradients_are_finite(getkey):
    clean, degraded, _ = images()
    schedule, objective = RDDMSchedule.polynomial(20), RDDMObjective()
    batch = {"clean": clean, "degraded": degraded}
    key = getkey()
    drawn = draw(batch, jax.random.split(key)[0], schedule)

    def perfect(params, x, time):
        assert x.shape[-1] == 6
        np.testing.assert_array_equal(x[..., 3:], degraded)
        return objective.targets(clean, degraded - clean, drawn.noise)

    loss, parts = rddm_loss({}, perfect, batch, key, schedule=schedule, objective=objective)
    assert float(loss) == 0 and set(parts) == {"loss0", "loss1"}
    value, gradient = jax.value_and_grad(
        lambda p: rddm_loss(p, zero, batch, key, schedule=schedule, objective=objective)[0]
    )(jnp.float32(0.1))
    assert np.isfinite(value) and np.isfinite(gradient)


def test_times_are_told_as_asked():
    schedule, t = RDDMSchedule.polynomial(20), jnp.array([0, 19])
    index = forward.network_times(t, schedule, "index", 2)
    np.testing.assert_array_equal(index[0], index[1])
    alpha, beta = forward.network_times(t, schedule, "cumulative", 2)
    np.testing.assert_allclose(alpha, schedule.alphas_cumsum[[0, 19]] * 20)
    np.testing.assert_allclose(beta, schedule.betas_cumsum[[0, 19]] * 20)
    assert len(forward.network_times(t, schedule, "cumulative", 1)) == 1


@pytest.mark.parametrize("degraded", [True, False])
def test_channels_stand_in_the_published_order(getkey, degraded):
    clean, dark, _ = images()
    condition = np.full((3, 4, 4, 1), 0.25, np.float32)
    seen = []

    def apply_fn(params, x, time):
        seen.append(x)
        return (jnp.zeros_like(clean),)

    batch = {"clean": clean, "condition": condition} | ({"degraded": dark} if degraded else {})
    objective = RDDMObjective(name="pred_x0", self_condition=True)
    schedule = RDDMSchedule.polynomial(20)
    rddm_loss({}, apply_fn, batch, getkey(), schedule=schedule, objective=objective)
    x = np.asarray(seen[-1])
    assert x.shape[-1] == (10 if degraded else 7)
    np.testing.assert_array_equal(x[..., -1:], condition)
    if degraded:
        np.testing.assert_array_equal(x[..., 6:9], dark)
    hidden = RDDMObjective(name="pred_x0", concat_input=False)
    rddm_loss({}, apply_fn, batch, getkey(), schedule=schedule, objective=hidden)
    assert seen[-1].shape[-1] == 4


def test_self_conditioning_is_fed_in_half_of_the_batches():
    clean, degraded, _ = images()
    objective = RDDMObjective(name="pred_x0", self_condition=True, residual_clip=None)
    schedule = RDDMSchedule.polynomial(20)

    def apply_fn(params, x, time):
        return (x[..., :3] + 0.5,)  # 0.5 without, 1 with self conditioning

    @jax.jit
    def loss(key):
        batch = {"clean": jnp.zeros_like(clean), "degraded": degraded}
        return rddm_loss({}, apply_fn, batch, key, schedule=schedule, objective=objective)[0]

    found = np.array([float(loss(jax.random.key(i))) for i in range(40)])
    assert set(found.round(6)) == {0.5, 1.0}
    assert 8 <= (found == 1).sum() <= 32


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: RDDMObjective(name="pred_v"), "name must be one of pred_res_noise, .*'pred_v'"),
        (lambda: RDDMObjective(name="auto_res_noise"), "name must be one of pred_res_noise"),
        (lambda: RDDMObjective(loss="huber"), "loss must be one of l1, l2, found 'huber'"),
        (lambda: RDDMObjective(time_conditioning="both"), "time_conditioning must be one of index"),
        (lambda: RDDMObjective(residual_clip=0.0), "a number above 0 or None, found 0.0"),
        (
            lambda: RDDMObjective(name="pred_res").check_mode("noise"),
            "mode of pred_res \\(res\\), found 'noise'",
        ),
        (
            lambda: RDDMObjective().check_outputs(
                (jnp.zeros((1, 4, 4, 3)),), jnp.zeros((1, 4, 4, 3))
            ),
            "2 network output\\(s\\) of shape \\(1, 4, 4, 3\\)",
        ),
        (
            lambda: RDDMObjective(name="pred_res").check_outputs(
                (jnp.zeros((1, 4, 4, 6)),), jnp.zeros((1, 4, 4, 3))
            ),
            "found \\[\\(1, 4, 4, 6\\)\\]",
        ),
        (
            lambda: draw(
                {"clean": jnp.zeros((1, 4, 4, 3)), "degraded": jnp.zeros((1, 4, 4, 1))},
                jax.random.key(0),
                RDDMSchedule.polynomial(10),
            ),
            "degraded images of shape \\(1, 4, 4, 3\\), found \\(1, 4, 4, 1\\)",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
