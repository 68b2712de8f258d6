"""Checks of RDDM's golden files that concern the diffusion itself."""

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.coefficients import coefficients, ddpm_betas, sampling_times
from jaxcore.models.rddm.process.losses import Draw, rddm_loss
from jaxcore.models.rddm.process.objectives import FORMS, RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule, official_buffers
from jaxcore.models.rddm.process.selector import ObjectiveSelector
from tests.parity.golden import Golden, close, equal, nhwc

EXACT = {"atol": 1e-6, "rtol": 1e-5}
ALGEBRA = {"atol": 1e-5, "rtol": 1e-5}

# Experiment of the released code -> its schedule, in released form.
SCHEDULES: dict[str, Callable[..., RDDMSchedule]] = {
    "exp0": lambda steps, scale: RDDMSchedule.from_ddpm(
        "linear", steps, compat_last_one_minus_alpha=True
    ),
    "exp2": lambda steps, scale: RDDMSchedule.polynomial(
        steps, sum_scale=scale, version="v1", compat_last_one_minus_alpha=True
    ),
    "exp6": lambda steps, scale: RDDMSchedule.polynomial(
        steps, sum_scale=scale, version="v2", compat_last_one_minus_alpha=True
    ),
}
SCHEDULES |= {"exp4": SCHEDULES["exp6"]} | dict.fromkeys(("exp3", "exp5"), SCHEDULES["exp0"])
# As the released code changes them before testing.
BEFORE_TESTING: dict[str, Callable[[int], RDDMSchedule]] = {
    "exp0": lambda steps: SCHEDULES["exp0"](steps, 1.0),
    "exp6": lambda steps: RDDMSchedule.polynomial(
        steps, beta="average", ratio_a=2.0, version="v2", compat_last_one_minus_alpha=True
    ),
}


def check_schedules(path: Path) -> None:
    file = Golden(path)
    buffers = {}
    for key, golden in file.group("out").items():
        name, *rest = key.split("/")
        if name in ("v1", "v2_f32", "v2_f64"):
            steps, shape = int(rest[0][1:]), rest[1]
            options = {"version": name[:2], "precision": f"float{name[-2:]}"}
            if name == "v1":
                options["precision"] = "float64"
            else:
                options["ratio"] = float(rest[2].removeprefix("ratio"))
            ours = coefficients(steps, shape, **options)
        elif name == "cosine_betas":
            ours = ddpm_betas("cosine", int(rest[0][1:]))
        else:
            group = key.rpartition("/")[0]
            if group not in buffers:
                if "_init" in name:
                    experiment, steps = name.split("_init_T")
                    schedule = BEFORE_TESTING[experiment](int(steps))
                    repeat = experiment == "exp0"
                    buffers[group] = official_buffers(schedule, before_testing=repeat)
                else:
                    steps, scale = int(rest[0][1:]), float(rest[1].removeprefix("sum_scale"))
                    buffers[group] = official_buffers(SCHEDULES[name](steps, scale))
            ours = buffers[group][rest[-1]]
        close(ours, golden, **EXACT, what=key)


def check_times(path: Path) -> None:
    file = Golden(path)
    for name, golden in file.group("out").items():
        ours = sampling_times(file.config["T"], int(name[1:]))
        equal(ours, golden, what=name)


