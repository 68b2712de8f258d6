"""``jaxcore estimate``: one sub-command per estimator, with options of its own."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxcore import registry
from jaxcore.cli import placeholder
from jaxcore.cli.output import show
from jaxcore.data.table_files import Reading
from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.data.tables import Table
    from jaxcore.estimators.frames import FitsFrames


_AS_FOUND = Reading()


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of the table are what."""

    outcome: str | None = None  # column of the outcome
    treatment: str | None = None  # column of the treatment
    instrument: str | None = None  # column of the instrument, for estimators that take one
    covariates: tuple[str, ...] = ()  # columns of the covariates
    # "outcome ~ treatment | instrument | covariates" instead of the four above
    formula: str | None = None
    weights: str | None = None  # column of observation weights
    clusters: tuple[str, ...] = ()  # columns of cluster labels; several for several kinds

    def fit(self, estimator: "FitsFrames[Any]", table: "Table") -> Any:
        """What the estimator finds in these columns."""
        roles = ("outcome", "treatment", "instrument")
        named: dict[str, Any] = {role: getattr(self, role) for role in roles}
        units: dict[str, Any] = {"weights": self.weights, "clusters": _one_or_all(self.clusters)}
        if self.formula is not None:
            if self.covariates or any(named.values()):
                raise UserError("Expected either --formula or column names, found both.")
            return estimator.fit_formula(self.formula, table, **units)
        absent = [f"--{role}" for role in estimator.roles if named[role] is None]
        if absent:
            raise UserError(f"Expected {', '.join(absent)} or --formula, found neither.")
        split: list[str] = []
        for part in self.covariates:  # a name may hold a comma
            names = part.split(",")
            split += [part] if part in table.columns else [name for name in names if name]
        return estimator.fit_frame(table, **named, covariates=split, **units)


def _one_or_all(names: tuple[str, ...]) -> Any:
    return (names[0] if len(names) == 1 else names) if names else None


def commands(argv: Sequence[str]) -> dict[str, Callable[..., None]]:
    """Name of an estimator -> its command; that of the chosen one alone has its options."""
    return {
        name: _command(name, line) if argv[:1] == [name] else placeholder(line)
        for name, line in registry.estimators().items()
    }


def _command(name: str, line: str) -> Callable[..., None]:
    make, run = registry.estimator(name).config_class.options(), estimate

    @functools.wraps(make)
    def later(**given: Any) -> Callable[[], Any]:  # mistakes in settings are told by `main`
        return functools.partial(make, **given)

    def command(
        data: tyro.conf.Positional[Path],
        output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
        settings: Annotated[Callable[[], Any], tyro.conf.arg(name="", constructor=later)],
        columns: Annotated[Columns, tyro.conf.arg(name="")] = Columns(),
        reading: Annotated[Reading, tyro.conf.arg(name="")] = _AS_FOUND,
        level: float = 0.95,
        overwrite: bool = False,
    ) -> None:
        run(name, data, output, settings, columns, reading, level=level, overwrite=overwrite)

    options = (inspect.getdoc(estimate) or "").partition("\n")[-1]
    command.__doc__ = f"{line}\n{options}"
    return command


def estimate(
    method: str,
    data: Path,
    output: Path,
    settings: Callable[[], "FitsFrames[Any]"],
    columns: Columns,
    reading: Reading,
    *,
    level: float = 0.95,
    overwrite: bool = False,
) -> None:
    """Estimate a causal effect from a table; write a report.

    Args:
      method: name of the estimator.
      data: table with a column per variable: CSV, Parquet, Feather, Stata or Excel.
      output: folder for summary.txt, estimate.json and pictures.
      settings: makes the estimator.
      columns: of the table.
      reading: what is not to be found from the file itself.
      level: coverage of the intervals.
      overwrite: replace an earlier report.
    """
    from jaxcore.data.table_files import read_table
    from jaxcore.estimators.report import check_folder, summary_path, write_report
    from jaxcore.estimators.variance import normal_quantile

    normal_quantile(level)  # refuses a level outside (0, 1) before any work
    pictures = registry.estimator(method).config_class.report_pictures
    check_folder(output, pictures, overwrite=overwrite)
    table = read_table(data, reading)
    for notice in table.notices:
        show(notice)
    result = columns.fit(settings(), table)
    folder = write_report(result, output, level=level, overwrite=overwrite)
    show(summary_path(folder).read_text(), end="")
    show(f"report: {folder}")
