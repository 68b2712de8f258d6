"""Networks: one folder each, with `init`, `apply`, `from_torch` and `to_torch`.

>>> import jaxcore
>>> jaxcore.models.adair.init  # doctest: +ELLIPSIS
<bound method Network.init of ImageNetwork(name='adair', ...)>
"""

import importlib
from types import ModuleType

_MODULES = ("adair", "dea_net", "export", "rddm")


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"jaxcore.models.{name}")
    raise AttributeError(f"module 'jaxcore.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
