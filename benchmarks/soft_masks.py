"""What does a frequency window whose threshold learns change against the released one?

Trains the same small AdaIR with both windows

* on the toy scenes (64x64 pixels, noise and haze), and
* on photographs with crops of 256 pixels (noise 25, noise 50, haze),

and records PSNR per degradation, the thresholds that were learnt, and the windows as pictures.

    python -m benchmarks.soft_masks            # about 15 minutes on 2 cores; resumes
    python -m benchmarks.soft_masks --smoke    # two steps of everything
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxcore.atomic import write_json
from jaxcore.data.images import write_image
from jaxcore.data.images.kinds import ImageData, Photos, Toy
from jaxcore.data.images.pipeline import Stage
from jaxcore.figures import grid
from jaxcore.models import adair
from jaxcore.models.adair import AdaIRConfig
from jaxcore.nn import capture
from jaxcore.train import EXIT_INTERRUPTED, OptimConfig, ScheduleConfig, TrainConfig, fit
from jaxcore.train.tasks.restoration import RestorationTask

RESULTS = Path(__file__).parent / "results"
BLOCKS = ("fre1", "fre2", "fre3")  # from coarse to fine maps

VARIANTS: dict[str, dict[str, Any]] = {
    "official": {"mask_mode": "official"},
    "soft": {"mask_mode": "soft"},
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One data set, one length of training."""

    name: str
    data: ImageData
    stage: Stage
    steps: int
    learning_rate: float
    variants: tuple[str, ...]
    seeds: tuple[int, ...]


def experiments(smoke: bool) -> list[Experiment]:
    """The toy scenes and the photographs."""
    toy = Experiment(
        "toy", Toy(), Stage(patch=64, batch_size=8), 250, 1e-3, ("official", "soft"), (0,)
    )
    photos = Experiment(
        "photos", Photos(), Stage(patch=256, batch_size=1), 60, 1e-3, ("official", "soft"), (0,)
    )
    if not smoke:
        return [toy, photos]
    tiny = Stage(patch=16, batch_size=2)
    return [
        dataclasses.replace(e, steps=2, stage=tiny, seeds=(0,), variants=("official", "soft"))
        for e in (toy, photos)
    ]


def make_task(experiment: Experiment, variant: str) -> RestorationTask:
    """The same tiny network up to its window."""
    return RestorationTask(
        network=AdaIRConfig.tiny(**VARIANTS[variant]),
        data=experiment.data,
        stages=(experiment.stage,),
        augment="none" if experiment.name == "toy" else "all",
    )


def train(experiment: Experiment, variant: str, seed: int, runs: Path) -> tuple[Any, Any, dict]:
    """Train, or take what is there; returns task, parameters and metrics."""
    optim = OptimConfig(
        learning_rate=experiment.learning_rate,
        weight_decay=0.01,
        schedule=ScheduleConfig(name="cosine"),
    )
    cfg = TrainConfig(
        steps=experiment.steps,
        seed=seed,
        optim=optim,
        save_every=100,
        keep_last=1,
        tensorboard=False,
    )
    task = make_task(experiment, variant)
    result = fit(task, cfg, runs / f"{experiment.name}_{variant}_{seed}")
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    return task, result.state.params, result.metrics


def observe(task: RestorationTask, params: Any) -> dict[str, dict[str, np.ndarray]]:
    """Mean window (centred) and thresholds of every block, per degradation."""
    look = jax.jit(capture(adair.apply, "*/mining/*"), static_argnames="cfg")
    seen: dict[str, dict[str, list[np.ndarray]]] = {}
    for image in task.restored(params):
        side = min(256, *(n // 8 * 8 for n in image.degraded.shape[:2]))
        _, maps = look(params, image.degraded[None, :side, :side], cfg=task.network)
        per_block = seen.setdefault(image.group, {})
        for block in BLOCKS:
            mask = np.fft.fftshift(np.asarray(maps[f"{block}/mining/mask"][0]))
            per_block.setdefault(f"{block}_mask", []).append(mask)
            per_block.setdefault(f"{block}_threshold", []).append(
                np.asarray(maps[f"{block}/mining/threshold"][0])
            )
    return {
        group: {name: np.stack(values) for name, values in found.items()}
        for group, found in seen.items()
    }


def picture(windows: dict[str, dict[str, dict[str, np.ndarray]]]) -> np.ndarray:
    """A row per variant and degradation, a column per block; white passes to the low part."""
    rows = []
    for variant, groups in windows.items():
        for group, found in groups.items():
            cells = []
            for block in BLOCKS:
                mask = found[f"{block}_mask"].mean(axis=0)
                times = max(192 // mask.shape[0], 1)
                t = found[f"{block}_threshold"]
                text = f"{variant} {group} {block} t={t.mean():.2f}"
                cells.append((np.kron(mask, np.ones((times, times))), text))
            rows.append(cells)
    return grid(rows)


def run(experiment: Experiment, runs: Path, out: Path) -> dict[str, Any]:
    """All variants and seeds of one experiment; writes its picture."""
    figures: dict[str, Any] = {}
    windows: dict[str, Any] = {}
    for variant in experiment.variants:
        for seed in experiment.seeds:
            print(f"{experiment.name}: {variant}, seed {seed}", flush=True)
            task, params, metrics = train(experiment, variant, seed, runs)
            found = observe(task, params)
            row = {
                "metrics": metrics,
                "threshold": {
                    group: {
                        block: {
                            "mean": one[f"{block}_threshold"].mean(axis=0).tolist(),
                            "std": one[f"{block}_threshold"].std(axis=0).tolist(),
                            "window_mean": float(one[f"{block}_mask"].mean()),
                        }
                        for block in BLOCKS
                    }
                    for group, one in found.items()
                },
            }
            if seed == experiment.seeds[0]:
                windows[variant] = found
            figures[f"{variant}/{seed}"] = row
    path = out / f"soft_masks_{experiment.name}.png"
    write_image(path, picture(windows) / np.float32(255), overwrite=True)
    return figures


def summary(experiment: Experiment, figures: dict[str, Any]) -> dict[str, Any]:
    """Mean and spread over seeds of the output PSNR of every degradation."""
    out: dict[str, Any] = {}
    for variant in experiment.variants:
        rows = [figures[f"{variant}/{seed}"]["metrics"] for seed in experiment.seeds]
        names = [k for k in rows[0] if k.endswith("/psnr") or k == "psnr"]
        out[variant] = {
            name: {
                "mean": float(np.mean([r[name] for r in rows])),
                "std": float(np.std([r[name] for r in rows], ddof=1)) if len(rows) > 1 else None,
            }
            for name in names
        }
    return out


def main(smoke: bool = False, runs: Path = Path("runs/soft_masks"), out: Path = RESULTS) -> None:
    """Compare frequency windows on small trainings.

    Args:
      smoke: two steps of everything, written beside the runs.
      runs: where the trainings go; they resume.
      out: folder of the result file and the pictures.
    """
    if smoke:
        runs, out = runs / "smoke", runs / "smoke"
    result: dict[str, Any] = {}
    for experiment in experiments(smoke):
        figures = run(experiment, runs, out)
        table = summary(experiment, figures)
        settings = dataclasses.asdict(experiment)
        result[experiment.name] = {"settings": settings, "summary": table, "runs": figures}
        for variant, row in table.items():
            cells = (f"{k} {v['mean']:.2f}" for k, v in row.items())
            print(f"{experiment.name:8}{variant:10}" + "  ".join(cells), flush=True)
        write_json(out / "soft_masks.json", result)


if __name__ == "__main__":
    tyro.cli(main)
