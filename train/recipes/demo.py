"""What small recipes on photographs have in common."""

from typing import Any

from jaxcore.data.images.kinds import CleanImages
from jaxcore.data.images.pipeline import Stage
from jaxcore.train.config import TrainConfig
from jaxcore.train.ema import EMAConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.restoration import RestorationTask


def demo(steps: int, batch_size: int, learning_rate: float = 2e-3, **task: Any) -> Recipe:
    """A training of minutes on two CPU cores; not a published recipe.

    Args:
      steps: updates.
      batch_size: crops of 64 pixels.
      learning_rate: highest of all.
      **task: other fields of the task.
    """
    optim = OptimConfig(
        learning_rate=learning_rate,
        weight_decay=0.01,
        clip_norm=1.0,
        schedule=ScheduleConfig(name="warmup_cosine", warmup_steps=steps // 20),
    )
    stages = (Stage(steps=None, patch=64, batch_size=batch_size),)
    # Pictures of one size, so that the network is compiled once for them.
    made = RestorationTask(stages=stages, eval_side=288, **task)
    train = TrainConfig(steps=steps, optim=optim, log_every=20, save_every=100, keep_last=1)
    return Recipe(task=made, train=train)


def on_photographs(
    steps: int,
    learning_rate: float,
    stage: Stage,
    tasks: tuple[str, ...],
    *,
    save_every: int,
    **task: Any,
) -> Recipe:
    """A training on a folder of clean photographs, as for the weights that come with jaxcore.

    Args:
      steps: updates.
      learning_rate: highest of all.
      stage: size of crops and batches.
      tasks: degradations made on the fly.
      save_every: updates between checkpoints.
      **task: other fields of the task.
    """
    optim = OptimConfig(
        learning_rate=learning_rate,
        weight_decay=1e-3,
        clip_norm=1.0,
        betas=(0.9, 0.99),
        schedule=ScheduleConfig(name="fixed"),
    )
    data = CleanImages(tasks=tasks, cache_gb=4)
    made = RestorationTask(stages=(stage,), data=data, **task)
    ema = EMAConfig(decay=0.998, warmup="ratio")
    train = TrainConfig(steps=steps, optim=optim, ema=ema, save_every=save_every, keep_last=1)
    return Recipe(task=made, train=train)
