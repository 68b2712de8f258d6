"""Several numbers at once: potential outcomes of levels, effects on quantiles.

>>> from jaxcore.estimators import several
>>> several.APOS(n_folds=3).n_folds, several.QTE().quantiles[:2]
(3, (0.1, 0.2))
"""

from jaxcore.estimators.several.apos import APOS, APOSResult
from jaxcore.estimators.several.qte import LQTE, QTE, QTEResult

__all__ = ["APOS", "LQTE", "QTE", "APOSResult", "QTEResult"]
