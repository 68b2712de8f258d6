"""Causal estimators: pure functions from arrays to an `Estimate`.

Modules and the most used names are reached lazily:

>>> import jaxcore
>>> jaxcore.estimators.aipw.__name__, jaxcore.estimators.SelectiveIV.__name__
('aipw', 'SelectiveIV')
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcore.estimators.bootstrap import critical_value, multiplier
    from jaxcore.estimators.crossfit import fold_ids
    from jaxcore.estimators.datasets import load_401k
    from jaxcore.estimators.double_ml import iivm, irm, pliv, plr
    from jaxcore.estimators.estimate import Estimate, aggregate_repeats
    from jaxcore.estimators.influence import (
        aipw,
        gateaux,
        hajek,
        ipw,
        late,
        multiply_robust,
        partially_linear,
        partially_linear_iv,
        solve,
    )
    from jaxcore.estimators.linear_iv import ols, tsls
    from jaxcore.estimators.select import pseudo_risk, smooth_select
    from jaxcore.estimators.selective_iv import SelectiveIV

_MODULES = (
    "bootstrap", "checks", "crossfit", "datasets", "double_ml", "genius", "influence", "linear_iv",
    "monte_carlo", "nuisance", "plots", "projection", "select", "selective_iv", "variance",
)  # fmt: skip

_HOMES = {
    "Estimate": "estimate", "aggregate_repeats": "estimate",
    "critical_value": "bootstrap", "multiplier": "bootstrap",
    "fold_ids": "crossfit",
    "iivm": "double_ml", "irm": "double_ml", "pliv": "double_ml", "plr": "double_ml",
    "aipw": "influence", "gateaux": "influence", "hajek": "influence", "ipw": "influence",
    "late": "influence", "multiply_robust": "influence", "partially_linear": "influence",
    "partially_linear_iv": "influence", "solve": "influence",
    "pseudo_risk": "select", "smooth_select": "select",
    "SelectiveIV": "selective_iv", "load_401k": "datasets",
    "ols": "linear_iv", "tsls": "linear_iv",
}  # fmt: skip

__all__ = [
    "Estimate",
    "SelectiveIV",
    "aggregate_repeats",
    "aipw",
    "critical_value",
    "fold_ids",
    "gateaux",
    "hajek",
    "iivm",
    "ipw",
    "irm",
    "late",
    "load_401k",
    "multiplier",
    "multiply_robust",
    "ols",
    "partially_linear",
    "partially_linear_iv",
    "pliv",
    "plr",
    "pseudo_risk",
    "smooth_select",
    "solve",
    "tsls",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"jaxcore.estimators.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"jaxcore.estimators.{name}")
    raise AttributeError(f"module 'jaxcore.estimators' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
