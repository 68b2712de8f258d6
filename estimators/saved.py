"""A fit on disk and back: arrays by the checkpoint layer of `train`, settings as JSON.

The folder is laid out like a run: ``config.json`` and ``checkpoints/0`` (Orbax, with checksums).
Learners come back as they were, but for those that are no plain settings (`HostLearner`): of these
the name is kept, and a new fit asks for them again.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from jaxcore.atomic import whole_folder, write_json
from jaxcore.errors import UserError
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner, label
from jaxcore.estimators.nuisance.host import is_outside_learner
from jaxcore.places import local_place

R = TypeVar("R")


class NamedLearner(HostLearner):
    """Stands for a learner that was not saved; it has its name and cannot be fitted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.binary, self.missing = False, True  # whatever it was, it was right when it was fitted

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


FORMAT = "jaxcore fit, version 1"
_OF_SELECTIVE_IV = "selective_iv fit, version 1"
_ARRAYS = ("Y", "A", "Z", "X", "weights", "clusters", "kept")  # of a sample


class Restored(NamedTuple):
    """What `load_fit` found."""

    sample: Sample
    repetitions: list[Estimate]
    notices: tuple[str, ...]
    more: dict[str, Any]  # as `save_fit` was given
    arrays: dict[str, Any]


class Fitted(Protocol):
    """What `save_fit` asks of a result."""

    @property
    def config(self) -> Any:
        """Frozen settings of a registered estimator, with ``restored``."""
        ...

    @property
    def sample(self) -> Sample:
        """The data."""
        ...

    @property
    def repetitions(self) -> tuple[Estimate, ...]:
        """Estimates of every partition."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user was told."""
        ...


def save_fit(
    path: str | Path,
    fit: Fitted,
    more: Mapping[str, Any] | None = None,
    arrays: Mapping[str, Any] | None = None,
) -> Path:
    """Write a fit into a new folder; `load_fit` makes the same one of it.

    Args:
      path: the folder.
      fit: the result of an estimator.
      more: JSON that its estimator needs besides.
      arrays: arrays that it needs besides.

    Raises:
      UserError: the folder exists, the disk is full or may not be written.
    """
    from jaxcore import registry

    config, classes = fit.config, learner_classes()
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    meta = {
        "format": FORMAT,
        "estimator": registry.estimator_of(type(config)),
        "settings": {k: encoded(v, classes) for k, v in settings.items()},
        "covariates": list(fit.sample.covariates),
        "columns": dict(fit.sample.names),
        "levels": list(fit.sample.levels),
        "notices": list(fit.notices),
        "names": list(fit.repetitions[0].names),
        "title": fit.repetitions[0].estimator,
        "more": dict(more or {}),
    }
    tree = {
        "sample": {name: getattr(fit.sample, name) for name in _ARRAYS},
        "repetitions": as_tree(fit.repetitions),
        "more": dict(arrays or {}),
    }
    return write_fit(path, meta, tree, config.precision())


def load_result(kind: type[R], path: str | Path) -> R:
    """The result of a class that `save_fit` wrote.

    Raises:
      UserError: see `load_fit`; a result of another class.
    """
    found = load_fit(path)
    if not isinstance(found, kind):
        raise UserError(
            f"Expected a saved {kind.__name__} in {path}, found a {type(found).__name__}."
        )
    return found


def load_fit(path: str | Path) -> Any:
    """The result that `save_fit` wrote, of whatever estimator, ready for every analysis.

    Learners that are no plain settings have left their names alone: see the head of this module.

    Raises:
      UserError: no such folder, another kind of folder, or damaged files.
    """
    from jaxcore import registry

    classes = learner_classes()
    try:
        meta = read_meta(path, FORMAT)
        settings = {k: decoded(v, classes) for k, v in meta["settings"].items()}
        config: Any = registry.estimator(meta["estimator"]).config_class(**settings)
        tree = read_arrays(path, config.precision())
        arrays = {"weights": None, "clusters": None, **tree["sample"]}
        arrays.setdefault("X", np.zeros((len(arrays["Y"]), 0)))
        sample = Sample(
            **arrays,
            covariates=tuple(meta["covariates"]),
            names=meta["columns"],
            levels=tuple(meta["levels"]),
            notices=(),
        )
        clusters = sample.clusters if config.clustered else None
        told = {"clusters": clusters, "names": tuple(meta["names"]), "estimator": meta["title"]}
        repetitions = from_tree(tree["repetitions"], **told)
        notices, more = tuple(meta["notices"]), tree.get("more", {})
        return config.restored(Restored(sample, repetitions, notices, meta["more"], more))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"Expected a fit saved by this version in {path}, found settings or arrays that do not "
            f"belong together ({type(error).__name__}): damaged or of another version."
        ) from error


def as_tree(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Arrays of some estimates, for `from_tree`."""
    fields = ("theta", "se", "psi", "diagnostics")
    return {str(r): {name: getattr(e, name) for name in fields} for r, e in enumerate(estimates)}


def from_tree(tree: Mapping[str, Any], **fields: Any) -> list[Estimate]:
    """The estimates of `as_tree`, with fields that are no arrays."""
    each = (tree[str(r)] for r in range(len(tree)))
    return [Estimate(**{"diagnostics": {}, **one}, **fields) for one in each]


def learner_classes() -> dict[str, type]:
    """Classes of the learners, trainings and networks that the settings of a saved fit hold."""
    from jaxcore import registry
    from jaxcore.estimators import nuisance
    from jaxcore.estimators.image_confounding.networks import Training
    from jaxcore.estimators.nuisance.tuning import Tuned
    from jaxcore.estimators.selective_iv.learners import PlugIn, VaryingCoefficient
    from jaxcore.models.convnet import ConvNetConfig
    from jaxcore.models.convnet.cnn2023 import CNN2023Config
    from jaxcore.models.vit import ViTConfig

    ours = {name: getattr(nuisance, name) for name in nuisance.__all__}
    classes = {
        name: one
        for name, one in ours.items()
        if isinstance(one, type) and dataclasses.is_dataclass(one)
    }
    own = (network.config_class for network in registry.registered())
    networks = (ViTConfig, ConvNetConfig, CNN2023Config, *own)
    more = (PlugIn, VaryingCoefficient, Tuned, Training, *networks)
    return classes | {one.__name__: one for one in more}


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
    if kind == FORMAT and meta.get("format") == _OF_SELECTIVE_IV:
        meta = _todays(meta)
    if meta.get("format") != kind:
        raise UserError(f"Expected a saved fit ({kind}), found another folder in {path}.")
    return meta


def _todays(meta: dict[str, Any]) -> dict[str, Any]:
    """What a fit of the time when `SelectiveIV` alone was saved has as ``meta`` now."""
    same = {name: meta[name] for name in ("settings", "covariates", "notices", "names")}
    return {
        "format": FORMAT,
        "estimator": "selective-iv",
        "columns": meta.get("columns", {}),
        "levels": [],
        "title": meta["estimator"],
        "more": {"one_sided": meta["one_sided"]},
        **same,
    }


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
    return {"name": label(HostLearner(value) if is_outside_learner(value) else value)}


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
        return {name: value for name, value in kept.items() if np.size(value)}
    return np.asarray(tree)
