"""Rewards of texts from outcomes that recorded confounders have moved, too (DeconfoundLM).

`Deconfound` takes arrays and tables, checks everything and returns a `DeconfoundResult`; the
functions of `routes` are for research code.

>>> from jaxcore.estimators import deconfound
>>> sorted(deconfound.ROUTES)
['fe', 'iv', 'ols_c', 'plm']
"""

from jaxcore.estimators.deconfound.diagnostics import hausman
from jaxcore.estimators.deconfound.estimator import ROUTES, Deconfound
from jaxcore.estimators.deconfound.result import DeconfoundResult

__all__ = ["ROUTES", "Deconfound", "DeconfoundResult", "hausman"]
