"""Which columns of a table are what, as options of ``jaxcore estimate``."""

import dataclasses
from typing import TYPE_CHECKING, Any

from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.data.tables import Table


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of the table are what."""

    outcome: str | None = None  # column of the outcome
    treatment: str | None = None  # column of the treatment; plr takes several: a,b
    instrument: str | None = None  # column of the instrument, for estimators that take one
    covariates: tuple[str, ...] = ()  # columns of the covariates
    # "outcome ~ treatment | instrument | covariates" instead of the four above
    formula: str | None = None
    weights: str | None = None  # column of observation weights
    clusters: tuple[str, ...] = ()  # columns of cluster labels; several for several kinds

    def fit(self, estimator: Any, table: "Table") -> Any:
        """What the estimator finds in these columns."""
        roles = ("outcome", "treatment", "instrument")
        named: dict[str, Any] = {role: getattr(self, role) for role in roles}
        units: dict[str, Any] = {"weights": self.weights, "clusters": _one_or_all(self.clusters)}
        if self.formula is not None:
            if self.covariates or any(named.values()):
                raise UserError("Expected either --formula or column names, found both.")
            return estimator.fit_formula(self.formula, table, **units)
        _check_given({f"--{role}": named[role] for role in estimator.roles}, " or --formula")
        covariates = _split(self.covariates, table)
        several = _split((str(self.treatment),), table)
        if len(several) > 1:
            if not hasattr(estimator, "fit_frame_several"):
                raise UserError(f"Expected one treatment, found {', '.join(several)}.")
            return estimator.fit_frame_several(
                table, outcome=self.outcome, treatments=several, covariates=covariates, **units
            )
        return estimator.fit_frame(table, **named, covariates=covariates, **units)


@dataclasses.dataclass(frozen=True)
class PanelColumns:
    """Which columns of a long table are what."""

    outcome: str | None = None  # column of the outcome
    unit: str | None = None  # column that names the unit; none: other units in each of two periods
    time: str | None = None  # column of the period, numbers
    first: str | None = None  # column of the first treated period; empty for never
    # instead of first: column that is 1 where the unit is treated, 0 otherwise
    treatment: str | None = None
    covariates: tuple[str, ...] = ()  # columns of the covariates
    weights: str | None = None  # column of observation weights
    clusters: tuple[str, ...] = ()  # columns of cluster labels; several for several kinds

    def fit(self, estimator: Any, table: "Table") -> Any:
        """What the estimator finds in these columns."""
        _check_given({"--outcome": self.outcome, "--time": self.time})
        if self.first is None and self.treatment is None:
            raise UserError("Expected --first or --treatment, found neither.")
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        given["covariates"] = _split(self.covariates, table)
        return estimator.fit_frame(table, **given)


def columns_of(estimator: Any) -> type[Columns] | type[PanelColumns]:
    """The options for the columns that an estimator takes."""
    return PanelColumns if "time" in estimator.roles else Columns


def _check_given(options: dict[str, Any], instead: str = "") -> None:
    absent = [name for name, value in options.items() if value is None]
    if absent:
        raise UserError(
            f"Expected {', '.join(absent)}{instead}, found {'neither' if instead else 'none'}."
        )


def _split(names: tuple[str, ...], table: "Table") -> list[str]:
    """Names of columns, which may be given with commas between them; a name may hold one, too."""
    out: list[str] = []
    for part in names:
        inside = [name for name in part.split(",") if name]
        out += [part] if part in table.columns else inside
    return out


def _one_or_all(names: tuple[str, ...]) -> Any:
    return (names[0] if len(names) == 1 else names) if names else None
