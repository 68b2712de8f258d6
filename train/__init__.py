"""The one train state, step, loop and checkpoint layer.

>>> import jaxcore
>>> jaxcore.train.TrainConfig(steps=10).steps
10
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcore.train.checkpoint import Checkpointer
    from jaxcore.train.config import TrainConfig
    from jaxcore.train.ema import EMAConfig
    from jaxcore.train.interrupt import EXIT_INTERRUPTED, EXIT_PROCESS_GONE
    from jaxcore.train.loop import FitResult, fit
    from jaxcore.train.optim import GroupConfig, OptimConfig, make_optimiser
    from jaxcore.train.run_directory import load_params, read_config
    from jaxcore.train.schedules import ScheduleConfig, make_schedule
    from jaxcore.train.state import TrainState, create_state
    from jaxcore.train.step import Loss, Mean, make_train_step
    from jaxcore.train.task import BatchIterator, GradientTask, Task

_HOMES = {
    name: module
    for module, names in {
        "checkpoint": ("Checkpointer",),
        "config": ("TrainConfig",),
        "dry_run": ("DryRun", "dry_run"),
        "ema": ("EMAConfig",),
        "interrupt": ("EXIT_INTERRUPTED", "EXIT_PROCESS_GONE"),
        "loop": ("FitResult", "fit"),
        "optim": ("GroupConfig", "OptimConfig", "make_optimiser"),
        "run_directory": ("load_params", "read_config"),
        "schedules": ("ScheduleConfig", "make_schedule"),
        "state": ("TrainState", "create_state"),
        "step": ("Loss", "Mean", "make_train_step"),
        "task": ("BatchIterator", "GradientTask", "Task"),
    }.items()
    for name in names
}

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_PROCESS_GONE",
    "BatchIterator",
    "Checkpointer",
    "EMAConfig",
    "FitResult",
    "GradientTask",
    "GroupConfig",
    "Loss",
    "Mean",
    "OptimConfig",
    "ScheduleConfig",
    "Task",
    "TrainConfig",
    "TrainState",
    "create_state",
    "fit",
    "load_params",
    "make_optimiser",
    "make_schedule",
    "make_train_step",
    "read_config",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"jaxcore.train.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jaxcore.train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
