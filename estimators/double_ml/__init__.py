"""Double machine learning: PLR, PLIV, IRM (AIPW) and IIVM (LATE).

The classes take arrays, frames and formulas, choose folds and learners, and check everything; the
functions of the same names in small letters are for research code.

>>> from jaxcore.estimators import double_ml
>>> double_ml.PLR(n_folds=3).n_folds, double_ml.plr.__name__
(3, 'plr')
"""

from jaxcore.estimators.double_ml.estimators import IIVM, IRM, PLIV, PLR
from jaxcore.estimators.double_ml.functions import iivm, irm, pliv, plr
from jaxcore.estimators.double_ml.result import DoubleMLResult
from jaxcore.estimators.double_ml.several_treatments import SeveralTreatments

__all__ = [
    "IIVM",
    "IRM",
    "PLIV",
    "PLR",
    "DoubleMLResult",
    "SeveralTreatments",
    "iivm",
    "irm",
    "pliv",
    "plr",
]
