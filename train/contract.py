"""What a task must be, looked at before anything is computed; all that is wrong in one sentence."""

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jaxcore.errors import UserError
from jaxcore.train.task import BatchIterator, GradientTask, Task

_BASES = (Task, GradientTask)


def check_task(task: Any) -> None:
    """Look at a task without calling what computes.

    Raises:
      UserError: it is no task, takes other arguments than it will be given, or cannot be
        described as JSON; all of it in one sentence.

    >>> class Late(Task):
    ...     def init_state(self, key, tx): ...
    ...     def step(self, tx, cfg, mesh): ...
    ...     def batches(self, seed): ...
    ...     def evaluate(self, params): ...
    >>> check_task(Late())
    Traceback (most recent call last):
    jaxcore.errors.UserError: Expected a whole task, found Late with batches(seed), which is \
called with (seed, start_step); evaluate(params), which is called with (state, frozen).
    """
    if isinstance(task, type) and issubclass(task, Task):
        name = task.__name__
        raise UserError(f"Expected a task, found the class {name}: make one, {name}(...).")
    if not isinstance(task, Task):
        raise UserError(_foreign(task))
    faults = [*_signatures(task), *_description(task)]
    if faults:
        name = type(task).__name__
        raise UserError(f"Expected a whole task, found {name} with {'; '.join(faults)}.")


def check_batches(batches: Any) -> BatchIterator:
    """A stream of batches of which a run that was stopped can go on.

    Raises:
      UserError: what is missing.

    >>> check_batches(x for x in ())
    Traceback (most recent call last):
    jaxcore.errors.UserError: Expected of batches() an iterator that can be resumed, found a \
generator without get_state and set_state: return an object whose position these tell and take.
    """
    wanted = ("__next__", "get_state", "set_state")
    missing = [name for name in wanted if not callable(getattr(batches, name, None))]
    if missing:
        names = ", ".join(missing[:-1]) + " and " * (len(missing) > 1) + missing[-1]
        raise UserError(
            f"Expected of batches() an iterator that can be resumed, found a "
            f"{type(batches).__name__} without {names}: return an object whose position these "
            "tell and take."
        )
    position = batches.get_state()
    try:
        position if isinstance(position, bytes) else json.dumps(position, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError(
            f"Expected of get_state() of the batches bytes or JSON, found {position!r}."
        ) from None
    return batches


def numbers(found: Any) -> dict[str, float]:
    """What an evaluation has found, as floats.

    Raises:
      UserError: it is no dict of numbers.
    """
    if not isinstance(found, Mapping):
        raise UserError(f"Expected of evaluate() a dict of numbers, found {type(found).__name__}.")
    values = {}
    for name, value in found.items():
        try:
            values[str(name)] = float(value)
        except (TypeError, ValueError):
            shape = f" of shape {value.shape}" if hasattr(value, "shape") else ""
            raise UserError(
                f"Expected of evaluate() a dict of numbers, found {type(value).__name__}{shape} "
                f"for {name!r}."
            ) from None
    return values


def _foreign(task: Any) -> str:
    """Why something is no task."""
    wanted = sorted(Task.__abstractmethods__ | GradientTask.__abstractmethods__)
    wanted = [name for name in wanted if name not in ("init_state", "step")]
    missing = [name for name in wanted if not hasattr(task, name)]
    lacks = f", and without {', '.join(missing)}" if missing else ""
    return (
        f"Expected a task, found {type(task).__name__}, which does not derive from "
        f"jaxcore.train.GradientTask or Task{lacks}."
    )


def _signatures(task: Task) -> Iterator[str]:
    """Methods that cannot be called as they will be."""
    methods = {
        name: method
        for base in _BASES
        if isinstance(task, base)
        for name, method in vars(base).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }
    for name, method in methods.items():
        own = getattr(task, name)
        given = list(inspect.signature(method).parameters)[1:]
        try:
            signature = inspect.signature(own)
        except (TypeError, ValueError):  # such as a function of C
            continue
        try:
            signature.bind(*given)
        except TypeError:
            takes = ", ".join(signature.parameters)
            yield f"{name}({takes}), which is called with ({', '.join(given)})"


def _description(task: Task) -> Iterator[str]:
    """What ``config.json`` could not hold."""
    if not isinstance(getattr(task, "name", None), str):
        yield f"the name {task.name!r}, which is no text"
    own = type(task).to_dict is not Task.to_dict
    held = [] if own or dataclasses.is_dataclass(task) else sorted(vars(task))
    if held:
        yield (
            f"{', '.join(held)}, which no to_dict() describes: make it a frozen dataclass, or "
            "write one"
        )
