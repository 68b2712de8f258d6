"""Data that come with the package.

>>> from jaxcore.estimators import datasets
>>> datasets.load_401k().Y.shape
(9275,)
"""

from jaxcore.estimators.datasets.k401 import K401, load_401k, load_401k_columns

__all__ = ["K401", "load_401k", "load_401k_columns"]
