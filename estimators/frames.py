"""From dataframes and formulas to the arrays of an estimator."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from jaxcore.errors import UserError
from jaxcore.estimators.report import PICTURES
from jaxcore.estimators.result import Result

R = TypeVar("R")


class FitsFrames(Generic[R]):
    """For estimators whose ``fit`` takes a column for each role, and covariates.

    Its keywords are ``weights``, ``clusters`` and ``covariates`` (their names). With it, an
    estimator can be called by ``jaxcore estimate`` as well.
    """

    roles: ClassVar[tuple[str, ...]] = ("outcome", "treatment", "instrument")
    labelled: ClassVar[tuple[str, ...]] = ()  # roles whose columns may hold two levels of text
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
        covariates: Sequence[str] | str = (),
        weights: str | None = None,
        clusters: str | Sequence[str] | None = None,
        fold_ids: Any = None,
    ) -> R:
        """Estimate from named columns of a dataframe (pandas, polars, pyarrow, dict of arrays).

        Args:
          frame: the data; its names are taken as text.
          outcome: name of a column.
          treatment: name of a column.
          instrument: name of a column.
          covariates: names of columns.
          weights: name of the column of observation weights.
          clusters: name of the column of cluster labels; of several, for several kinds.
          fold_ids: folds as ``fit`` takes them, or the name of their column.

        Raises:
          UserError: an instrument too many or too few, or what is wrong with the data.
        """
        from jaxcore.data.tables import as_table, design

        if (instrument is not None) != ("instrument" in self.roles):
            wanted = "a column for the" if instrument is None else "no"
            found = "none" if instrument is None else repr(instrument)
            raise UserError(f"Expected {wanted} instrument, found {found}.")
        if isinstance(covariates, str | int):
            covariates = (str(covariates),)
        table = as_table(frame)
        named = {"outcome": outcome, "treatment": treatment, "instrument": instrument}
        named = {role: str(named[role]) for role in self.roles}
        covariates = tuple(map(str, covariates))
        table.check([*named.values(), *covariates])
        X, names = design(table, covariates)
        return self._fit(
            table, named, self._columns(table, named), X, names, weights, clusters, fold_ids
        )

    def fit_formula(
        self,
        formula: str,
        frame: Any,
        *,
        weights: str | None = None,
        clusters: str | Sequence[str] | None = None,
        fold_ids: Any = None,
    ) -> R:
        """Estimate from a formula ``outcome ~ treatment | instrument | covariates``.

        Covariates may be transformed as in formulaic: ``"y ~ a | z | x + bs(age, 4) + C(marr)"``.
        Estimators without an instrument take ``"y ~ a | x"``. For other forms see
        `data.formulas.formula_parts`.
        """
        from jaxcore.data.formulas import formula_parts
        from jaxcore.data.tables import as_table

        table = as_table(frame)
        kinds = [clusters] if isinstance(clusters, str) else [*(clusters or ())]
        other = [name for name in (weights, fold_ids, *kinds) if isinstance(name, str)]
        parts = formula_parts(formula, table, self.roles, other=other)
        named = dict(zip(self.roles, parts.named, strict=True))
        columns = [
            table.numbers(name) if self._numeric(role) and name in table.columns else values
            for (role, name), values in zip(named.items(), parts.columns, strict=True)
        ]
        return self._fit(
            table, named, columns, parts.X, parts.covariates, weights, clusters, fold_ids
        )

    def _numeric(self, role: str) -> bool:
        """Whether the column of a role must hold numbers."""
        return role not in self.labelled

    def _columns(self, table: Any, named: dict[str, str]) -> list[Any]:
        return [
            table.numbers(name) if self._numeric(role) else table.values(name)
            for role, name in named.items()
        ]

    def _fit(
        self,
        table: Any,
        named: dict[str, str],
        arrays: Sequence[Any],
        X: Any,
        covariates: Sequence[str],
        weights: str | None,
        clusters: str | Sequence[str] | None,
        fold_ids: Any,
    ) -> R:
        def column(name: Any) -> Any:
            return table.values(str(name)) if isinstance(name, str) else name

        given: dict[str, Any] = {} if fold_ids is None else {"fold_ids": column(fold_ids)}
        result = self.fit(
            *arrays,
            X,
            weights=None if weights is None else table.numbers(str(weights)),
            clusters=None if clusters is None else _labels(table, clusters),
            covariates=covariates,
            **given,
        )
        return result.named(named) if isinstance(result, Result) else result


class WithoutInstrument(FitsFrames[R]):
    """``fit`` of arrays for estimators that take outcome, treatment and covariates."""

    roles = ("outcome", "treatment")
    _fitted: Callable[..., R]

    def fit(
        self,
        Y: Any,
        A: Any,
        X: Any,
        *,
        weights: Any = None,
        clusters: Any = None,
        fold_ids: Any = None,
        covariates: Sequence[str] | None = None,
    ) -> R:
        """Estimate from arrays, lists, series or frames whose rows belong together.

        Args:
          Y: outcome.
          A: treatment.
          X: covariates, (n, p); names are those of a frame.
          weights: observation weights.
          clusters: cluster labels of any kind; folds never split a cluster.
          fold_ids: fold of each row instead of random ones: numbers from 0, texts, or pairs of
            training and test rows as scikit-learn makes them.
          covariates: names of the columns of ``X``.

        Raises:
          UserError: what is wrong with the data.
        """
        extra: dict[str, Any] = {"weights": weights, "clusters": clusters, "fold_ids": fold_ids}
        return self._fitted(Y, A, None, X, covariates=covariates, **extra)


class WithInstrument(FitsFrames[R]):
    """``fit`` of arrays for estimators that take an instrument, too."""

    roles = ("outcome", "treatment", "instrument")
    _fitted: Callable[..., R]

    def fit(
        self,
        Y: Any,
        A: Any,
        Z: Any,
        X: Any,
        *,
        weights: Any = None,
        clusters: Any = None,
        fold_ids: Any = None,
        covariates: Sequence[str] | None = None,
    ) -> R:
        """Estimate from arrays; ``Z`` is the instrument, the rest as in `WithoutInstrument.fit`."""
        extra: dict[str, Any] = {"weights": weights, "clusters": clusters, "fold_ids": fold_ids}
        return self._fitted(Y, A, Z, X, covariates=covariates, **extra)


def _labels(table: Any, names: Any) -> Any:
    """One column, or several by name."""
    if isinstance(names, list | tuple):
        return {str(name): table.values(str(name)) for name in names}
    return table.values(str(names))
