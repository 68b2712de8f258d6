"""Networks: one folder each, with `init`, `apply`, `from_torch` and `to_torch`.

>>> import jaxcore
>>> jaxcore.models.adair.init  # doctest: +ELLIPSIS
<function init at ...>
"""

import importlib

__all__ = ["adair", "dea_net", "export", "rddm"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"jaxcore.models.{name}")
    raise AttributeError(f"module 'jaxcore.models' has no attribute {name!r}")
