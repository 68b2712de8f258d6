"""A recipe: what is trained and how."""

import dataclasses

from jaxcore.errors import UserError
from jaxcore.train.config import TrainConfig
from jaxcore.train.tasks.images import ImageTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A task and its training, ready to be changed and run."""

    task: ImageTask
    train: TrainConfig
    epochs: int | None = None  # passes over the data, which then decide ``train.steps``
    summary: str = ""  # one line

    def __post_init__(self) -> None:
        parts = self.train.accum_steps
        for stage in self.task.stages:
            if stage.batch_size % parts:
                raise UserError(
                    f"A batch of {stage.batch_size} rows does not divide into {parts} "
                    "micro-batches (train.accum_steps)."
                )
