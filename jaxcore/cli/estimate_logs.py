"""``jaxcore estimate deconfound``: logs of texts in, logs with rewards out."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxcore.cli.output import show
from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.data.logs import Logs

NAME = "deconfound"


@dataclasses.dataclass(frozen=True)
class Names:
    """Which of the names in the logs are used."""

    confounders: tuple[str, ...] = ()  # of the logs' confounders; none: all of them
    instruments: tuple[str, ...] = ()  # of the logs' instruments; none: all of them
    groups: tuple[str, ...] = ()  # of the logs' groups whose effects route fe takes out; none: all
    clusters: str | None = None  # one of the logs' groups: its rows may depend on each other


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the effects of the confounders are known."""

    # iv: instruments; plm: adjust for the text; fe: repeated groups; ols_c: a biased baseline
    route: Literal["iv", "plm", "fe", "ols_c"]
    degree: int = 1  # powers of the confounders: above 1 their effects may bend
    nonlinear_C: bool = False  # splines of the confounders instead: their effects bend anyhow
    words: int = 256  # most frequent words that stand for a text where logs have no features
    ridge: float = 1.0  # penalty on features, route plm
    folds: int = 5  # of cross-fitting, route plm
    repetitions: int = 1  # repeated partitions, aggregated by medians
    kclass: Literal["2sls", "liml"] = "2sls"  # route iv; liml is less biased by weak instruments
    shrink: bool = False  # route fe: draw effects of small groups to the mean
    drop_singletons: bool = False  # route fe: leave out groups of one row
    missing: Literal["error", "drop"] = "error"  # rows with missing values
    seed: int = 0

    def estimator(self) -> Any:
        """The estimator with these settings."""
        from jaxcore.estimators.deconfound import Deconfound

        said = {"folds": "n_folds", "repetitions": "n_rep"}
        given = {
            said.get(f.name, f.name): getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name != "words"
        }
        return Deconfound(**given)


def deconfound(
    logs: tyro.conf.Positional[Path],
    settings: Annotated[Settings, tyro.conf.arg(name="")],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    report: Path | None = None,
    names: Annotated[Names, tyro.conf.arg(name="")] = Names(),
    level: float = 0.95,
    save: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Rewards of texts: outcomes without what recorded confounders did to them.

    Other routes that the logs allow are shown beside the chosen one, with Hausman's contrast.

    Args:
      logs: JSON lines with "text", "outcome", and by name "confounders", "instruments", "groups".
      settings: the route.
      output: new file: the lines of the logs, each with its "reward".
      report: folder for summary.txt, estimate.json and pictures.
      names: of the logs' columns.
      level: coverage of the intervals.
      save: new folder for the whole fit, which estimators.load_fit reads.
      overwrite: replace an earlier file and report.
    """
    from jaxcore.data.logs import read_logs, write_rewards
    from jaxcore.estimators.deconfound.comparison import Comparison, compare
    from jaxcore.estimators.report import check_folder, write_report
    from jaxcore.estimators.variance import normal_quantile

    normal_quantile(level)  # refuses a level outside (0, 1) before any work
    estimator = settings.estimator()
    if report is not None:
        check_folder(report, Comparison.every_picture, overwrite=overwrite)
    for path in (output, save):
        if path is not None and path.exists() and (path is save or not overwrite):
            raise UserError(f"Expected a new name, found {path} (--overwrite replaces a file).")
    if not output.parent.is_dir():
        raise UserError(f"Expected a folder for {output}, found none.")
    data = _chosen(read_logs(logs), names)
    found = compare(estimator, **_arguments(data, names, settings))
    fit = found.chosen
    if report is None:
        show(found.report(level).text)
    else:
        folder = write_report(found, report, level=level, overwrite=overwrite)
        show((folder / "summary.txt").read_text(), end="")
        show(f"report: {folder}")
    if save is not None:
        fit.save(save)
    count = write_rewards(logs, output, fit.adjusted_reward, fit.sample.kept, overwrite=overwrite)
    show(f"rewards of {count} texts: {output}")


def _chosen(logs: "Logs", names: Names) -> "Logs":
    for role in ("confounders", "instruments", "groups"):
        wanted = _split(getattr(names, role))
        if role == "groups" and names.clusters is not None:
            logs.chosen(role, (names.clusters,))  # refuses what is not there
            continue
        if wanted:
            logs = logs.chosen(role, wanted)
    return logs


def _split(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for part in names for name in part.split(",") if name)


def _words(logs: "Logs", settings: Settings) -> Any:
    """Words of the texts as features; route iv can do without the comparison that they allow."""
    from jaxcore.data.logs import bag_of_words

    try:
        return bag_of_words(logs.texts, settings.words)
    except UserError:
        if settings.route == "plm":
            raise
        return None


def _arguments(logs: "Logs", names: Names, settings: Settings) -> dict[str, Any]:
    """Arguments of `compare`."""
    features = logs.features
    if features is None and settings.route in ("plm", "iv"):
        features = _words(logs, settings)
    groups = {name: logs.groups[name] for name in _split(names.groups) or logs.groups}
    if names.clusters is not None and not names.groups:
        groups.pop(names.clusters)
    return {
        "Y": logs.outcome,
        "C": logs.matrix("confounders"),
        "instruments": logs.matrix("instruments"),
        "features": features,
        "groups": (groups or None) if settings.route == "fe" else None,
        "clusters": None if names.clusters is None else logs.groups[names.clusters],
        "names": {
            "confounders": tuple(logs.confounders) or None,
            "instruments": tuple(logs.instruments) or None,
        },
    }
