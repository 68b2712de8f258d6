"""From dataframes and formulas to the arrays of an estimator."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

R = TypeVar("R")


class FitsFrames(Generic[R]):
    """For estimators whose ``fit`` takes outcome, treatment, instrument and covariates."""

    fit: Callable[..., R]

    def fit_frame(
        self,
        frame: Any,
        *,
        outcome: str,
        treatment: str,
        instrument: str,
        covariates: Sequence[str] | str,
        weights: str | None = None,
        clusters: str | None = None,
    ) -> R:
        """Estimate from named columns of a dataframe (pandas, polars, pyarrow, dict of arrays)."""
        from jaxcore.data.tables import as_table, design

        if isinstance(covariates, str):
            covariates = (covariates,)
        table = as_table(frame)
        named = [outcome, treatment, instrument, *covariates]
        table.check(named + [c for c in (weights, clusters) if c is not None])
        X, names = design(table, covariates)
        return self.fit(
            table.numbers(outcome),
            table.numbers(treatment),
            table.numbers(instrument),
            X,
            weights=None if weights is None else table.numbers(weights),
            clusters=None if clusters is None else table.values(clusters),
            covariates=names,
        )

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
        """
        from jaxcore.data.tables import as_table, formula_parts

        table = as_table(frame)
        Y, A, Z, X, names = formula_parts(formula, table)
        return self.fit(
            Y,
            A,
            Z,
            X,
            weights=None if weights is None else table.numbers(weights),
            clusters=None if clusters is None else table.values(clusters),
            covariates=names,
        )
