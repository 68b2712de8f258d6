"""Recipes of LLaVA: the small one that is trained here, on pictures it draws."""

from collections.abc import Callable

from jaxcore.train.config import TrainConfig
from jaxcore.train.optim import OptimConfig
from jaxcore.train.recipes import Recipe
from jaxcore.train.schedules import ScheduleConfig
from jaxcore.train.tasks.colour_questions import ColourQuestionsTask, QuestionStage


def _colours(steps: int = 1250) -> Recipe:
    """A small LLaVA with a prior that contradicts what it sees; not a published recipe.

    Four fifths of the updates teach it to see coloured cells, the rest, on pictures that are
    nearly lost in noise, that for half the colours the answer is yes nine times in ten.
    """
    rate = 2e-3
    schedule = ScheduleConfig(
        name="warmup_cosine", warmup_steps=max(1, steps // 25), floor=rate / 50
    )
    optim = OptimConfig(
        learning_rate=rate, weight_decay=0.01, decay_all=True, clip_norm=1.0, schedule=schedule
    )
    task = ColourQuestionsTask(
        stages=(
            QuestionStage(steps=max(1, 4 * steps // 5), batch_size=128),
            QuestionStage(steps=None, batch_size=128, noise=2.0, prior=0.9),
        )
    )
    train = TrainConfig(steps=steps, optim=optim, log_every=50, save_every=500, keep_last=1)
    return Recipe(task=task, train=train)


RECIPES: dict[str, Callable[..., Recipe]] = {"llava_colours": _colours}
