"""Name -> (config class, module) for networks, tasks, estimators; imported on first use."""

import dataclasses
import importlib
from types import ModuleType
from typing import Any

from jaxcore.errors import UserError

_NETWORKS = {
    "adair": ("jaxcore.models.adair", "AdaIRConfig"),
    "dea_net": ("jaxcore.models.dea_net", "DEANetConfig"),
    "rddm": ("jaxcore.models.rddm", "RDDMConfig"),
}
_TRAINED_BY = {"rddm": "diffusion"}  # network -> task; all others by restoration
_TASKS = {
    "diffusion": ("jaxcore.train.tasks.diffusion", "DiffusionTask"),
    "monte_carlo": ("jaxcore.estimators.studies", "MonteCarloTask"),
    "restoration": ("jaxcore.train.tasks.restoration", "RestorationTask"),
}
_ESTIMATORS = {
    "selective-iv": ("jaxcore.estimators.selective_iv", "SelectiveIV"),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network the command line, training and planning can reach by name."""

    name: str
    config_class: type[Any]
    module: ModuleType  # has init, apply, from_torch, to_torch


@dataclasses.dataclass(frozen=True)
class Estimator:
    """An estimator the command line can reach by name."""

    name: str
    config_class: type[Any]  # frozen settings with fit, fit_frame, fit_formula
    module: ModuleType


def _resolve(table: dict[str, tuple[str, str]], kind: str, name: str) -> tuple[ModuleType, Any]:
    if name not in table:
        raise UserError(f"Unknown {kind} {name!r}: expected one of {', '.join(sorted(table))}.")
    module_name, attribute = table[name]
    module = importlib.import_module(module_name)
    return module, getattr(module, attribute)


def networks() -> tuple[str, ...]:
    """Names of all networks."""
    return tuple(sorted(_NETWORKS))


def network(name: str) -> Network:
    """Look a network up.

    Raises:
      UserError: the name is unknown.

    >>> network("adair").config_class.__name__
    'AdaIRConfig'
    """
    module, config_class = _resolve(_NETWORKS, "network", name)
    return Network(name, config_class, module)


def task_class(name: str) -> type[Any]:
    """Look the class of a training task up by name.

    Raises:
      UserError: the name is unknown.
    """
    return _resolve(_TASKS, "task", name)[1]


def task_of(network: str) -> type[Any]:
    """The class of the task that trains and evaluates a network.

    >>> task_of("adair").name
    'restoration'
    """
    return task_class(_TRAINED_BY.get(network, "restoration"))


def estimators() -> tuple[str, ...]:
    """Names of all estimators."""
    return tuple(sorted(_ESTIMATORS))


def estimator(name: str) -> Estimator:
    """Look an estimator up.

    Raises:
      UserError: the name is unknown.

    >>> estimator("selective-iv").config_class.__name__
    'SelectiveIV'
    """
    module, config_class = _resolve(_ESTIMATORS, "estimator", name)
    return Estimator(name, config_class, module)