def check_process(path: Path) -> None:
    file = Golden(path)
    make = SCHEDULES[f"exp{file.config['exp']}"]
    schedule = make(file.config["T"], file.config["sum_scale"])
    clean, degraded, noise = (file.image(f"in/{n}") for n in ("x0", "x_input", "noise"))
    t = file["in/t"].astype(np.int32)

    def run(schedule, x, clean, degraded, noise, t):
        level, before = (forward.level_at(schedule, at) for at in (t, jnp.maximum(t - 1, 0)))
        first, end = (t == 0)[:, None, None, None], forward.Level(*jnp.float32([0, 0, 1]))
        before = jax.tree.map(functools.partial(jnp.where, first), end, before)
        residual = degraded - clean
        # What is divided by a small number starts from the stored image, bit by bit.
        posterior = forward.q_posterior(x, residual, clean, level, before)
        start = forward.clean_from_both(x, residual, noise, level)
        # The released mean from residual and noise: the clean image is the uncut estimate.
        return {
            "q_sample": forward.q_sample(clean, residual, noise, level),
            "predict_noise_from_res": forward.noise_from_residual(x, degraded, residual, level),
            "predict_start_from_xinput_noise": forward.clean_from_noise(x, degraded, noise, level),
            "predict_start_from_res_noise": start,
            "q_posterior_from_res_noise": forward.q_posterior(
                x, residual, start, level, before
            ).mean,
            "q_posterior_mean": posterior.mean,
            "q_posterior_var": posterior.variance,
            "q_posterior_log_var_clipped": posterior.log_variance,
        }

    inputs = schedule, nhwc(file["out/q_sample"]), clean, degraded, noise, t
    separate, fused = run(*inputs), jax.jit(run)(*inputs)
    # A compiled product and sum are rounded once, not twice, and that difference is divided: by the
    # standard deviation of the noise, small at time 0, and by what is left of the image, small at
    # the last time.
    least = np.finfo(np.float32).tiny  # what is left can be nothing, and the result infinite
    rounding = {
        "predict_noise_from_res": 2**-22 / np.maximum(schedule.betas_cumsum[t], least),
        "predict_start_from_xinput_noise": 2**-22
        / np.maximum(schedule.one_minus_alphas_cumsum[t], least),
    }
    for name, golden in file.group("out").items():
        close(separate[name], nhwc(golden), **ALGEBRA, what=name, where_finite=True)
        found = np.asarray(fused[name])
        for i, allowed in enumerate(1e-5 + rounding.get(name, np.zeros(len(t)))):
            what = f"{name}, compiled, time {t[i]}"
            how = {"atol": allowed, "rtol": 1e-5, "where_finite": True}
            close(found[i], nhwc(golden)[i], what=what, **how)


def _draw(file: Golden, schedule: RDDMSchedule, *, restoration: bool = True) -> Draw:
    clean, degraded = (2 * file.image(f"in/{n}") - 1 for n in ("gt01", "input01"))
    if not restoration:
        degraded = np.zeros_like(clean)
    noise, t = file.image("in/noise"), file["in/t"].astype(np.int32)
    level = forward.level_at(schedule, t)
    x = forward.q_sample(clean, degraded - clean, noise, level)
    return Draw(x, degraded, clean, noise, t, level)


def check_losses(path: Path) -> None:
    file = Golden(path)
    outputs = [file.image(f"in/model_out{i}") for i in (0, 1)]
    schedules = {
        name: SCHEDULES[name](file.config["T"], file.config["sum_scale"]) for name in SCHEDULES
    }
    for exp, objective, loss in _loss_cases(file):
        _check_loss(file, schedules[exp], outputs, exp, objective, loss)
    _check_predictions(file, schedules, outputs)
    _check_generation(file, schedules["exp6"], outputs)
    _check_selection(file, schedules["exp0"], outputs[0])
    times = forward.network_times(file["in/t"].astype(np.int32), schedules["exp0"], "cumulative", 2)
    for ours, name in zip(times, ("time_res", "time_noise"), strict=True):
        close(ours, file[f"out/exp0/{name}"], atol=1e-3, rtol=1e-5, what=name)


def _loss_cases(file: Golden) -> list[tuple[str, ...]]:
    cases = {
        (*key.split("/")[:2], key.split("/")[2])
        for key in file.group("out")
        if re.match(r"exp\d/pred_\w+/l[12]/", key)
    }
    return sorted(cases)


def _check_loss(file, schedule, outputs, exp, name, loss) -> None:
    objective = RDDMObjective(name=name, loss=loss)
    drawn = _draw(file, schedule)
    outputs = tuple(outputs[: objective.num_outputs])
    batch = {"clean": drawn.clean, "degraded": drawn.degraded}

    def run(outputs):
        return rddm_loss(
            outputs,
            lambda p, x, time: p,
            batch,
            jax.random.key(0),
            schedule=schedule,
            objective=objective,
            t=drawn.t,
            noise=drawn.noise,
        )

    (total, parts), gradients = jax.jit(jax.value_and_grad(run, has_aux=True))(outputs)
    group = f"out/{exp}/{name}/{loss}"
    if f"{group}/loss" in file:
        close(total, file[f"{group}/loss"], **ALGEBRA, what=group)
    for i, gradient in enumerate(gradients):
        if f"{group}/loss{i}" in file:
            close(parts[f"loss{i}"], file[f"{group}/loss{i}"], **ALGEBRA, what=f"{group} {i}")
        if f"{group}/grad_out{i}" in file:
            golden = nhwc(file[f"{group}/grad_out{i}"])
            close(gradient, golden, **ALGEBRA, what=f"{group} gradient {i}")


