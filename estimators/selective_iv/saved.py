"""A fit on disk and back: arrays by the checkpoint layer of `train`, settings as JSON.

The folder is laid out like a run: ``config.json`` and ``checkpoints/0`` (Orbax, with checksums).
Learners come back as they were, but for those that are no plain settings (`HostLearner`): of these
the name is kept, and a new fit asks for them again.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcore.atomic import whole_folder, write_json
from jaxcore.errors import UserError
from jaxcore.estimators import nuisance
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.nuisance import HostLearner
from jaxcore.estimators.selective_iv.estimator import SelectiveIV, label
from jaxcore.estimators.selective_iv.learners import PlugIn, VaryingCoefficient
from jaxcore.estimators.selective_iv.moment import Nuisances

_FORMAT = "selective_iv fit, version 1"
_OF_DELTA = {"PlugIn": PlugIn, "VaryingCoefficient": VaryingCoefficient}


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


def save_fit(result: Any, path: str | Path) -> Path:
    """Write a fit into a new folder, under a temporary name first.

    Raises:
      UserError: the folder exists, the disk is full or may not be written.
    """
    import optax

    from jaxcore.train.checkpoint import CHECKPOINTS, Checkpointer
    from jaxcore.train.integrity import writing
    from jaxcore.train.state import create_state

    path = Path(path).absolute()
    if path.exists():
        raise UserError(f"Expected the name of a new folder, found {path}.")
    meta = _meta(result)
    with whole_folder(path) as temporary, writing(path), result.config.precision():
        write_json(temporary / "config.json", meta)
        state = create_state(_arrays(result), optax.identity(), key=jax.random.key(0))
        with Checkpointer(temporary / CHECKPOINTS) as checkpointer:
            checkpointer.save(state, config=meta)
    return path


def load_fit(path: str | Path) -> Any:
    """Read a fit (`SelectiveIVResult`) that `save_fit` wrote.

    Raises:
      UserError: no such folder, another kind of folder, or damaged files.
    """
    from jaxcore.estimators.selective_iv.result import SelectiveIVResult
    from jaxcore.train.checkpoint import load_params, read_config

    meta = read_config(path)
    if meta.get("format") != _FORMAT:
        raise UserError(f"Expected a saved fit ({_FORMAT}), found another folder in {path}.")
    settings = {name: _decoded(value) for name, value in meta["settings"].items()}
    config = SelectiveIV(**settings)
    with config.precision():
        tree = jax.device_get(load_params(path, "last"))
    arrays = {"weights": None, "clusters": None, **tree["sample"]}
    arrays.setdefault("X", np.zeros((len(arrays["Y"]), 0)))
    sample = Sample(**arrays, covariates=tuple(meta["covariates"]), notices=())
    clusters = sample.clusters if config.clustered else None
    repetitions = [
        Estimate(
            **{**part, "diagnostics": _restored(part["diagnostics"]), "clusters": clusters},
            names=tuple(meta["names"]), estimator=meta["estimator"],
        )
        for part in (tree["repetitions"][str(r)] for r in range(len(tree["repetitions"])))
    ]  # fmt: skip
    result = SelectiveIVResult.build(config, sample, meta["one_sided"], repetitions, ())
    noted = dataclasses.replace(result.estimate, notices=tuple(meta["notices"]))
    return dataclasses.replace(result, estimate=noted)


def _meta(result) -> dict[str, Any]:
    config = result.config
    settings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    settings["learners"] = config.blocks
    return {
        "format": _FORMAT,
        "settings": {name: _encoded(value) for name, value in settings.items()},
        "covariates": list(result.sample.covariates),
        "one_sided": result.one_sided,
        "notices": list(result.notices),
        "names": list(result.estimate.names),
        "estimator": result.estimate.estimator,
    }


def _encoded(value: Any) -> Any:
    """JSON of a setting; tuples, mappings and learners are marked as such."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return {"sequence": [_encoded(v) for v in value]}
    if isinstance(value, dict):
        return {"mapping": {k: _encoded(v) for k, v in value.items()}}
    if _class_of(type(value).__name__) is type(value) and not isinstance(value, HostLearner):
        settings = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"learner": type(value).__name__, "settings": _encoded(settings)}
    if np.ndim(value) == 0 and hasattr(value, "item"):  # a number of NumPy or JAX
        return np.asarray(value).item()
    return {"name": label(value)}


def _class_of(name: str) -> Any:
    return _OF_DELTA.get(name) or (getattr(nuisance, name) if name in nuisance.__all__ else None)


def _decoded(value: Any) -> Any:
    match value:
        case {"sequence": items}:
            return tuple(_decoded(v) for v in items)
        case {"mapping": items}:
            return {k: _decoded(v) for k, v in items.items()}
        case {"learner": name, "settings": settings}:
            return _class_of(name)(**_decoded(settings))
        case {"name": name}:
            return NamedLearner(name)
    return value


def _arrays(result) -> dict[str, Any]:
    """Everything of a fit that is an array; empty arrays are left out."""
    fields = ("Y", "A", "Z", "X", "weights", "clusters", "kept")
    sample = {name: getattr(result.sample, name) for name in fields}
    repetitions = {
        str(r): {
            "theta": e.theta, "se": e.se, "psi": e.psi, "diagnostics": e.diagnostics
        }
        for r, e in enumerate(result.repetitions)
    }  # fmt: skip
    return {"sample": _filled(sample), "repetitions": _filled(repetitions)}


def _filled(tree: Any) -> Any:
    if isinstance(tree, Nuisances):
        tree = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}
    if isinstance(tree, dict):
        kept = {name: _filled(value) for name, value in tree.items() if value is not None}
        return {name: value for name, value in kept.items() if np.size(value) or value == {}}
    return np.asarray(tree)


def _restored(diagnostics: dict[str, Any]) -> dict[str, Any]:
    held = {name: diagnostics[name] for name in ("raw", "nuisances") if name in diagnostics}
    return diagnostics | {name: Nuisances(**values) for name, values in held.items()}
