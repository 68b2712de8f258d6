"""Data that come with the package, and a reader of some that do not.

>>> from jaxcore.estimators import datasets
>>> datasets.load_401k().Y.shape
(9275,)
"""

from jaxcore.estimators.datasets.k401 import K401, load_401k, load_401k_columns
from jaxcore.estimators.datasets.uganda import Uganda, read_uganda

__all__ = ["K401", "Uganda", "load_401k", "load_401k_columns", "read_uganda"]
