"""A fit on disk and back: arrays by the checkpoint layer of `train`, settings as JSON.

The folder is laid out like a run: ``config.json`` and ``checkpoints/0`` (Orbax, with checksums).
Learners come back as they were, but for those that are no plain settings (`HostLearner`): of these
the name is kept, and a new fit asks for them again.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcore.atomic import whole_folder, write_json
from jaxcore.errors import UserError
from jaxcore.estimators.nuisance import HostLearner, label
from jaxcore.places import local_place


class NamedLearner(HostLearner):
    """Stands for a learner that was not saved; it has its name and cannot be fitted."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        """The name of the learner it stands for."""
        return self.name

    def fit_predict(self, X: Any, y: Any, masks: Any, at: tuple[Any, ...]) -> Any:
        """Refuse.

        Raises:
          UserError: always.
        """
        raise UserError(
            f"Expected learners that can be fitted, found only the name {self.name} of one that a "
            "saved fit does not hold: give it again."
        )


def write_fit(
    path: str | Path,
    meta: dict[str, Any],
    arrays: dict[str, Any],
    precision: contextlib.AbstractContextManager[Any],
) -> Path:
    """Write a fit into a new folder, under a temporary name first.

    Args:
      path: the folder.
      meta: JSON, with the kind of fit as ``format``.
      arrays: nested dicts of arrays; what is None or empty is left out.
      precision: the scope the arrays were computed in.

    Raises:
      UserError: the folder exists, the disk is full or may not be written.
    """
    import optax

    from jaxcore.train.checkpoint import Checkpointer
    from jaxcore.train.integrity import writing
    from jaxcore.train.state import create_state
    from jaxcore.train.steps import CHECKPOINTS

    path = local_place(path).absolute()
    if path.exists():
        raise UserError(f"Expected the name of a new folder, found {path}.")
    with whole_folder(path) as temporary, writing(path), precision:
        write_json(temporary / "config.json", meta)
        state = create_state(_filled(arrays), optax.identity(), key=jax.random.key(0))
        with Checkpointer(temporary / CHECKPOINTS) as checkpointer:
            checkpointer.save(state, config=meta)
    return path


def read_meta(path: str | Path, kind: str) -> dict[str, Any]:
    """What `write_fit` was given as ``meta``.

    Raises:
      UserError: no such folder, another kind of folder, or damaged files.
    """
    from jaxcore.train.run_directory import read_config

    meta = read_config(path)
    if meta.get("format") != kind:
        raise UserError(f"Expected a saved fit ({kind}), found another folder in {path}.")
    return meta


def read_arrays(
    path: str | Path, precision: contextlib.AbstractContextManager[Any]
) -> dict[str, Any]:
    """What `write_fit` was given as ``arrays``, as NumPy arrays.

    Raises:
      UserError: damaged files.
    """
    from jaxcore.train.run_directory import load_params

    with precision:
        return jax.device_get(load_params(path, "last"))


def encoded(value: Any, classes: Mapping[str, type]) -> Any:
    """JSON of a setting; tuples, mappings and learners (of ``classes``) are marked as such."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return {"sequence": [encoded(v, classes) for v in value]}
    if isinstance(value, dict):
        return {"mapping": {k: encoded(v, classes) for k, v in value.items()}}
    if classes.get(type(value).__name__) is type(value):
        settings = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"learner": type(value).__name__, "settings": encoded(settings, classes)}
    if np.ndim(value) == 0 and hasattr(value, "item"):  # a number of NumPy or JAX
        return np.asarray(value).item()
    return {"name": label(value)}


def decoded(value: Any, classes: Mapping[str, type]) -> Any:
    """Inverse of `encoded`, but for learners that only left their name.

    >>> decoded(encoded((1, {"a": None}), {}), {})
    (1, {'a': None})
    """
    match value:
        case {"sequence": items}:
            return tuple(decoded(v, classes) for v in items)
        case {"mapping": items}:
            return {k: decoded(v, classes) for k, v in items.items()}
        case {"learner": name, "settings": settings}:
            return classes[name](**decoded(settings, classes))
        case {"name": name}:
            return NamedLearner(name)
    return value


def _filled(tree: Any) -> Any:
    if dataclasses.is_dataclass(tree):
        tree = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}
    if isinstance(tree, dict):
        kept = {name: _filled(value) for name, value in tree.items() if value is not None}
        return {name: value for name, value in kept.items() if np.size(value) or value == {}}
    return np.asarray(tree)
