"""Tables of weights; the second-order solver on a flow whose solution is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.coefficients import sampling_times
from jaxcore.models.rddm.process.objectives import RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.ddim import ddim
from jaxcore.models.rddm.sampling.released import (
    along_path,
    ancestral,
    generalised,
    residual_then_noise,
    sampling_table,
)
from jaxcore.models.rddm.sampling.sampler import sample
from jaxcore.models.rddm.sampling.second_order import dpm_solver
from jaxcore.models.rddm.sampling.table import draws, log_snr_times, padded

LOG_SNR = np.linspace(7, -5, 4000)
SIGNAL, NOISE = (1 / np.sqrt(1 + np.exp(sign * 2 * LOG_SNR)) for sign in (-1, 1))
SCHEDULE = RDDMSchedule.from_cumulative(1 - SIGNAL, NOISE)  # equidistant by itself
MEAN, SPREAD = 0.2, 0.3  # of clean pixels, normal and independent
SHAPE = (1, 8, 8, 3)


def posterior_mean(params, x, time):
    """The best clean image for normal pixels, at the level that the times tell."""
    alpha, beta = (t[:, None, None, None] / len(SCHEDULE) for t in time)
    degraded, signal = params, 1 - alpha
    gain = signal * SPREAD**2 / (signal**2 * SPREAD**2 + beta**2)
    clean = MEAN + gain * (x[..., :3] - alpha * degraded - signal * MEAN)
    # Residual and noise that belong to it.
    noise = (x[..., :3] - alpha * degraded - signal * clean) / beta
    return degraded - clean, noise


def solution(start, degraded):
    """Where the exact deterministic flow ends."""
    alpha, beta = SCHEDULE.alphas_cumsum[-1], SCHEDULE.betas_cumsum[-1]
    signal = 1 - alpha
    left = start - alpha * degraded - signal * MEAN
    return MEAN + SPREAD * left / np.sqrt(signal**2 * SPREAD**2 + beta**2)


def error(sampler, steps, degraded=None, **options):
    noise = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    base = np.zeros(SHAPE, np.float32) if degraded is None else degraded
    table = sampler(SCHEDULE, steps, clip=False, **options)
    objective = RDDMObjective(
        residual_clip=None, time_conditioning="cumulative", concat_input=False
    )
    made = sample(posterior_mean, base, base, table=table, objective=objective, noise=noise)
    wanted = solution(base + noise[0] * SCHEDULE.start_scale, base)
    return float(np.sqrt(np.mean((made - wanted) ** 2)))


@pytest.mark.parametrize("degraded", [None, np.full(SHAPE, 0.7, np.float32)])
def test_second_order_needs_fewer_steps_for_the_same_error(degraded):
    euler = {n: error(generalised, n, degraded, spacing="log_snr") for n in (10, 20, 40)}
    second = {n: error(dpm_solver, n, degraded, spacing="log_snr") for n in (10, 20, 40)}
    # With half the steps it is more exact than the published step is.
    assert second[10] < euler[20] and second[20] < euler[40]
    assert second[10] < error(generalised, 20, degraded)  # at the published times
    # Orders of convergence: one and two.
    assert 1.5 < euler[20] / euler[40] < 2.8
    assert second[20] / second[40] > 3


def test_the_second_order_weights_leave_a_constant_clean_image_alone():
    rows = dpm_solver(SCHEDULE, 12, spacing="log_snr").rows
    alpha = np.append(rows.alpha, 0).astype(np.float64)
    np.testing.assert_allclose(rows.x * rows.beta, np.append(rows.beta[1:], 0), atol=1e-6)
    # x = (1 - alpha) I_0 + alpha I_in stays of that form.
    moved = rows.x * (1 - alpha[:-1]) + rows.clean + rows.previous
    np.testing.assert_allclose(moved, 1 - alpha[1:], atol=1e-6)
    carried = rows.x * alpha[:-1] + rows.degraded
    np.testing.assert_allclose(carried, alpha[1:], atol=1e-6)
    assert rows.previous[0] == 0 and rows.previous[5] != 0


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("sampler", [generalised, dpm_solver])
def test_tables_are_finite_also_where_there_is_no_noise_or_no_signal(version, sampler):
    for scale in (1.0, 0.01):
        schedule = RDDMSchedule.polynomial(30, version=version, sum_scale=scale)
        for spacing in ("linear", "leading", "log_snr"):
            for steps in (1, 2, 5, 25):
                table = sampler(schedule, steps, spacing=spacing)
                assert all(np.isfinite(column).all() for column in table.rows)


def test_times_in_log_snr_fall_and_are_nearly_equidistant():
    for schedule in (RDDMSchedule.polynomial(4000), RDDMSchedule.from_ddpm("cosine", 4000)):
        times = log_snr_times(schedule, 12)
        assert times[0] == 3999 and times[-1] == -1 and (np.diff(times) < 0).all()
        middle = times[2:-3]
        signal = 1 - schedule.alphas_cumsum[middle].astype(np.float64)
        steps = np.diff(np.log(signal / schedule.betas_cumsum[middle]))
        assert steps.max() < 1.2 * steps.min()
    for count in (1, 3, 30):
        times = log_snr_times(RDDMSchedule.polynomial(30), count)
        assert len(times) == count + 1 and (np.diff(times) < 0).all() and times[-1] == -1


def test_eta_moves_noise_from_the_image_to_fresh_noise():
    schedule = RDDMSchedule.polynomial(1000)
    for eta in (0.0, 0.5, 1.0):
        rows = sampling_table(schedule, 4, eta=eta).rows
        before = np.append(rows.beta[1:], 0)
        left = rows.beta + rows.noise  # noise of the image that stays
        np.testing.assert_allclose(
            left[:-1] ** 2 + rows.sigma[:-1] ** 2, before[:-1] ** 2, rtol=1e-5
        )
        share = eta * (rows.beta**2 - before**2) * before**2 / rows.beta**2
        np.testing.assert_allclose(rows.sigma**2, share, rtol=1e-5, atol=1e-9)
        assert rows.sigma[-1] == 0


def test_as_many_steps_as_times_is_the_ancestral_loop():
    schedule = RDDMSchedule.polynomial(6)
    assert sampling_table(schedule, 6).rows.sigma[0] > 0
    assert sampling_table(schedule, 6, eta=0.0).rows.sigma[0] == 0
    assert draws(sampling_table(schedule, 6)) == 5 and draws(sampling_table(schedule, 1)) == 0


def test_padding_leaves_the_result_alone():
    noise = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)
    zero = np.zeros(SHAPE, np.float32)
    table = sampling_table(SCHEDULE, 4, eta=1.0)
    options = {
        "objective": RDDMObjective(time_conditioning="cumulative", concat_input=False),
        "noise": noise,
    }
    alone = sample(posterior_mean, zero, zero, table=table, **options)
    longer = sample(posterior_mean, zero, zero, table=padded(table, 7), **options)
    np.testing.assert_allclose(alone, longer, atol=1e-6)
    with pytest.raises(UserError, match="a length of at least 4, found 3"):
        padded(table, 3)


def test_two_passes_tell_the_levels_of_their_path():
    schedule = RDDMSchedule.polynomial(1000)
    rows = along_path(schedule, 3).rows
    at = sampling_times(1000, 3)[:-1]
    np.testing.assert_array_equal(rows.alpha, [*schedule.alphas_cumsum[at], 0, 0, 0])
    np.testing.assert_array_equal(rows.beta, [1, 1, 1, *schedule.betas_cumsum[at]])
    official = residual_then_noise(schedule, 3).rows
    np.testing.assert_array_equal(official.alpha, [*schedule.alphas_cumsum[at]] * 2)
    np.testing.assert_array_equal(official.clean, [0, 0, 1, 0, 0, 1])


S = RDDMSchedule.polynomial(10)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sampling_table(S, 11), "between 1 and 10 sampling steps, found 11"),
        (lambda: generalised(S, 4, spacing="karras"), "Unknown spacing 'karras'"),
        (lambda: dpm_solver(S, 0, spacing="log_snr"), "between 1 and 10 sampling steps, found 0"),
        (lambda: generalised(S, 4, eta=1.5), "eta between 0 and 1, found 1.5"),
        (lambda: ddim(S, 4, eta=-0.5), "eta between 0 and 1, found -0.5"),
        (lambda: ancestral(S, 4), "10 ancestral steps, found 4"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


def test_the_analytic_network_is_the_posterior_mean():
    rng = np.random.default_rng(1)
    clean = MEAN + SPREAD * rng.normal(size=400_000)
    alpha, beta = 0.4, 0.5
    x = (1 - alpha) * clean + beta * rng.normal(size=clean.size)
    near = np.abs(x - 0.5) < 0.01
    told = [jnp.full((1,), v * len(SCHEDULE), jnp.float32) for v in (alpha, beta)]
    zero = jnp.zeros((1, 1, 1, 3))
    residual, _ = posterior_mean(zero, zero + 0.5, told)
    spread = clean[near].std() / near.sum() ** 0.5
    assert float(-residual[0, 0, 0, 0]) == pytest.approx(clean[near].mean(), abs=4 * spread)
