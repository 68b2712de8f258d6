"""``jaxcore demo``."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace

_RECIPES = {"adair": "demo", "dea_net": "dea_net_demo"}  # by network


def demo(
    out: Annotated[RunPlace | None, tyro.conf.arg(aliases=["-o"])] = None,
    steps: int | None = None,
    model: Literal["adair", "dea_net"] = "adair",
) -> None:
    """Fine-tune a small network on photographs and restore held-out ones.

    AdaIR starts from the weights that come with jaxcore, DEA-Net from nothing. Called again it goes
    on from where it stopped, or reuses the finished run.

    Args:
      out: run directory; receives ``restored.png``, ``degraded.png`` and ``metrics.json``.
        ``runs/demo``, or ``runs/demo_dea_net``, without it.
      steps: updates of the whole training; those of the recipe without it.
      model: network: AdaIR for noise and haze at once, or DEA-Net for haze.
    """
    import sys

    import numpy as np

    from jaxcore.atomic import write_json
    from jaxcore.cli.evaluate import print_metrics
    from jaxcore.cli.shell import command
    from jaxcore.cli.train import print_counts
    from jaxcore.data.images import write_image
    from jaxcore.train import EXIT_INTERRUPTED, fit
    from jaxcore.train.recipes import recipe
    from jaxcore.train.tasks.images import ImageTask, comparison
    from jaxcore.weights import PHOTOS, load

    chosen = recipe(_RECIPES[model], **({} if steps is None else {"steps": steps}))
    out = out or Path("runs", "demo" if model == "adair" else f"demo_{model}")
    task = chosen.task
    assert isinstance(task, ImageTask)
    start = None
    if task.model == PHOTOS.network:
        show(f"starts from the weights {PHOTOS.name} of jaxcore: {PHOTOS.what}\n")
        start = load(PHOTOS.name).params
    print_counts(task.counts())
    result = fit(task, chosen.train, out, init_params=start)
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    picture = comparison(task.restored(result.state.eval_params))
    *_, (_, hard) = task.evaluation_samples(limit=1)
    write_json(out / "metrics.json", result.metrics)
    write_image(out / "restored.png", picture / np.float32(255), overwrite=True)
    write_image(out / "degraded.png", hard["degraded"], overwrite=True)
    print_metrics(result.metrics)
    again = command("restore", out / "degraded.png", "-o", "restored.png", "--weights", out)
    figures = command("evaluate", out, "-o", out / "evaluation")
    ways = {"adair": ("adair_cpu", "--init", PHOTOS.name), "dea_net": ("dea_net",)}
    own = command("train", *ways[model], "--data.root", "FOLDER", "-o", Path("runs", "mine"))
    show(
        f"\npicture  {out / 'restored.png'}\nfigures  {out / 'metrics.json'}\n\n"
        f"next:\n  {again}\n  {figures}\n"
        f"with your own pictures in FOLDER/degraded and FOLDER/clean:\n  {own}"
    )
