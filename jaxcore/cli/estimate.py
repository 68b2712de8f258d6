"""``jaxcore estimate``."""

from pathlib import Path
from typing import Annotated, Literal

import tyro


def estimate(
    method: tyro.conf.Positional[Literal["selective-iv"]],
    data: tyro.conf.Positional[Path],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    outcome: str | None = None,
    treatment: str | None = None,
    instrument: str | None = None,
    covariates: tuple[str, ...] = (),
    formula: str | None = None,
    weights: str | None = None,
    clusters: str | None = None,
    learners: tuple[str, ...] = ("const", "lin", "quad"),
    criterion: Literal["mixed_minimax", "minimax", "smooth"] = "mixed_minimax",
    folds: int = 5,
    repetitions: int = 1,
    clip: tuple[float, float] = (0.01, 0.99),
    missing: Literal["error", "drop"] = "error",
    level: float = 0.95,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Estimate a causal effect from a table; write a report.

    Args:
      method: the estimator.
      data: table with a column per variable.
      output: folder for summary.txt, estimate.json, estimates.png, overlap.png, pseudo_risk.png.
      outcome: column of the outcome.
      treatment: column of the treatment, 0 or 1.
      instrument: column of the instrument, 0 or 1.
      covariates: columns of the covariates.
      formula: "outcome ~ treatment | instrument | covariates" instead of the four above.
      weights: column of observation weights.
      clusters: column of cluster labels.
      learners: candidate bases of every nuisance: const, lin, quad, cubic, spline, fourier.
      criterion: how one combination of candidates is chosen.
      folds: cross-fitting folds.
      repetitions: repeated partitions, aggregated by medians.
      clip: bounds of the estimated probabilities.
      missing: refuse rows with missing values, or drop and count them.
      level: coverage of the intervals.
      seed: seed of the folds.
      overwrite: replace an earlier report.
    """
    from jaxcore import registry
    from jaxcore.data.tables import read_table
    from jaxcore.errors import UserError
    from jaxcore.estimators.report import check_folder, summary_path, write_report
    from jaxcore.estimators.variance import normal_quantile

    normal_quantile(level)  # refuses a level outside (0, 1) before any work
    config_class = registry.estimator(method).config_class
    check_folder(output, config_class.report_pictures, overwrite=overwrite)
    config = config_class(
        learners=learners,
        criterion=criterion,
        n_folds=folds,
        n_rep=repetitions,
        clip=clip,
        missing=missing,
        seed=seed,
    )
    table = read_table(data)
    if formula is not None:
        if outcome or treatment or instrument or covariates:
            raise UserError("Expected either --formula or column names, found both.")
        result = config.fit_formula(formula, table, weights=weights, clusters=clusters)
    else:
        named = {"--outcome": outcome, "--treatment": treatment, "--instrument": instrument}
        absent = [option for option, value in named.items() if value is None]
        if absent:
            raise UserError(f"Expected {', '.join(absent)} or --formula, found neither.")
        split = [name for part in covariates for name in part.split(",") if name]
        result = config.fit_frame(
            table,
            outcome=outcome,
            treatment=treatment,
            instrument=instrument,
            covariates=split,
            weights=weights,
            clusters=clusters,
        )
    folder = write_report(result, output, level=level, overwrite=overwrite)
    print(summary_path(folder).read_text(), end="")
    print(f"report: {folder}")
