"""Image restoration networks and causal estimators in JAX.

Everything is reached lazily, so that ``import jaxcore`` costs no more than ``import jax``:

>>> import jaxcore
>>> jaxcore.metrics.psnr  # doctest: +ELLIPSIS
<function psnr at ...>
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = (
    "convert",
    "data",
    "errors",
    "estimators",
    "metrics",
    "models",
    "nn",
    "ops",
    "parallel",
    "registry",
    "serial",
    "tokenizers",
    "train",
    "typing",
    "weights",
)

__all__ = ["__version__"]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"jaxcore.{name}")
    raise AttributeError(f"module 'jaxcore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
