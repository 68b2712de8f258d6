"""From dataframes and formulas to the arrays of an estimator."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from jaxcore.errors import UserError
from jaxcore.estimators.report import PICTURES

R = TypeVar("R")


class FitsFrames(Generic[R]):
    """For estimators whose ``fit`` takes a column for each role, and covariates.

    Its keywords are ``weights``, ``clusters`` and ``covariates`` (their names). With it, an
    estimator can be called by ``jaxcore estimate`` as well.
    """

    roles: ClassVar[tuple[str, ...]] = ("outcome", "treatment", "instrument")
    report_pictures: ClassVar[tuple[str, ...]] = PICTURES  # their names in a report

    fit: Callable[..., R]

    @classmethod
    def options(cls) -> Callable[..., Any]:
        """Makes the settings from what the command line can say: its arguments are the options."""
        return cls

    def fit_frame(
        self,
        frame: Any,
        *,
        outcome: str,
        treatment: str,
        instrument: str | None = None,
        covariates: Sequence[str] | str,
        weights: str | None = None,
        clusters: str | None = None,
    ) -> R:
        """Estimate from named columns of a dataframe (pandas, polars, pyarrow, dict of arrays).

        Raises:
          UserError: an instrument too many or too few, or what is wrong with the data.
        """
        from jaxcore.data.tables import as_table, design

        if (instrument is not None) != ("instrument" in self.roles):
            wanted = "a column for the" if instrument is None else "no"
            found = "none" if instrument is None else repr(instrument)
            raise UserError(f"Expected {wanted} instrument, found {found}.")
        if isinstance(covariates, str):
            covariates = (covariates,)
        table = as_table(frame)
        named = {"outcome": outcome, "treatment": treatment, "instrument": instrument}
        columns = [name for role in self.roles if (name := named[role]) is not None]
        table.check([*columns, *covariates, *(c for c in (weights, clusters) if c is not None)])
        X, names = design(table, covariates)
        return self._fit(table, [*map(table.numbers, columns), X], names, weights, clusters)

    def fit_formula(
        self,
        formula: str,
        frame: Any,
        *,
        weights: str | None = None,
        clusters: str | None = None,
    ) -> R:
        """Estimate from a formula ``outcome ~ treatment | instrument | covariates``.

        Covariates may be transformed as in formulaic: ``"y ~ a | z | x + bs(age, 4) + C(marr)"``.
        Estimators without an instrument take ``"y ~ a | x"``.
        """
        from jaxcore.data.tables import as_table, formula_parts

        table = as_table(frame)
        *arrays, names = formula_parts(formula, table, self.roles)
        return self._fit(table, arrays, names, weights, clusters)

    def _fit(
        self,
        table: Any,
        arrays: Sequence[Any],
        covariates: Sequence[str],
        weights: str | None,
        clusters: str | None,
    ) -> R:
        return self.fit(
            *arrays,
            weights=None if weights is None else table.numbers(weights),
            clusters=None if clusters is None else table.values(clusters),
            covariates=covariates,
        )
