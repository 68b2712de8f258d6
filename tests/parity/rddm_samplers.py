"""Checks of RDDM's golden files that hold whole trajectories of samplers with networks."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.models import rddm
from jaxcore.models.rddm import RDDMConfig
from jaxcore.models.rddm.process import forward
from jaxcore.models.rddm.process.coefficients import ddpm_betas, leading_times
from jaxcore.models.rddm.process.forward import Level
from jaxcore.models.rddm.process.objectives import Prediction, RDDMObjective
from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.ddim import (
    DDIMNetwork,
    adjust_alpha,
    ddim_step,
    ddim_step_as_rddm,
    ddim_table,
)
from jaxcore.models.rddm.sampling.released import (
    along_path,
    generalised,
    noise_then_residual,
    residual_then_noise,
    sampling_table,
)
from jaxcore.models.rddm.sampling.sampler import sample
from jaxcore.models.rddm.sampling.table import padded
from tests.parity.golden import Golden, close, nhwc

SAMPLER = {"atol": 5e-4, "rtol": 0}
EXACT = {"atol": 1e-6, "rtol": 1e-5}


def _networks(file: Golden, name: str, **options: Any) -> tuple[Any, Any]:
    """Function and parameters of the networks of a file."""
    sizes = {key: file.config[key] for key in ("dim", "groups")}
    unet = {"dim_mults": tuple(file.config["dim_mults"]), **sizes}
    cfg = RDDMConfig.deraining(unet=unet, **options)
    prefix = f"param/{name}"
    weights = {
        "model." + key.removeprefix(prefix): value
        for key, value in file.arrays.items()
        if key.startswith(prefix)
    }
    if not name:
        weights = {key.replace("model.", "model.unet0."): v for key, v in weights.items()}
    return functools.partial(rddm.apply, cfg=cfg), rddm.from_torch(weights, cfg)


@dataclasses.dataclass(frozen=True)
class _OneOf:
    """Several ways to read the networks in one compiled sampler; the last output chooses."""

    ways: tuple[tuple[RDDMObjective, str | None], ...]
    num_outputs: int = 2
    time_conditioning: str = "index"
    concat_input: bool = True
    self_condition: bool = False

    def check_mode(self, mode: None) -> None:
        assert mode is None

    def predict(self, outputs, x, degraded, level, *, mode, clip) -> Prediction:
        *outputs, which = outputs
        found = [
            objective.predict(tuple(outputs), x, degraded, level, mode=mode, clip=clip)
            for objective, mode in self.ways
        ]
        chosen = which[0, 0, 0, 0].astype(int)
        return jax.tree.map(lambda *parts: jax.lax.select_n(chosen, *parts), *found)


def _case(name: str, steps: int) -> tuple[RDDMSchedule, RDDMObjective, dict[str, Any], str | None]:
    """Schedule, objective, options of the table and mode that a name of `samplers.npz` tells."""
    given = dict(re.findall(r"_(T|S|sumscale|eta|SM_)([a-z]+|[\d.]+)", name))
    total, scale = int(given["T"]), float(given.get("sumscale", 1))
    version = "v1" if name.startswith("exp2") else "v2"
    schedule = RDDMSchedule.polynomial(
        total, version=version, sum_scale=scale, compat_last_one_minus_alpha=True
    )
    objective = RDDMObjective(name="pred_x0_noise" if "x0noise" in name else "pred_res_noise")
    steps = total if "ancestral" in name else int(given.get("S", steps))
    options: dict[str, Any] = {"steps": steps}
    if "eta" in given:
        options["eta"] = float(given["eta"])
    return schedule, objective, options, given.get("SM_")


def _compare(file: Golden, name: str, start: np.ndarray, states: np.ndarray) -> None:
    """Restoration is stored with its start, generation without; both in [0, 1]."""
    golden = nhwc(file[f"out/{name}/trajectory"])
    ours = np.concatenate([start[None], states]) if len(golden) > len(states) else states
    close(forward.to_unit(ours), golden, **SAMPLER, what=name)


def check_samplers(path: Path) -> None:
    file = Golden(path)
    degraded = 2 * file.image("in/input01") - 1
    names = sorted({key.split("/")[0] for key in file.group("out")})
    networks = {"exp2": ("restore2.", {}), "exp6": ("gen2.", {"kind": "generation"})}
    sources = {
        experiment: _networks(file, prefix, **options)
        for experiment, (prefix, options) in networks.items()
        if any(name.startswith(experiment) for name in names)  # a file may hold one of them
    }
    cases = {name: _case(name, file.config["S"]) for name in names}
    tables = {name: sampling_table(case[0], **case[2]) for name, case in cases.items()}
    longest = max(map(len, tables.values()))  # tables of one length compile once
    kinds = {e: [c[1::2] for n, c in cases.items() if n.startswith(e)] for e in sources}
    readers = {e: _OneOf(tuple(dict.fromkeys(ways))) for e, ways in kinds.items()}
    functions = {e: _choosing(apply_fn) for e, (apply_fn, _) in sources.items()}
    for name, (_, objective, _, mode) in cases.items():
        experiment = name.split("_")[0]
        restores, reader = experiment == "exp2", readers[experiment]
        noise, table = nhwc(file[f"in/{name}/noise"]), tables[name]
        way = jnp.float32(reader.ways.index((objective, mode)))
        _, seen = sample(
            functions[experiment],
            (sources[experiment][1], way),
            degraded if restores else None,
            shape=None if restores else noise.shape[1:],
            table=padded(table, longest),
            objective=reader,
            noise=noise,
            return_trajectory=True,
        )
        _compare(file, name, seen.start, seen.states[: len(table)])


def _choosing(apply_fn: Callable[..., Any]) -> Callable[..., Any]:
    """The networks, and behind their outputs which way to read them."""

    def run(params: Any, x: Any, time: Any) -> Any:
        networks, way = params
        outputs = apply_fn(networks, x, time)
        return (*outputs, jnp.full_like(outputs[0], way))

    return run


_ORDERS = {
    "simultaneous": sampling_table,
    "residual_then_noise": residual_then_noise,
    "noise_then_residual": noise_then_residual,
}


def check_paths(path: Path) -> None:
    file = Golden(path)
    apply_fn, params = _networks(
        file, "gen2.", kind="generation", objective={"time_conditioning": "cumulative"}
    )
    trained = RDDMSchedule.from_ddpm("linear", file.config["T"], compat_last_one_minus_alpha=True)
    objective = RDDMObjective(time_conditioning="cumulative")
    pattern = re.compile(r"sched_alpha_([a-z]+)([\d.]*)_beta_([a-z]+)([\d.]*)$")
    for name in sorted({key.split("/")[0] for key in file.group("out")}):
        schedule, sampler = trained, sampling_table
        if found := pattern.match(name):
            alpha, ratio_a, beta, ratio_b = found.groups()
            schedule = trained.reschedule(
                alpha=alpha, beta=beta, ratio_a=float(ratio_a or 1), ratio_b=float(ratio_b or 1)
            )
        else:
            sampler = next(_ORDERS[order] for order in _ORDERS if name.startswith(order))
        noise = nhwc(file[f"in/{name}/noise"])
        table = sampler(schedule, file.config["S"])
        _, seen = sample(
            apply_fn,
            params,
            shape=noise.shape[1:],
            table=padded(table, 2 * file.config["S"]),
            objective=objective,
            noise=noise,
            return_trajectory=True,
        )
        _compare(file, name, seen.start, seen.states[: len(table)])
    _check_oracle(file, trained)


def _check_oracle(file: Golden, trained: RDDMSchedule) -> None:
    """With constant residual and noise every path ends at the same clean image."""
    clean, noise = file.image("in/oracle_x0"), file.image("in/oracle_eps")
    objective = RDDMObjective(residual_clip=None)
    start = RDDMSchedule.polynomial(len(trained), version="v2")
    for schedule in (
        start,
        start.reschedule(alpha="average", beta="average"),
        start.reschedule(alpha="increased", ratio_a=2.0, beta="decreased", ratio_b=0.3),
    ):
        tables = {
            f"{part} first": along_path(schedule, 4, first=part, clip=False)
            for part in ("residual", "noise")
        }
        for name, table in {"both": generalised(schedule, 4, clip=False), **tables}.items():
            made = sample(
                _constant,
                (-clean, noise),
                shape=clean.shape,
                table=table,
                objective=objective,
                noise=noise[None],
            )
            close(made, clean, atol=1e-5, rtol=0, what=f"oracle, {name}")


def _constant(params: Any, x: Any, time: Any) -> Any:
    return params


def check_conversion(path: Path) -> None:
    file = Golden(path)
    total, steps = file.config["num_train_timesteps"], file.config["steps"]
    schedule = RDDMSchedule.from_ddpm("linear", total)
    close(schedule.alphas_cumsum, file["out/alphas_cumsum_res"], **EXACT, what="alphas")
    close(schedule.betas_cumsum, file["out/betas_cumsum_res"], **EXACT, what="betas")
    for name, golden in file.group("out/betas").items():
        ours = ddpm_betas("cosine" if name == "squaredcos_cap_v2" else name, total)
        close(ours, golden, **EXACT, what=name)
    options = {"kind": "generation", "objective": {"name": "pred_noise"}}
    networks = _networks(file, "", **options)
    noise = np.concatenate([file.image("in/x_T")[None], nhwc(file["in/variance_noise"])[:-1]])

    def run(schedule: RDDMSchedule, eta: float, clip_mode: str) -> np.ndarray:
        table = ddim_table(schedule, steps, eta=eta, clip_mode=clip_mode)
        _, seen = sample(
            *networks,
            shape=noise.shape[1:],
            table=table,
            objective=DDIMNetwork(),
            noise=noise,
            return_trajectory=True,
        )
        return np.concatenate([seen.start[None], seen.states])

    modes = {"rddm/clipTrue": "official", "ddim/clipTrue": "ddim_exact"}
    for kind, clip in itertools.product(("rddm", "ddim"), ("clipTrue", "clipFalse")):
        clip_mode = modes.get(f"{kind}/{clip}", "none")
        for eta, stored in file.group(f"out/{kind}/{clip}").items():
            golden, allowed = nhwc(stored), 5e-4
            if clip_mode == "none":
                allowed = max(allowed, 2e-6 * float(np.abs(golden).max()))
            ours = run(schedule, float(eta.removeprefix("eta")), clip_mode)
            close(ours, golden, atol=allowed, rtol=0, what=f"{kind}, {clip}, {eta}")
    for name, golden in file.group("out/rddm_adjust/clipTrue").items():
        eta, shape, ratio = re.split("/|_ratio", name)
        adjusted = adjust_alpha(schedule, shape, float(ratio))
        ours = run(adjusted, float(eta.removeprefix("eta")), "official")
        close(ours, nhwc(golden), **SAMPLER, what=f"alpha {name}")
    _check_single_steps(file, schedule)


def _check_single_steps(file: Golden, schedule: RDDMSchedule) -> None:
    """Steps of a ten-step sampler, with predictions cut and without fresh noise."""
    x, output = file.image("in/step_sample"), file.image("in/step_model_output")
    products = np.append(file["out/alphas_cumprod"], np.float32(1))
    times = leading_times(len(schedule), 10)

    def level(t: int) -> Level:
        if t < 0:
            return Level(*(jnp.float32(v) for v in (0, 0, 1)))
        sums = schedule.alphas_cumsum, schedule.betas_cumsum, schedule.one_minus_alphas_cumsum
        return Level(*(jnp.float32(s[t]) for s in sums))

    for key, golden in file.group("out/step").items():
        kind, at, rederive, field = key.split("/")
        t = int(at[1:])
        s = int(times[np.flatnonzero(times == t)[0] + 1])
        network = DDIMNetwork(rederive_noise=rederive.endswith("True"))
        if kind == "rddm":
            found = ddim_step_as_rddm(x, output, level(t), level(s), network=network)
        else:
            found = ddim_step(x, output, products[t], products[s], network=network)
        ours = found.x if field == "prev" else found.clean
        close(ours, nhwc(golden), **SAMPLER, what=key)


CHECKS: dict[str, Callable[[Path], None]] = {
    "ddim_conversion": check_conversion,
    "path_independence": check_paths,
    "samplers": check_samplers,
}
