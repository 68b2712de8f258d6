"""``jaxcore estimate``: one sub-command per estimator, with options of its own."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxcore import registry
from jaxcore.cli import estimate_images, estimate_logs, placeholder
from jaxcore.cli.estimate_analyses import Analysed, Nothing, analyses_of
from jaxcore.cli.estimate_columns import Columns, PanelColumns, columns_of
from jaxcore.cli.output import show
from jaxcore.data.table_files import Reading
from jaxcore.errors import UserError

_AS_FOUND = Reading()

# Commands that read something other than a table.
_OWN: dict[str, Callable[..., None]] = {
    **estimate_images.COMMANDS,
    estimate_logs.NAME: estimate_logs.deconfound,
}


def commands(argv: Sequence[str]) -> dict[str, Callable[..., None]]:
    """Name of an estimator -> its command; that of the chosen one alone has its options."""
    return {
        name: _command(name, line) if argv[:1] == [name] else placeholder(line)
        for name, line in registry.estimators().items()
    }


def _command(name: str, line: str) -> Callable[..., None]:
    if name in _OWN:
        return _OWN[name]
    chosen = registry.estimator(name).config_class
    make, run = chosen.options(), estimate
    kind: Any = columns_of(chosen)
    further: Any = analyses_of(name)
    no_columns, no_analyses = kind(), further()

    @functools.wraps(make)
    def later(**given: Any) -> Callable[[], Any]:  # mistakes in settings are told by `main`
        return functools.partial(make, **given)

    def command(
        data: tyro.conf.Positional[Path],
        output: Annotated[Path, tyro.conf.arg(aliases=["-o", "--report"])],
        settings: Annotated[Callable[[], Any], tyro.conf.arg(name="", constructor=later)],
        columns: Any = no_columns,
        analyses: Any = no_analyses,
        reading: Annotated[Reading, tyro.conf.arg(name="")] = _AS_FOUND,
        level: float = 0.95,
        save: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        options: dict[str, Any] = {"level": level, "save": save, "overwrite": overwrite}
        run(name, data, output, settings, columns, analyses, reading, **options)

    unnamed = tyro.conf.arg(name="")
    of_columns: Any = Annotated[kind, unnamed]
    of_analyses: Any = Annotated[further, unnamed]
    command.__annotations__ |= {"columns": of_columns, "analyses": of_analyses}
    options = (inspect.getdoc(estimate) or "").partition("\n")[-1]
    command.__doc__ = f"{line}\n{options}"
    return command


def estimate(
    method: str,
    data: Path,
    output: Path,
    settings: Callable[[], Any],
    columns: Columns | PanelColumns,
    analyses: Nothing,
    reading: Reading,
    *,
    level: float = 0.95,
    save: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Estimate a causal effect from a table; write a report.

    Args:
      method: name of the estimator.
      data: table with a column per variable: CSV, Parquet, Feather, Stata or Excel.
      output: folder for summary.txt, estimate.json and pictures.
      settings: makes the estimator.
      columns: of the table.
      analyses: what follows the estimate.
      reading: what is not to be found from the file itself.
      level: coverage of the intervals.
      save: new folder for the whole fit, which estimators.load_fit reads.
      overwrite: replace an earlier report.
    """
    from jaxcore.data.table_files import read_table
    from jaxcore.estimators.report import check_folder, summary_path, write_report
    from jaxcore.estimators.variance import normal_quantile

    normal_quantile(level)  # refuses a level outside (0, 1) before any work
    pictures = registry.estimator(method).config_class.report_pictures
    check_folder(output, (*pictures, *analyses.pictures), overwrite=overwrite)
    if save is not None and save.exists():
        raise UserError(f"Expected a new folder for --save, found {save}.")
    table = read_table(data, reading)
    for notice in table.notices:
        show(notice)
    analyses.check(table)
    fit = columns.fit(settings(), table)
    result = Analysed(fit, table, analyses)
    folder = write_report(result, output, level=level, overwrite=overwrite)
    if save is not None:
        fit.save(save)
    show(summary_path(folder).read_text(), end="")
    show(f"report: {folder}")
