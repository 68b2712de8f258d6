import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcore.errors import UserError
from jaxcore.models.rddm.process.coefficients import (
    coefficients,
    ddpm_betas,
    leading_times,
    sampling_times,
)
from jaxcore.models.rddm.process.schedule import (
    RDDMSchedule,
    official_buffers,
    posterior_coefficients,
)

SHAPES = ("increased", "decreased", "average", "normal")
quick = settings(deadline=None, derandomize=True, max_examples=50)


@quick
@given(
    steps=st.integers(2, 400),
    alpha=st.sampled_from(SHAPES),
    beta=st.sampled_from(SHAPES),
    ratio=st.floats(0.1, 4),
    scale=st.floats(1e-3, 1),
)
def test_coefficients_sum_to_one_and_to_the_noise_at_the_end(steps, alpha, beta, ratio, scale):
    schedule = RDDMSchedule.polynomial(
        steps, alpha=alpha, beta=beta, ratio_a=ratio, ratio_b=ratio, sum_scale=scale, version="v2"
    )
    assert schedule.alphas.min() >= 0 and schedule.betas2.min() >= 0
    assert np.sum(schedule.alphas, dtype=np.float64) == pytest.approx(1, rel=1e-5)
    assert np.sum(schedule.betas2, dtype=np.float64) == pytest.approx(scale, rel=1e-5)
    assert schedule.alphas_cumsum[-1] == pytest.approx(1, rel=1e-5)
    assert schedule.betas_cumsum[-1] ** 2 == pytest.approx(scale, rel=1e-5)
    assert schedule.start_scale**2 == pytest.approx(scale, rel=1e-5)
    assert (np.diff(schedule.alphas_cumsum) >= 0).all()


# Values at T = 1000, times 0, 1, 499, 998, 999, as published.
@pytest.mark.parametrize(
    ("schedule", "alphas", "betas"),
    [
        (
            RDDMSchedule.polynomial(1000),
            (0.001998, 0.00399401, 0.74975, 0.999998, 1),
            (0.00141351, 0.00244827, 0.50025, 0.999, 1),
        ),
        (
            RDDMSchedule.polynomial(1000, sum_scale=0.01),
            (0.001998, 0.00399401, 0.74975, 0.999998, 1),
            (0.000141351, 0.000244827, 0.050025, 0.0999001, 0.1),
        ),
        (
            RDDMSchedule.polynomial(1000, version="v2"),
            (0.002, 0.003998, 0.75025, 1, 1),
            (0, 0.00141492, 0.49975, 0.998999, 1),
        ),
        (
            RDDMSchedule.from_ddpm("linear"),
            (5.00083e-5, 1.09971e-4, 0.719666, 0.993583, 0.993647),
            (0.0100008, 0.0148304, 0.959902, 0.999979, 0.99998),
        ),
    ],
)
def test_values_of_the_named_schedules(schedule, alphas, betas):
    at = [0, 1, 499, 998, 999]
    np.testing.assert_allclose(schedule.alphas_cumsum[at], alphas, rtol=5e-6, atol=1e-7)
    np.testing.assert_allclose(schedule.betas_cumsum[at], betas, rtol=5e-6, atol=1e-9)


