"""The compiled sampler against the published formulas in a plain Python loop."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.coefficients import sampling_times
from jaxcore.models.rddm.process.objectives import RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.ddim import ddim
from jaxcore.models.rddm.sampling.released import (
    along_path,
    ancestral,
    generalised,
    generalised_clean,
    noise_then_residual,
    residual_then_noise,
    sampling_table,
)
from jaxcore.models.rddm.sampling.sampler import sample
from jaxcore.models.rddm.sampling.second_order import dpm_solver
from jaxcore.models.rddm.sampling.table import draws

SHAPE = (2, 4, 4, 3)


def oracle(params, x, time):
    """Two "networks" that know the residual and the noise."""
    return params


def network(params, x, time):
    """Two smooth functions of image, degraded image and time."""
    a, b = (t[:, None, None, None] / 1000 for t in time)
    x, degraded = x[..., :3], x[..., -3:]
    return jnp.tanh(x - degraded * a) * 0.7, jnp.sin(x + b) + params * degraded


def images(seed=0):
    clean, degraded = np.random.default_rng(seed).uniform(-1, 1, (2, *SHAPE)).astype(np.float32)
    return clean, degraded, noises(1, seed)[0]


def noises(count, seed=0):
    return np.random.default_rng(seed + 9).normal(size=(count, *SHAPE)).astype(np.float32)


FREE = RDDMObjective(residual_clip=None)
CUMULATIVE = RDDMObjective(time_conditioning="cumulative")
FORMS = {"noise": generalised, "clean": generalised_clean}


@pytest.mark.parametrize(
    "sampler",
    [generalised, along_path, functools.partial(along_path, first="noise")],
    ids=["both", "residual first", "noise first"],
)
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_with_an_oracle_every_path_ends_at_the_clean_image(sampler, scale):
    clean, degraded, noise = images()
    start = RDDMSchedule.polynomial(1000, sum_scale=scale, version="v2")
    for schedule in (
        start,
        start.reschedule(alpha="average", beta="average"),
        start.reschedule(alpha="increased", ratio_a=2.0, beta="decreased", ratio_b=0.3),
        RDDMSchedule.polynomial(1000, sum_scale=scale),
    ):
        for steps in (1, 2, 7):
            table = sampler(schedule, steps, clip=False)
            restored = sample(
                oracle,
                (degraded - clean, noise),
                degraded,
                table=table,
                objective=FREE,
                noise=noise[None],
            )
            np.testing.assert_allclose(restored, clean, atol=1e-5)


def loop(schedule, steps, x, degraded, z, *, eta=0.0, form="noise", objective):
    """Section by section what the paper and the released code say, without tables."""
    a = np.append(schedule.alphas_cumsum, 0).astype(np.float64)
    b = np.append(schedule.betas_cumsum, 0).astype(np.float64)
    times, states = sampling_times(len(schedule), steps), []
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        told = (t, t) if objective.time_conditioning == "index" else (a[t] * 1000, b[t] * 1000)
        seen = np.concatenate([x, degraded], axis=-1)
        outputs = network(0.3, seen, [jnp.full((SHAPE[0],), v, jnp.float32) for v in told])
        residual = np.clip(outputs[0], -1, 1)
        noise = np.asarray(outputs[1])
        clean = np.clip(x - a[t] * residual - b[t] * noise, -1, 1)
        if s < 0:
            x = clean
        else:
            variance = eta * (b[t] ** 2 - b[s] ** 2) * b[s] ** 2 / b[t] ** 2
            keep, fresh = np.sqrt(b[s] ** 2 - variance), np.sqrt(variance) * z[i]
            if form == "noise":
                x = x - (a[t] - a[s]) * residual - (b[t] - keep) * noise + fresh
            else:
                k = keep / b[t]
                x = k * x + (1 - k) * clean + (a[s] - a[t] * k) * residual + fresh
        x = np.asarray(x, np.float32)
        states.append(x)
    return np.stack(states)


@pytest.mark.parametrize("objective", [RDDMObjective(), CUMULATIVE])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_the_compiled_sampler_is_the_plain_loop(eta, form, objective):
    _, degraded, _ = images()
    schedule, z = RDDMSchedule.polynomial(1000), noises(5)
    table = FORMS[form](schedule, 5, eta=eta)
    restored, seen = sample(
        network,
        jnp.float32(0.3),
        degraded,
        table=table,
        objective=objective,
        noise=z,
        return_trajectory=True,
    )
    expected = loop(
        schedule, 5, degraded + z[0], degraded, z[1:], eta=eta, form=form, objective=objective
    )
    np.testing.assert_allclose(seen.states, expected, atol=2e-5)
    np.testing.assert_array_equal(restored, seen.states[-1])
    np.testing.assert_allclose(seen.start, degraded + z[0], atol=1e-7)
    levels = table.rows.alpha[:, None, None, None, None], table.rows.beta[:, None, None, None, None]
    states = np.concatenate([seen.start[None], seen.states[:-1]])
    clean = np.clip(states - levels[0] * seen.residual - levels[1] * seen.noise, -1, 1)
    np.testing.assert_allclose(seen.clean, clean, atol=1e-5)


def run(table, z, *, degraded, mode=None):
    return sample(
        network, jnp.float32(0.3), degraded, table=table, objective=FREE, noise=z, mode=mode
    )


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_both_forms_agree_when_nothing_is_cut(eta):
    _, degraded, _ = images()
    schedule, z = RDDMSchedule.polynomial(1000), noises(5)
    tables = [f(schedule, 5, eta=eta, clip=False) for f in (*FORMS.values(), ddim)]
    first, *others = (run(t, z, degraded=degraded) for t in tables)
    for other in others:
        np.testing.assert_allclose(other, first, atol=2e-5)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_all_fresh_noise_at_neighbouring_times_is_the_ancestral_loop(version):
    _, degraded, _ = images()
    schedule, z = RDDMSchedule.polynomial(6, version=version), noises(6)
    tables = ancestral(schedule, 6, clip=False), generalised(schedule, 6, eta=1.0, clip=False)
    first, second = (run(t, z, degraded=degraded) for t in tables)
    np.testing.assert_allclose(first, second, atol=2e-5)


@pytest.mark.parametrize("mode", [None, "res", "noise"])
def test_one_step_is_the_cut_estimate(mode):
    _, degraded, noise = images()
    schedule = RDDMSchedule.polynomial(1000)
    table = sampling_table(schedule, 1)
    x = degraded + noise
    seen = np.concatenate([x, degraded], axis=-1)
    told = (jnp.full((SHAPE[0],), 999.0),) * 2
    level = forward.level_at(schedule, jnp.full((SHAPE[0],), 999))
    outputs = network(0.3, seen, told)
    expected = FREE.predict(outputs, x, degraded, level, mode=mode).clean
    np.testing.assert_allclose(
        run(table, noise[None], degraded=degraded, mode=mode), expected, atol=1e-6
    )


def passes(schedule, steps, degraded, noise, first, second):
    """The two-pass sampler in a plain loop."""
    a, b = np.append(schedule.alphas_cumsum, 0), np.append(schedule.betas_cumsum, 0)
    x, times = degraded + noise, sampling_times(len(schedule), steps)
    for part in (first, second):
        for t, s in itertools.pairwise(times):
            seen = np.concatenate([x, degraded], axis=-1)
            told = (jnp.full((SHAPE[0],), float(t)),) * 2
            residual, e = (np.asarray(o) for o in network(0.3, seen, told))
            residual = np.clip(residual, -1, 1)
            if s < 0:
                x = np.clip(x - a[t] * residual - b[t] * e, -1, 1)
            elif part == "residual":
                x = x - (a[t] - a[s]) * residual
            else:
                x = x - (b[t] - b[s]) * e
    return x


@pytest.mark.parametrize("sampler", [residual_then_noise, noise_then_residual])
def test_two_passes_remove_one_part_each(sampler):
    _, degraded, noise = images()
    schedule = RDDMSchedule.polynomial(1000)
    table = sampler(schedule, 4)
    assert len(table) == 8 and draws(table) == 6
    restored = sample(
        network,
        jnp.float32(0.3),
        degraded,
        table=table,
        objective=RDDMObjective(),
        noise=noise[None],
    )
    first, _, second = sampler.__name__.split("_")
    expected = passes(schedule, 4, degraded, noise, first, second)
    np.testing.assert_allclose(restored, expected, atol=2e-5)


def test_generation_starts_from_noise_and_sees_no_degraded_image(getkey):
    schedule = RDDMSchedule.polynomial(100, sum_scale=0.25)
    table = sampling_table(schedule, 3)

    def apply_fn(params, x, time):
        assert x.shape == SHAPE and time[0].shape == SHAPE[:1]
        return (x * 0.5,) * 2

    key = getkey()
    options = {"table": table, "objective": RDDMObjective(), "shape": SHAPE}
    made, seen = sample(apply_fn, {}, key=key, return_trajectory=True, **options)
    again = sample(apply_fn, {}, key=key, **options)
    np.testing.assert_allclose(made, again, atol=1e-6)
    assert np.abs(made).max() <= 1
    assert np.std(seen.start) == pytest.approx(1, rel=0.3)  # not 0.5
    other = sample(apply_fn, {}, key=getkey(), **options)
    assert np.abs(made - other).max() > 0.1


def test_condition_channels_are_passed_on(getkey):
    _, degraded, _ = images()
    mask = np.full((*SHAPE[:3], 1), 0.25, np.float32)

    def apply_fn(params, x, time):
        assert x.shape[-1] == 10
        return (jnp.broadcast_to(x[..., 9:], SHAPE),)

    objective = RDDMObjective(name="pred_x0", self_condition=True)
    table = sampling_table(RDDMSchedule.polynomial(100), 3)
    restored = sample(
        apply_fn, {}, degraded, table=table, objective=objective, key=getkey(), condition=mask
    )
    np.testing.assert_allclose(restored, np.clip(degraded - np.clip(degraded - 0.25, -1, 1), -1, 1))


def test_self_conditioning_sees_the_last_clean_image(getkey):
    def apply_fn(params, x, time):
        return (x[..., :3] + 0.25,)  # one more at every step

    objective = RDDMObjective(name="pred_x0", self_condition=True)
    table = sampling_table(RDDMSchedule.polynomial(100), 3)
    made = sample(apply_fn, {}, table=table, objective=objective, key=getkey(), shape=SHAPE)
    np.testing.assert_allclose(made, 0.75)


def test_other_values_of_the_table_compile_nothing(getkey):
    _, degraded, _ = images()
    traces = []

    def counted(params, x, time):  # runs in Python only while a program is made
        traces.append(x.shape)
        return network(params, x, time)

    schedules = (
        RDDMSchedule.polynomial(1000),
        RDDMSchedule.polynomial(500, sum_scale=0.01, version="v2"),
        RDDMSchedule.from_ddpm("linear"),
    )
    for schedule in schedules:
        tables = [
            *(sampling_table(schedule, 4, eta=eta) for eta in (0.0, 0.5, 1.0)),
            residual_then_noise(schedule, 2),
            along_path(schedule, 2, first="noise"),
            generalised_clean(schedule, 4),
            dpm_solver(schedule, 4, spacing="log_snr"),
            ddim(schedule, 4),
        ]
        for table in tables:
            sample(counted, jnp.float32(0.3), degraded, table=table, objective=FREE, key=getkey())
            assert len(traces) == 1


def test_deterministic_steps_ignore_the_key_after_the_start(getkey):
    _, degraded, _ = images()
    schedule, z = RDDMSchedule.polynomial(100), noises(4)
    table = sampling_table(schedule, 4)
    alone, with_others = (run(table, n, degraded=degraded) for n in (z[:1], z))
    np.testing.assert_array_equal(alone, with_others)


def test_sampling_can_be_part_of_a_larger_program():
    _, degraded, noise = images()
    table = sampling_table(RDDMSchedule.polynomial(100), 3)

    @jax.jit
    def brightness(degraded, table, noise):
        return jnp.mean(run(table, noise, degraded=degraded))

    alone = float(np.mean(run(table, noise[None], degraded=degraded)))
    assert float(brightness(degraded, table, noise[None])) == pytest.approx(alone, abs=1e-6)
    gradient = jax.jit(jax.grad(lambda d: brightness(d, table, noise[None])))(degraded)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


TABLE = sampling_table(RDDMSchedule.polynomial(10), 3)
FRESH = sampling_table(RDDMSchedule.polynomial(10), 3, eta=1.0)
X = np.zeros(SHAPE, np.float32)


@pytest.mark.parametrize(
    ("degraded", "options", "sentence"),
    [
        (X, {}, "either a key or noise, found both or neither"),
        (X, {"key": 0, "noise": X[None]}, "either a key or noise"),
        (None, {"key": 0}, "either degraded images or a shape"),
        (X, {"key": 0, "shape": SHAPE}, "either degraded images or a shape"),
        (X[0], {"key": 0}, "images \\(batch, height, width, channels\\), found shape"),
        (X, {"noise": X}, "noise of shape \\(1 or 3, 2, 4, 4, 3\\)"),
        (X, {"noise": np.zeros((2, *SHAPE))}, "noise of shape \\(1 or 3, 2, 4, 4, 3\\)"),
        (X, {"noise": X[None], "table": FRESH}, "3 noises for steps with fresh noise, found 1"),
        (X, {"key": 0, "mode": "x0"}, "a mode of pred_res_noise"),
        (X.astype(np.uint8), {"key": 0}, "floating-point images in \\[-1, 1\\], found uint8"),
        (X, {"key": 0, "condition": X[:1]}, "conditions of shape \\(2, 4, 4, channels\\)"),
        (X, {"key": 0, "condition": X > 0}, "conditions as floating-point numbers, found bool"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(degraded, options, sentence):
    if "key" in options:
        options = options | {"key": jax.random.key(0)}
    options = {"table": TABLE, "objective": RDDMObjective()} | options
    with pytest.raises(UserError, match=sentence):
        sample(oracle, (X, X), degraded, **options)


def test_networks_of_the_wrong_width_are_refused(getkey):
    with pytest.raises(UserError, match="2 network output\\(s\\) of shape \\(2, 4, 4, 3\\)"):
        sample(oracle, (X[..., :1], X), X, table=TABLE, objective=RDDMObjective(), key=getkey())
    with pytest.raises(UserError, match="2 network output\\(s\\)"):
        sample(oracle, (X,), X, table=TABLE, objective=RDDMObjective(), key=getkey())
