"""``jaxcore evaluate``."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from jaxcore.cli.asking import Asking, evaluate_answers
from jaxcore.cli.evaluate_metrics import Further, MetricName
from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace
from jaxcore.data.images.kinds import ImageData, Photos
from jaxcore.weights import Which

if TYPE_CHECKING:
    from jaxcore.train.tasks.deconvolution import DeconvolutionTask
    from jaxcore.typing import Params

_UNSAID = Photos()
_UNASKED = Asking()


def evaluate(
    weights: tyro.conf.Positional[RunPlace],
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    data: ImageData = _UNSAID,
    photos: bool = False,
    model: str | None = None,
    preset: str | None = None,
    which: Which = "best",
    part: Annotated[str | None, tyro.conf.arg(name="set")] = None,
    images: int | None = None,
    tile: int | None = None,
    steps: int | None = None,
    protocol: str | None = None,
    metrics: tuple[MetricName, ...] = (),
    metric_weights: tuple[Path, ...] = (),
    crop_multiple: int | None = None,
    seed: int = 0,
    legacy_rng: bool = False,
    asking: Asking = _UNASKED,
) -> None:
    """Measure PSNR and SSIM on degraded and clean images.

    Of a run on stamps of galaxies: errors and fluxes after every step, on the data of the run. Of a
    language model (--asking.file): answers to the questions of POPE, MME or VLind-Bench.
    All options of the data: --help-all.

    Args:
      weights: run directory or official weight file.
      out: folder for ``metrics.json``, ``images.csv`` and ``restored.png`` (of stamps
        ``metrics.json`` and ``deconvolved.png``).
      data: images to use; left as it is, those of the run, or the photographs of the demo where
        the weights are a file.
      photos: use the photographs of the demo also for a run on other data.
      model: name of the network, where it cannot be read from the weights.
      preset: published configuration, for official files that do not hold theirs (RDDM).
      which: checkpoint of a run directory.
      part: name of a set of weights in a file of several (net_g_ema); without it the one that fits
        the network, and of several that do a moving average.
      images: at most so many images per degradation.
      tile: side of tiles in pixels; whole images without it.
      steps: calls of a diffusion model's networks.
      protocol: PSNR and SSIM in RGB ("rgb"; "rgb_gaussian" for dehazing), on 8-bit luma ("y"), or
        as MATLAB has them for 8-bit RGB ("matlab_rgb"); that of the run, or "rgb". With
        --data.prepare.size 256 --data.prepare.truth matlab, "y" is what RDDM prints.
      metrics: further ones, for which smaller is better: lpips, dists, and fid between the restored
        and the clean pictures. None of their weights come with jaxcore.
      metric_weights: files for them, in any order: torchvision's alexnet or vgg16, LPIPS's linear
        layers, DISTS's alpha and beta, FID's Inception v3. With torchvision's Inception the
        distance is called frechet_torchvision, because it is no FID.
      crop_multiple: crop images centrally to sides of multiples of this; 1 keeps all of them. That
        of the run, or 16 (the protocol of AdaIR) for "rgb" and 1 for the others.
      seed: of degradations that are made on the fly.
      legacy_rng: draw noise 15, 25, 50 from one stream, as the official tester does.
      asking: questions for a language model, in the place of images to restore.
    """
    if asking != _UNASKED:
        evaluate_answers(weights, asking, out, seed)
        return
    import jax

    from jaxcore.cli.progress import track
    from jaxcore.errors import UserError
    from jaxcore.parallel import make_mesh, replicated
    from jaxcore.registry import task_class, task_of
    from jaxcore.serial import from_json
    from jaxcore.train import read_config
    from jaxcore.train.tasks.images import comparison, summarise
    from jaxcore.weights import load

    if images is not None and images < 0:
        raise UserError(f"--images must be at least 0, found {images}.")
    further = Further(metrics, metric_weights)
    loaded = load(weights, model=model, preset=preset, which=which, part=part)
    for note in loaded.notes:
        show(note)
    network, cfg, params = loaded.network, loaded.cfg, loaded.params
    if jax.local_device_count() > 1 and jax.default_backend() != "cpu":
        # One image at a time on each; devices that are parts of one CPU would gain nothing.
        params = jax.device_put(params, replicated(make_mesh(devices=jax.local_devices())))
    if not network.restores(cfg):
        raise UserError(f"Expected weights that restore images, found generation in {weights}.")
    if weights.is_dir() and (stored := read_config(weights)).get("task") == "deconvolution":
        of_pictures = (tile, steps, protocol, crop_multiple, *metrics)
        if data != _UNSAID or photos or any(value is not None for value in of_pictures):
            raise UserError(
                f"Expected no options of pictures for a run on stamps, found some for {weights}."
            )
        stamps = from_json(task_class("deconvolution"), stored["task_config"], where="task_config")
        stamps = dataclasses.replace(stamps, eval_images=images, eval_seed=seed)
        _evaluate_stamps(stamps, params, out)
        return
    kind, changes = task_of(network.name), {}
    if protocol is not None:
        changes = {"eval_protocol": protocol, "crop_multiple": 16 if protocol == "rgb" else 1}
    if crop_multiple is not None:
        changes["crop_multiple"] = crop_multiple
    if steps is not None:
        if "steps" not in network.restore_options:
            raise UserError(f"The network {network.name} has no steps: leave --steps out.")
        changes["sample_steps"] = steps
    if weights.is_dir():
        trained = from_json(kind, read_config(weights).get("task_config"), where="task_config")
    else:
        trained = kind(model=network.name, network=cfg)
    own = weights.is_dir() and data == _UNSAID and not photos
    data = trained.data if own else data.wholly_evaluated()
    if not data.comparable:
        raise UserError(
            "Expected pairs that belong together, to be compared, found pictures of two kinds "
            "(--data.pair-by unpaired)."
        )
    task = dataclasses.replace(
        trained,
        network=cfg,
        data=data,
        eval_images=images,
        eval_tile=tile,
        eval_side=None,
        eval_seed=seed,
        eval_legacy_rng=legacy_rng,
        **changes,
    )
    if not task.evaluation_size():
        raise UserError(
            f"Expected images to evaluate on, found none in the data of {weights}: name some, "
            "such as --data.kind pairs --data.root FOLDER."
        )
    for note in task.notes():
        show(note)
    if own and trained.eval_side is not None:
        side = trained.eval_side
        show(f"on whole pictures (during the training: central squares of {side} pixels)")
    rows, scores, shown = [], [], {}
    for image in track(task.restored(params), task.evaluation_size(), "evaluating"):
        scores.append(task.score(image))
        rows.append(scores[-1]._asdict() | further.add(image))
        shown.setdefault(image.group, image)
    found = summarise(iter(scores))
    print_metrics(found)
    for line in further.lines():
        show(line)
    if out is not None:
        _write(out, found | further.summary(), rows, comparison(iter(shown.values())))
        show(f"written: {out}")


def _evaluate_stamps(task: "DeconvolutionTask", params: "Params", out: Path | None) -> None:
    """A table with one line per step of the method, on the data of the run."""
    from jaxcore.atomic import write_json
    from jaxcore.data.images import write_image
    from jaxcore.train.tasks.deconvolution import STEPS, Score, picture

    task.check()
    frozen = task.frozen()
    metrics = task.measure(params, frozen)
    names = ("nmse", "flux_bias", *Score._fields[1:])
    show(f"{'':12}" + "".join(f"{name:>12}" for name in names))
    for step in STEPS:
        show(f"{step:12}" + "".join(f"{metrics[f'{step}/{name}']:12.4f}" for name in names))
    if out is not None:
        shown = picture(next(task.restored(params, frozen, limit=4)))
        out.mkdir(parents=True, exist_ok=True)
        write_image(out / "deconvolved.png", shown / np.float32(255), overwrite=True)
        write_json(out / "metrics.json", metrics)
        show(f"written: {out}")


def print_metrics(metrics: dict[str, float]) -> None:
    """A table with one line per degradation."""
    show(f"{'':18}{'PSNR in':>9}{'PSNR':>8}{'gain':>8}{'SSIM in':>9}{'SSIM':>8}")
    for group in dict.fromkeys(k.split("/")[0] for k in metrics if "/" in k):
        psnr_in, psnr, gain, ssim_in, ssim = (
            metrics[f"{group}/{m}"] for m in ("psnr_in", "psnr", "gain", "ssim_in", "ssim")
        )
        show(f"{group:18}{psnr_in:9.2f}{psnr:8.2f}{gain:+8.2f}{ssim_in:9.4f}{ssim:8.4f}")
    psnr, gain, ssim = metrics["psnr"], metrics["gain"], metrics["ssim"]
    show(f"{'mean':18}{'':9}{psnr:8.2f}{gain:+8.2f}{'':9}{ssim:8.4f}")


def _write(
    out: Path, metrics: dict[str, float], images: list[dict[str, object]], picture: np.ndarray
) -> None:
    """Figures of the whole and of every image, and the picture."""
    import csv

    from jaxcore.atomic import whole_file, write_json
    from jaxcore.data.images import write_image

    write_image(out / "restored.png", picture / np.float32(255), overwrite=True)
    write_json(out / "metrics.json", metrics)
    with whole_file(out / "images.csv", overwrite=True) as temporary, temporary.open("w") as file:
        table = csv.DictWriter(file, fieldnames=list(images[0]))
        table.writeheader()
        table.writerows(images)