def test_running_sums_are_accumulated_in_float64():
    values = coefficients(1000, "average")
    schedule = RDDMSchedule.polynomial(1000, alpha="average", beta="average", version="v2")
    exact = np.cumsum(values.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(schedule.alphas_cumsum, np.minimum(exact, 1))
    assert np.abs(np.cumsum(values, dtype=np.float32) - exact).max() > 1e-6  # what it guards from


def test_the_last_divisor_of_ddpm_is_true_unless_the_released_one_is_asked_for():
    clean = RDDMSchedule.from_ddpm("linear")
    compat = RDDMSchedule.from_ddpm("linear", compat_last_one_minus_alpha=True)
    assert clean.one_minus_alphas_cumsum[-1] == pytest.approx(0.006353, rel=1e-3)
    assert compat.one_minus_alphas_cumsum[-1] == np.float32(1e-6)
    assert RDDMSchedule.polynomial(9, version="v2").one_minus_alphas_cumsum.min() >= 1e-6


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_ddpm_schedules_give_ddpms_marginals(name):
    product = np.cumprod(1 - ddpm_betas(name, 50).astype(np.float64))
    schedule = RDDMSchedule.from_ddpm(name, 50)
    np.testing.assert_allclose(1 - schedule.alphas_cumsum, np.sqrt(product), atol=2e-7)
    np.testing.assert_allclose(schedule.betas_cumsum, np.sqrt(1 - product), atol=1e-5)
    given_betas = RDDMSchedule.from_ddpm(ddpm_betas(name, 50))
    np.testing.assert_array_equal(given_betas.alphas_cumsum, schedule.alphas_cumsum)


def test_reschedule_keeps_what_is_not_named():
    schedule = RDDMSchedule.from_ddpm("linear", 100)
    other = schedule.reschedule(alpha="increased", ratio_a=2.0)
    np.testing.assert_array_equal(other.betas_cumsum, schedule.betas_cumsum)
    assert other.alphas_cumsum[-1] == pytest.approx(1, abs=1e-6)
    small = RDDMSchedule.polynomial(100, sum_scale=0.01).reschedule(beta="average")
    assert small.betas_cumsum[-1] == pytest.approx(0.1, rel=1e-5)


def test_from_cumulative_takes_what_the_others_made():
    schedule = RDDMSchedule.from_ddpm("cosine", 20)
    again = RDDMSchedule.from_cumulative(schedule.alphas_cumsum, schedule.betas_cumsum)
    for field in ("alphas_cumsum", "betas_cumsum", "one_minus_alphas_cumsum"):
        np.testing.assert_array_equal(getattr(again, field), getattr(schedule, field))
    np.testing.assert_allclose(again.betas2[1:], schedule.betas2[1:], atol=1e-6)


def test_official_buffers_have_the_first_entry_of_the_released_class():
    schedule = RDDMSchedule.from_ddpm("linear", compat_last_one_minus_alpha=True)
    stored, testing = official_buffers(schedule), official_buffers(schedule, before_testing=True)
    assert stored["alphas"][0] == 0 and testing["alphas"][0] == testing["alphas"][1] > 0
    assert len(stored) == 12 and all(b.dtype == np.float32 for b in stored.values())


def test_posterior_coefficients_at_time_zero_give_the_clean_image():
    sums = np.array([0.1, 0.4]), np.array([0.0, 0.5])
    mean, variance = posterior_coefficients(np.array([0.1, 0.3]), np.array([0.0, 0.5]), *sums)
    assert [m[0] for m in mean] == [0, 0, 1] and variance[0] == 0


@quick
@given(total=st.integers(2, 1500), data=st.data())
def test_sampling_times_fall_from_the_last_to_minus_one(total, data):
    steps = data.draw(st.integers(1, total))
    for times in (sampling_times(total, steps), leading_times(total, steps)):
        assert len(times) == steps + 1 and times[-1] == -1 and times[0] < total
        assert (np.diff(times) < 0).all()
    assert sampling_times(total, steps)[0] == total - 1


def test_a_schedule_is_a_pytree_of_arrays():
    schedule = RDDMSchedule.polynomial(10)
    leaves = jax.tree.leaves(schedule)
    assert len(leaves) == len(dataclasses.fields(schedule))
    traced = []
    total = jax.jit(lambda s: traced.append(s) or s.alphas.sum())
    for one in (schedule, schedule.reschedule(alpha="average")):
        total(one)
    assert len(traced) == 1  # one program for all schedules of a length


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: coefficients(10, "rising"), "Unknown schedule shape 'rising': expected one of"),
        (lambda: coefficients(10, "normal", version="v1"), "version='v2' for the shape 'normal'"),
        (lambda: coefficients(10, "increased", version="v1", ratio=2.0), "ratio 1 with version"),
        (lambda: coefficients(10, "increased", ratio=0.0), "positive ratio, found 0.0"),
        (lambda: coefficients(1, "increased"), "at least 2 times, found 1"),
        (lambda: ddpm_betas("quadratic"), "Unknown DDPM schedule 'quadratic'"),
        (lambda: RDDMSchedule.polynomial(sum_scale=0.0), "above 0 and at most 1, found 0.0"),
        (lambda: RDDMSchedule.polynomial(sum_scale=1.5), "above 0 and at most 1, found 1.5"),
        (
            lambda: RDDMSchedule.from_coefficients([0.5, 0.4], [0.5, 0.5]),
            "alphas whose sum is one, found the sum 0.9",
        ),
        (
            lambda: RDDMSchedule.from_coefficients([0.5, 0.5], [0.5, 0.5], sum_scale=0.01),
            "betas2 whose sum is sum_scale = 0.01, found the sum 1",
        ),
        (lambda: RDDMSchedule.from_coefficients([1.5, -0.5], [1, 0]), "at least 0, found -0.5"),
        (lambda: RDDMSchedule.from_coefficients([1.0], [0.5, 0.5]), "equal length"),
        (lambda: RDDMSchedule.from_cumulative([0.5, 0.2], [0.5, 1]), "alphas_cumsum that rises"),
        (lambda: RDDMSchedule.from_cumulative([[0.5]], [0.5]), "equal length"),
        (lambda: RDDMSchedule.from_ddpm(np.array([0.1, 1.2])), "inside \\(0, 1\\)"),
        (lambda: sampling_times(10, 11), "between 1 and 10 sampling steps, found 11"),
        (lambda: sampling_times(10, 0), "between 1 and 10 sampling steps, found 0"),
    ],
)
def test_bad_schedules_are_refused_in_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
