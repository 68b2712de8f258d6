"""Settings that every cross-fitted estimator has, checked when they are made."""

import contextlib
import dataclasses
from typing import Any, Self

import jax
import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators.checks import MISSING

AGGREGATES = ("median", "mean")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossFitting:
    """Folds, repetitions, and what becomes of rows; the same for all estimators.

    Objects of settings do not change: `set_params` gives a new one.
    """

    n_folds: int = 5
    n_rep: int = 1  # repeated partitions
    aggregate: str = "median"  # of the repetitions, or "mean"
    clip: tuple[float, float] = (0.01, 0.99)  # bounds of estimated probabilities
    missing: str = "error"  # or "drop": rows with missing values are left out and counted
    treated: Any = None  # level of the treatment that counts as 1; None: the later of two
    assigned: Any = None  # the same of the instrument
    stratify: bool = True  # folds with equal shares of treatment and instrument
    double: bool = True  # float64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_folds", "n_rep", "seed"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or abs(value) >= 1 << 63:
                raise UserError(f"Expected a 64-bit whole number for {name}, found {value!r}.")
        if self.n_rep < 1:
            raise UserError(f"Expected at least one repetition, found n_rep={self.n_rep}.")
        if self.aggregate not in AGGREGATES:
            raise UserError(f"Expected aggregate of {AGGREGATES}, found {self.aggregate!r}.")
        if self.missing not in MISSING:
            raise UserError(f"Expected missing='error' or 'drop', found {self.missing!r}.")
        check_clip(self.clip)

    @property
    def clustered(self) -> bool:
        """Whether standard errors are clustered, if there are clusters."""
        return True

    @property
    def levels(self) -> dict[str, Any]:
        """The level of every role that counts as 1, if it is named."""
        return {"treatment": self.treated, "instrument": self.assigned}

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The scope the arithmetic runs in."""
        return jax.enable_x64(True) if self.double else contextlib.nullcontext()

    def check_given(self, fold_ids: Any) -> None:
        """Refuse given folds together with repetitions."""
        if fold_ids is not None and self.n_rep > 1:
            raise UserError(f"Expected n_rep=1 with given folds, found {self.n_rep}.")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All settings by name; with ``deep`` also those of learners, as ``ml_g__alpha``."""
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if deep:
            for name, value in list(out.items()):
                if dataclasses.is_dataclass(value) and not isinstance(value, type):
                    inner = dataclasses.fields(value)
                    out |= {f"{name}__{f.name}": getattr(value, f.name) for f in inner}
        return out

    def set_params(self, **params: Any) -> Self:
        """The same settings with some changed, those of learners as ``ml_g__alpha=0.1``.

        Raises:
          UserError: an unknown name, or what is wrong with a value.
        """
        known, changed = self.get_params(), {}
        for name, value in params.items():
            if name not in known:
                raise UserError(
                    f"Expected a setting of {type(self).__name__} "
                    f"({', '.join(self.get_params(deep=False))}), found {name!r}."
                )
            outer, _, inner = name.partition("__")
            held = changed.get(outer, known[outer])
            changed[outer] = dataclasses.replace(held, **{inner: value}) if inner else value
        return dataclasses.replace(self, **changed)

    def clone(self) -> Self:
        """A copy with the same settings."""
        return dataclasses.replace(self)


def check_clip(clip: Any) -> None:
    """Refuse what is no pair of bounds within [0, 1].

    Raises:
      UserError: with what was found.
    """
    if np.shape(clip) != (2,):
        raise UserError(f"Expected two numbers for clip, found {clip!r}.")
    low, high = clip
    if not 0 <= low < high <= 1:
        raise UserError(f"Expected 0 <= low < high <= 1 for clip, found {low}, {high}.")
