"""``jaxcore demo``."""

from pathlib import Path


def demo(out: Path = Path("runs/demo"), steps: int = 700) -> None:
    """Train a small AdaIR on real photographs and restore held-out ones.

    Called again it goes on from where it stopped, or reuses the finished run.

    Args:
      out: run directory.
      steps: updates of the whole training.
    """
    import sys

    from jaxcore.data.images import write_image
    from jaxcore.models.adair import AdaIRConfig
    from jaxcore.train import EXIT_INTERRUPTED, OptimConfig, ScheduleConfig, TrainConfig, fit
    from jaxcore.train.config import write_json
    from jaxcore.train.tasks.restoration import RestorationTask, summarise

    network = AdaIRConfig(
        dim=16, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=(1, 2, 4, 8)
    )
    task = RestorationTask(network=network)
    schedule = ScheduleConfig(name="cosine")
    optim = OptimConfig(learning_rate=1e-3, weight_decay=0.01, schedule=schedule)
    result = fit(task, TrainConfig(steps=steps, optim=optim, save_every=100), out)
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    examples = task.examples(result.state.params)
    metrics = summarise(examples)
    write_json(out / "metrics.json", metrics)
    write_image(out / "restored.png", _picture(examples), overwrite=True)
    print(f"{'':10}{'PSNR in':>9}{'out':>8}{'SSIM in':>9}{'out':>8}")
    for kind in examples:
        values = [metrics[f"{kind}/{m}_{w}"] for m in ("psnr", "ssim") for w in ("in", "out")]
        print("{:10}{:9.2f}{:8.2f}{:9.3f}{:8.3f}".format(kind, *values))
    print(f"picture: {out / 'restored.png'}   figures: {out / 'metrics.json'}")


def _picture(examples):
    """Degraded | restored | clean, one row per degradation, PSNR under each."""
    import numpy as np
    from PIL import Image, ImageDraw

    from jaxcore.metrics import psnr

    rows = []
    for kind, images in examples.items():
        cells = []
        for name in ("degraded", "restored", "clean"):
            pixels = images[0][name]
            text = f"{kind} {name}"
            if name != "clean":
                text += f"  {float(psnr(pixels, images[0]['clean'])):.2f} dB"
            label = Image.new("RGB", (pixels.shape[1], 20), "white")
            ImageDraw.Draw(label).text((4, 4), text, fill="black")
            cells.append(np.concatenate([pixels, np.asarray(label, np.float32) / 255]))
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows)