def _check_prediction(file, schedule, outputs, group, name, mode, *, restoration=True) -> None:
    objective = RDDMObjective(name=name)
    drawn = _draw(file, schedule, restoration=restoration)
    outputs = tuple(outputs[: objective.num_outputs])
    found = objective.predict(outputs, drawn.x, drawn.degraded, drawn.level, mode=mode)
    fields = {"pred_res": "residual", "pred_noise": "noise", "pred_x_start": "clean"}
    for key, field in fields.items():
        golden = nhwc(file[f"{group}/{key}"])
        close(getattr(found, field), golden, **ALGEBRA, what=f"{group}/{key}", where_finite=True)


def _check_predictions(file, schedules, outputs) -> None:
    for name, (experiment, schedule) in itertools.product(FORMS, schedules.items()):
        group = f"out/{experiment}/{name}"
        if f"{group}/pred_res" in file:
            _check_prediction(file, schedule, outputs, group, name, None)
    for kind, restoration in (("generation", False), ("restoration", True)):
        for mode in ("res_noise", "res", "noise"):
            group = f"out/exp6_{kind}/{mode}"
            _check_prediction(
                file,
                schedules["exp6"],
                outputs,
                group,
                "pred_res_noise",
                mode,
                restoration=restoration,
            )
    drawn = _draw(file, schedules["exp2"])
    seen = forward.network_input(drawn.x, degraded=drawn.degraded)
    close(seen, nhwc(file["out/exp2/network_input"]), **ALGEBRA, what="network input")


def _check_generation(file, schedule, outputs) -> None:
    drawn = _draw(file, schedule, restoration=False)
    seen = []

    def apply_fn(params, x, time):
        seen.append(x)
        return params

    _, parts = rddm_loss(
        tuple(outputs),
        apply_fn,
        {"clean": drawn.clean},
        jax.random.key(0),
        schedule=schedule,
        objective=RDDMObjective(loss="l2"),
        t=drawn.t,
        noise=drawn.noise,
    )
    for i in (0, 1):
        close(parts[f"loss{i}"], file[f"out/exp6_generation/loss{i}"], **ALGEBRA, what=f"loss {i}")
    golden = nhwc(file["out/exp6_generation/network_input"])
    close(seen[0], golden, **ALGEBRA, what="network input of generation")


def _check_selection(file, schedule, output) -> None:
    drawn, selector = _draw(file, schedule), ObjectiveSelector()
    states = {-1: None, 0: "noise", 1: "residual"}

    def total(weight, output):
        found = selector.score(weight, output, drawn)
        return found.total, found

    run = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    for weight in sorted({key.split("/")[1] for key in file.group("out") if "aosa" in key}):
        (by_weight, by_output), found = run(jnp.float32(weight), output)
        group = f"out/aosa/{weight}"
        golden = {
            "loss_res": found.residual,
            "loss_noise": found.noise,
            "total": found.total,
            "grad_lambda": by_weight[None],
            "state_after": found.decided,
        }
        for key, ours in golden.items():
            close(ours, file[f"{group}/{key}"], **ALGEBRA, what=f"{group}/{key}")
        golden = nhwc(file[f"{group}/grad_out0"])
        close(by_output, golden, **ALGEBRA, what=f"{group} gradient")
        state = states[int(file[f"{group}/state_after"])]
        assert selector.choice(float(weight)) == state, group


CHECKS: dict[str, Callable[[Path], None]] = {
    "forward_posterior": check_process,
    "losses_predictions": check_losses,
    "schedules": check_schedules,
    "timesteps": check_times,
}
