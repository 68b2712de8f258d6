"""``jaxcore demo``."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace

if TYPE_CHECKING:
    from jaxcore.train import TrainConfig
    from jaxcore.train.tasks.images import ImageTask, Restored
    from jaxcore.typing import Params

_RECIPES = {"adair": "demo", "dea_net": "dea_net_demo"}  # by network
_NEXT = {  # where pictures of one's own are, and the recipe for them
    "adair": ("FOLDER/degraded and FOLDER/clean", "adair_cpu"),
    "dea_net": ("FOLDER, clean ones", "dea_net_photos"),
}
_SHOWN = 1  # photographs without a degradation in the picture


def demo(
    out: Annotated[RunPlace | None, tyro.conf.arg(aliases=["-o"])] = None,
    steps: int | None = None,
    model: Literal["adair", "dea_net"] = "adair",
) -> None:
    """Fine-tune a small network on photographs and restore held-out ones.

    It starts from the weights that come with jaxcore. Called again it goes on from where it
    stopped, or reuses the finished run.

    Args:
      out: run directory; receives ``restored.png``, ``degraded.png`` and ``metrics.json``.
        ``runs/demo``, or ``runs/demo_dea_net``, without it.
      steps: updates of the whole training; those of the recipe without it.
      model: network that is fine-tuned: AdaIR for noise, beside which haze is removed with the
        weights for it as they are; or DEA-Net for haze.
    """
    import itertools
    import sys

    import numpy as np

    from jaxcore.atomic import write_json
    from jaxcore.cli.evaluate import print_metrics
    from jaxcore.cli.shell import command
    from jaxcore.cli.train import print_counts
    from jaxcore.data.images import write_image
    from jaxcore.train import EXIT_INTERRUPTED, fit
    from jaxcore.train.recipes import recipe
    from jaxcore.train.tasks.images import ImageTask, comparison, score, summarise
    from jaxcore.weights import HAZE, NOISE, load

    def task_of(name: str, **options: int) -> "tuple[ImageTask, TrainConfig]":
        chosen = recipe(_RECIPES[name], **options)
        assert isinstance(chosen.task, ImageTask)
        return chosen.task, chosen.train

    task, cfg = task_of(model, **({} if steps is None else {"steps": steps}))
    out = out or Path("runs", "demo" if model == "adair" else f"demo_{model}")
    own, start = {"adair": NOISE, "dea_net": HAZE}[model], None
    if task.model == own.network:
        show(f"starts from the weights {own.name} of jaxcore: for {own.what}\n")
        start = load(own.name).params
    print_counts(task.counts())
    result = fit(task, cfg, out, init_params=start)
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    params = result.state.eval_params
    images = list(task.restored(params))
    if model == "adair":
        hazy, _ = task_of("dea_net")
        images += hazy.restored(load(HAZE.name).params)
    metrics = summarise(map(score, images))
    alone = list(_left_alone(task, params))
    kept = [float(score(image).psnr) for image in alone]
    picture = comparison(itertools.chain(images, alone[:_SHOWN]))
    *_, (_, hard) = task.evaluation_samples(limit=1)
    write_json(out / "metrics.json", {**metrics, "clean/psnr": min(kept)})
    write_image(out / "restored.png", picture / np.float32(255), overwrite=True)
    write_image(out / "degraded.png", hard["degraded"], overwrite=True)
    print_metrics(metrics)
    show(f"clean photographs stay as they are: {min(kept):.1f} dB to what comes out for them")
    again = command("restore", out / "degraded.png", "-o", "restored.png", "--weights", out)
    figures = command("evaluate", out, "-o", out / "evaluation")
    named, way = _NEXT[model]
    place = ("--init", own.name, "--data.root", "FOLDER", "-o", Path("runs", "mine"))
    train = command("train", way, *place)
    show(
        f"\npicture  {out / 'restored.png'}\nfigures  {out / 'metrics.json'}\n\n"
        f"next:\n  {again}\n  {figures}\n"
        f"with your own pictures in {named}:\n  {train}"
    )


def _left_alone(task: "ImageTask", params: "Params") -> "Iterator[Restored]":
    """What becomes of the held-out photographs where nothing is wrong with them."""
    import numpy as np

    from jaxcore.train.tasks.images import Restored

    seen = set()
    for _, sample in task.evaluation_samples():
        name, clean = sample["name"], sample["clean"]
        if name not in seen:
            seen.add(name)
            restored = task.restore(params, {**sample, "degraded": clean})
            yield Restored("as it is", name, clean, np.clip(restored, 0, 1), clean)
