"""Average treatment effect with an invalid instrument, with selection among nuisance learners.

>>> from jaxcore.estimators import selective_iv
>>> selective_iv.MODELS["M1"]
('pi', 'mu')
"""

from jaxcore.estimators.selective_iv.estimator import SelectiveIV
from jaxcore.estimators.selective_iv.learners import PlugIn, VaryingCoefficient
from jaxcore.estimators.selective_iv.moment import (
    BLOCKS,
    MODELS,
    Clip,
    Nuisances,
    from_predictions,
    influence_function,
    moment_general,
    moment_uncentred,
)
from jaxcore.estimators.selective_iv.parametric import Bases, mr_parametric
from jaxcore.estimators.selective_iv.result import SelectiveIVResult
from jaxcore.estimators.selective_iv.selected import estimate_from_candidates
from jaxcore.estimators.selective_iv.sensitivity import sensitivity_bounds
from jaxcore.estimators.selective_iv.simulate import simulate_siv1, simulate_siv2

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
    "estimate_from_candidates",
    "from_predictions",
    "influence_function",
    "moment_general",
    "moment_uncentred",
    "mr_parametric",
    "sensitivity_bounds",
    "simulate_siv1",
    "simulate_siv2",
]
