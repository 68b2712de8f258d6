"""Difference in differences with cross-fitted nuisances: two periods, and staggered adoption."""

from jaxcore.estimators.did.aggregate import AGGREGATIONS, aggregate
from jaxcore.estimators.did.estimator import DID
from jaxcore.estimators.did.long import group_time_frame
from jaxcore.estimators.did.result import DIDResult
from jaxcore.estimators.did.scores import cross_sections, panel
from jaxcore.estimators.did.staggered import Cell, GroupTime, cells_of, group_time
from jaxcore.estimators.did.two_periods import did_cross_sections, did_panel

__all__ = [
    "AGGREGATIONS",
    "DID",
    "Cell",
    "DIDResult",
    "GroupTime",
    "aggregate",
    "cells_of",
    "cross_sections",
    "did_cross_sections",
    "did_panel",
    "group_time",
    "group_time_frame",
    "panel",
]
