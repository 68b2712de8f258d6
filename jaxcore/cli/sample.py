"""``jaxcore sample``."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace
from jaxcore.weights import Which

FILES = ("samples.png", "trajectory.png", "schedules.png", "samples.json")

_Shape = Literal["increased", "decreased", "average", "normal"]


def sample(
    weights: RunPlace,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    picture: Path | None = None,
    count: int = 9,
    size: tuple[int, ...] = (),
    steps: int = 10,
    eta: float = 0.0,
    seed: int = 0,
    order: Literal["simultaneous", "residual_then_noise", "noise_then_residual"] = "simultaneous",
    method: Literal["euler", "ancestral", "dpm2"] | None = None,
    mode: Literal["res_noise", "res", "noise", "x0"] | None = None,
    clip_mode: Literal["official", "ddim_exact", "none"] = "official",
    alpha: _Shape | None = None,
    beta: _Shape | None = None,
    ratio_a: float = 1.0,
    ratio_b: float = 1.0,
    prediction: Literal["epsilon", "x0", "v"] | None = None,
    preset: str | None = None,
    which: Which = "best",
    part: Annotated[str | None, tyro.conf.arg(name="set")] = None,
    overwrite: bool = False,
) -> None:
    """Generate pictures, or show how one is restored, step by step.

    Writes samples.png, trajectory.png (image, residual, noise and clean estimate of every step),
    schedules.png and samples.json (the settings).

    Args:
      weights: run directory or weight file of RDDM, or a file of denoising-diffusion-pytorch.
      output: folder for the pictures.
      picture: the picture to restore, for networks that restore.
      count: pictures to generate, or restorations from so many start noises.
      size: side of generated pictures in pixels, or their height and width; 64 without it.
      steps: calls of the networks (in each pass, where residual and noise go one by one).
      eta: fresh noise in the steps, 0 to 1.
      seed: of all noise.
      order: remove residual and noise together or one after the other.
      method: published steps, the ancestral loop, or the second-order solver; by default the
        ancestral loop where steps are as many as times, else the published steps.
      mode: which outputs are used; by default all.
      clip_mode: how predictions are cut; ddim_exact is that of DDIM.
      alpha: another shape of alpha than in training, for "cumulative" networks.
      beta: another shape of beta squared than in training.
      ratio_a: exponent of the shape of alpha.
      ratio_b: exponent of the shape of beta squared.
      prediction: what a network of denoising-diffusion-pytorch predicts; v without it.
      preset: published configuration, for official files that do not hold theirs.
      which: checkpoint of a run directory.
      part: name of a set of weights in a file of several (ema); chosen without it.
      overwrite: replace the pictures of an earlier call.
    """
    import jax

    from jaxcore.atomic import check_folder, whole_folder, write_json
    from jaxcore.data.images import write_image
    from jaxcore.errors import UserError
    from jaxcore.figures import grid
    from jaxcore.models.rddm.process.forward import to_signed, to_unit
    from jaxcore.models.rddm.sampling.plots import plot_schedules, trajectory_cells
    from jaxcore.models.rddm.sampling.sampler import sample as run
    from jaxcore.ops.padding import pad_to_multiple

    check_folder(output, FILES, overwrite=overwrite)
    sides = size or (64,)
    if count < 1 or min(sides) < 1 or len(sides) > 2:
        raise UserError(
            f"Expected a positive count and one or two positive sizes, found {count} and "
            f"{' '.join(map(str, sides))}."
        )
    if picture is not None and size:
        raise UserError("Expected no --size beside --picture, whose own size is kept, found both.")
    for name, shape, ratio in (("alpha", alpha, ratio_a), ("beta", beta, ratio_b)):
        if shape is None and ratio != 1:
            raise UserError(f"Expected --{name} beside --ratio-{name[0]}, found the ratio alone.")
    model = _load(weights, preset, which, part, prediction)
    schedule = trained = model.schedule
    if alpha is not None or beta is not None:
        model.check_reschedule()
        schedule = trained.reschedule(alpha=alpha, beta=beta, ratio_a=ratio_a, ratio_b=ratio_b)
    table = _table(schedule, steps, eta=eta, order=order, method=method, clip_mode=clip_mode)
    degraded = model.degraded(picture)
    padded = None
    if degraded is not None:
        padded = np.repeat(pad_to_multiple(degraded, model.multiple)[None], count, axis=0)
    images, seen = run(
        model.apply_fn,
        model.params,
        None if padded is None else to_signed(jax.numpy.asarray(padded)),
        shape=None if padded is not None else (count, *model.sides(sides), model.channels),
        table=table,
        objective=model.objective,
        key=jax.random.key(seed),
        mode=mode,
        return_trajectory=True,
    )
    if degraded is not None:
        high, broad = degraded.shape[:2]
        images, seen = jax.tree.map(lambda x: x[..., :high, :broad, :], (images, seen))
    shown = [(np.asarray(image), "") for image in to_unit(images)]
    if degraded is not None:
        shown = [(degraded, "input"), *shown]
    wide = int(np.ceil(len(shown) ** 0.5))
    pictures = {
        "samples.png": grid([shown[i : i + wide] for i in range(0, len(shown), wide)]),
        "trajectory.png": grid(trajectory_cells(seen, table)),
    }
    curves = {"training": trained}
    if schedule is not trained:
        curves = {"sampling": schedule, **curves}
    plot = plot_schedules(curves, table=table)
    settings = {
        "weights": str(weights),
        "network": model.about,
        "count": count,
        "picture": None if picture is None else str(picture),
        "size": list(images.shape[1:3]),
        "steps": steps,
        "eta": eta,
        "seed": seed,
        "order": order,
        "method": method,
        "mode": mode,
        "clip_mode": clip_mode,
        "alpha": alpha,
        "beta": beta,
        "ratio_a": ratio_a,
        "ratio_b": ratio_b,
        "preset": preset,
        "which": which,
    }
    with whole_folder(output, among=True) as folder:
        for name, pixels in pictures.items():
            write_image(folder / name, pixels / np.float32(255))
        plot.savefig(folder / "schedules.png", dpi=110)
        write_json(folder / "samples.json", settings)
    show(f"{count} pictures of {images.shape[2]}x{images.shape[1]} pixels, {len(table)} steps")
    show(f"written: {output}")


def _table(
    schedule: Any, steps: int, *, eta: float, order: str, method: str | None, clip_mode: str
) -> Any:
    """The table of the one sampler that the options name."""
    from jaxcore.errors import UserError
    from jaxcore.models.rddm.sampling import SAMPLERS
    from jaxcore.models.rddm.sampling.released import sampling_table

    own = (order, clip_mode) if method in (None, "euler") else (order, method, clip_mode)
    names = [name for name in own if name not in ("simultaneous", "official", "none")]
    if len(names) > 1:
        raise UserError(f"Expected one sampler, found {' and '.join(names)}.")
    name = names[0] if names else method
    if eta and name in ("ancestral", "dpm2"):
        raise UserError(f"Expected no eta for method {name!r}, found {eta}.")
    options = {"clip": clip_mode != "none", **({"eta": eta} if eta else {})}
    return (SAMPLERS[name] if name else sampling_table)(schedule, steps, **options)


@dataclasses.dataclass(frozen=True)
class _Model:
    """What the sampler needs to know of a network."""

    apply_fn: Any
    params: Any
    schedule: Any
    objective: Any
    channels: int
    multiple: int
    restores: bool
    conditions: int
    about: dict[str, Any]

    def check_reschedule(self) -> None:
        from jaxcore.errors import UserError

        if self.objective.time_conditioning != "cumulative":
            raise UserError(
                "Expected a network with time_conditioning='cumulative' for another schedule than "
                f"in training, found {self.objective.time_conditioning!r}."
            )

    def sides(self, sizes: tuple[int, ...]) -> tuple[int, int]:
        from jaxcore.errors import UserError

        wrong = [size for size in sizes if size % self.multiple]
        if wrong:
            raise UserError(
                f"Expected a size that is a multiple of {self.multiple}, found {wrong[0]}."
            )
        return sizes[0], sizes[-1]

    def degraded(self, picture: Path | None) -> np.ndarray | None:
        """The picture to restore; None to generate."""
        from jaxcore.data.images import read_image
        from jaxcore.errors import UserError

        if self.conditions:
            raise UserError(
                f"Expected a network without further conditions, found one with {self.conditions} "
                "channels of them: use jaxcore restore."
            )
        if picture is None and self.restores:
            raise UserError("Expected --picture for a network that restores, found none.")
        if picture is None:
            return None
        if not self.restores:
            raise UserError("Expected no --picture for a network that generates, found one.")
        return read_image(picture).unit()


def _load(
    weights: Path, preset: str | None, which: Which, part: str | None, prediction: Any
) -> _Model:
    from jaxcore.errors import UserError
    from jaxcore.models import rddm
    from jaxcore.weights import load

    tensors = None if weights.is_dir() else _tensors(weights, part)
    if tensors is not None and any(key.endswith("mid_attn.mem_kv") for key in tensors):
        if preset is not None:
            raise UserError(f"The settings of {weights} are read: leave the preset out.")
        return _third_party(tensors, "v" if prediction is None else prediction)
    if prediction is not None:
        raise UserError(
            "Expected no --prediction for networks of RDDM, which have objectives, found "
            f"{prediction!r}."
        )
    loaded = load(
        weights, model=None if weights.is_dir() else "rddm", preset=preset, which=which, part=part
    )
    for note in loaded.notes:
        show(note)
    network, cfg, params = loaded.network, loaded.cfg, loaded.params
    if network.task != "diffusion":
        raise UserError(f"Expected weights of a diffusion model, found weights of {network.name}.")
    return _Model(
        rddm.apply_fn(cfg),
        rddm.standardise(params.get("network", params), cfg),
        cfg.schedule.make(),
        rddm.objective_of(params, cfg),
        network.channels(cfg),
        network.multiple(cfg),
        network.restores(cfg),
        cfg.condition_channels,
        cfg.to_dict(),
    )


def _tensors(weights: Path, part: str | None) -> Any:
    """Of the set that is named, or the first in which the search for a network of others ends."""
    from jaxcore.convert import read_sets

    found = [file for file in read_sets(weights) if part in (None, file.where)]
    averaged = [file for file in found if "ema" in file.where.split("/")[-1]]
    return next((file.tensors for file in (*averaged, *found)), None)


def _third_party(tensors: Any, prediction: Any) -> _Model:
    from jaxcore.models.rddm import interop
    from jaxcore.models.rddm.sampling.ddim import DDIMNetwork

    cfg = interop.config_from_ddpm_torch(tensors)
    return _Model(
        interop.ddpm_network(cfg),
        interop.from_ddpm_torch(tensors, cfg),
        interop.schedule_from_ddpm_torch(tensors),
        DDIMNetwork(prediction=prediction, self_condition=cfg.self_condition),
        cfg.channels,
        cfg.multiple,
        False,
        0,
        {"prediction": prediction, **cfg.to_dict()},
    )
