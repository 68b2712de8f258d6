"""Average treatment effect with an invalid instrument, with selection among nuisance learners.

>>> from jaxcore.estimators import selective_iv
>>> selective_iv.MODELS["M1"]
('pi', 'mu')
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcore.estimators.selective_iv.baselines import aipw_ate, iivm_late, ols, tsls
    from jaxcore.estimators.selective_iv.constant_effect import (
        genius,
        genius_gmm,
        genius_multiplicative,
        genius_plm,
    )
    from jaxcore.estimators.selective_iv.estimator import SelectiveIV
    from jaxcore.estimators.selective_iv.k401 import load_401k
    from jaxcore.estimators.selective_iv.learner_fit import PlugIn, VaryingCoefficient
    from jaxcore.estimators.selective_iv.moment import (
        BLOCKS,
        MODELS,
        Clip,
        Nuisances,
        from_predictions,
        influence_function,
        moment_general,
        moment_uncentred,
        onesided_moment,
    )
    from jaxcore.estimators.selective_iv.parametric import Bases, mr_parametric
    from jaxcore.estimators.selective_iv.result import SelectiveIVResult
    from jaxcore.estimators.selective_iv.selected import estimate_from_candidates
    from jaxcore.estimators.selective_iv.sensitivity import sensitivity_bounds
    from jaxcore.estimators.selective_iv.simulate import simulate_siv1, simulate_siv2
    from jaxcore.estimators.selective_iv.weak_identification import robust_set

_HOMES = {
    "aipw_ate": "baselines", "iivm_late": "baselines", "ols": "baselines", "tsls": "baselines",
    "SelectiveIV": "estimator", "SelectiveIVResult": "result",
    "genius": "constant_effect", "genius_gmm": "constant_effect",
    "genius_multiplicative": "constant_effect",
    "genius_plm": "constant_effect", "robust_set": "weak_identification",
    "load_401k": "k401",
    "PlugIn": "learner_fit", "VaryingCoefficient": "learner_fit",
    "BLOCKS": "moment", "MODELS": "moment", "Clip": "moment", "Nuisances": "moment",
    "from_predictions": "moment", "influence_function": "moment", "moment_general": "moment",
    "moment_uncentred": "moment", "onesided_moment": "moment",
    "Bases": "parametric", "mr_parametric": "parametric",
    "estimate_from_candidates": "selected",
    "sensitivity_bounds": "sensitivity",
    "simulate_siv1": "simulate", "simulate_siv2": "simulate",
}  # fmt: skip

__all__ = [
    "BLOCKS",
    "MODELS",
    "Bases",
    "Clip",
    "Nuisances",
    "PlugIn",
    "SelectiveIV",
    "SelectiveIVResult",
    "VaryingCoefficient",
    "aipw_ate",
    "estimate_from_candidates",
    "from_predictions",
    "genius",
    "genius_gmm",
    "genius_multiplicative",
    "genius_plm",
    "iivm_late",
    "influence_function",
    "load_401k",
    "moment_general",
    "moment_uncentred",
    "mr_parametric",
    "ols",
    "onesided_moment",
    "robust_set",
    "sensitivity_bounds",
    "simulate_siv1",
    "simulate_siv2",
    "tsls",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = importlib.import_module(f"jaxcore.estimators.selective_iv.{_HOMES[name]}")
        return getattr(home, name)
    raise AttributeError(f"module 'jaxcore.estimators.selective_iv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
