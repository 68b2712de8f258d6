"""GENIUS: a constant effect with an instrument that may act on the outcome itself.

>>> from jaxcore.estimators import genius
>>> genius.genius_plm.__name__
'genius_plm'
"""

from jaxcore.estimators.genius.constant_effect import genius, genius_gmm, genius_plm

__all__ = ["genius", "genius_gmm", "genius_plm"]
