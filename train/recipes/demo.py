"""What the small recipes of ``jaxcore demo`` have in common."""

from typing import Any

from jaxcore.data.images.pipeline import Stage
from jaxcore.train.config import TrainConfig
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
