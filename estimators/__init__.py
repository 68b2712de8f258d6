"""Causal estimators: pure functions from arrays to an `Estimate`.

Modules and the most used names are reached lazily:

>>> import jaxcore
>>> jaxcore.estimators.aipw.__name__, jaxcore.estimators.SelectiveIV.__name__
('aipw', 'SelectiveIV')
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcore.estimators.bootstrap import critical_value, multiplier
    from jaxcore.estimators.causalmm import CausalMMConfig
    from jaxcore.estimators.crossfit import fold_ids
    from jaxcore.estimators.datasets import load_401k
    from jaxcore.estimators.deconfound import Deconfound
    from jaxcore.estimators.did import DID
    from jaxcore.estimators.double_ml import IIVM, IRM, PLIV, PLR, iivm, irm, pliv, plr
    from jaxcore.estimators.estimate import Estimate, aggregate_repeats
    from jaxcore.estimators.image_confounding import ImageConfounding
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
    from jaxcore.estimators.saved import load_fit
    from jaxcore.estimators.select import pseudo_risk, smooth_select
    from jaxcore.estimators.selective_iv import SelectiveIV
    from jaxcore.estimators.several import APOS, LQTE, QTE

_NAMES = {
    "bootstrap": ("critical_value", "multiplier"),
    "causalmm": ("CausalMMConfig",),
    "crossfit": ("fold_ids",),
    "datasets": ("load_401k",),
    "deconfound": ("Deconfound",),
    "did": ("DID",),
    "double_ml": ("IIVM", "IRM", "PLIV", "PLR", "iivm", "irm", "pliv", "plr"),
    "estimate": ("Estimate", "aggregate_repeats"),
    "image_confounding": ("ImageConfounding",),
    "influence": ("aipw", "gateaux", "hajek", "ipw", "late", "multiply_robust", "partially_linear")
    + ("partially_linear_iv", "solve"),
    "linear_iv": ("ols", "tsls"),
    "saved": ("load_fit",),
    "select": ("pseudo_risk", "smooth_select"),
    "selective_iv": ("SelectiveIV",),
    "several": ("APOS", "LQTE", "QTE"),
}
_MODULES = tuple(module.name for module in pkgutil.iter_modules(__path__))

__all__ = [
    "APOS",
    "DID",
    "IIVM",
    "IRM",
    "LQTE",
    "PLIV",
    "PLR",
    "QTE",
    "CausalMMConfig",
    "Deconfound",
    "Estimate",
    "ImageConfounding",
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
    "load_fit",
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
    if name in _MODULES:
        return importlib.import_module(f"jaxcore.estimators.{name}")
    for home, names in _NAMES.items():
        if name in names:
            return getattr(importlib.import_module(f"jaxcore.estimators.{home}"), name)
    raise AttributeError(f"module 'jaxcore.estimators' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
