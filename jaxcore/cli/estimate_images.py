"""``jaxcore estimate image-confounding`` and ``image-heterogeneity``: a table and images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxcore.cli.image_units import Columns, Pictures, encoded, read_set, units_of
from jaxcore.cli.output import show
from jaxcore.data.table_files import Reading
from jaxcore.errors import UserError

_AS_FOUND, _NO_IMAGES, _NAMES = Reading(), Pictures(), Columns()


@dataclasses.dataclass(frozen=True)
class Trained:
    """How networks are trained."""

    steps: int = 400  # of a training
    batch_size: int = 32  # images of each fold in a step
    learning_rate: float = 1e-3
    augment: bool = True  # turn training images over, change their brightness
    # end after so many evaluations without a better loss on images that are set aside
    patience: int | None = None


@dataclasses.dataclass(frozen=True)
class Settings(Trained):
    """The estimator."""

    # networks that are trained, features of the images that are not, or no images
    backbone: Literal["vit", "cnn", "cnn2023", "rcf", "band_stats", "none"] = "vit"
    # how propensities become an effect; doubly robust: aipw, aipw_hajek
    estimator: Literal["aipw", "aipw_hajek", "hajek", "ipw", "ato", "att"] = "aipw"
    outcome_model: str = "ridge"  # learner of the outcome, or network: one for both
    targeting: float = 0.0  # weight of targeted regularisation of one network for both
    ml_m: str = "lasso"  # learner of the treatment, where features are not trained
    folds: int = 5
    repetitions: int = 1  # repeated partitions, aggregated by medians
    clip: tuple[float, float] = (1e-3, 1 - 1e-3)  # bounds of propensities
    trim: float | None = None  # leave out units with propensities outside (trim, 1 - trim)
    calibrate: bool = True  # rescale propensities of networks on units that they have not seen
    se: Literal["cluster", "iid", "bootstrap"] = "cluster"  # bootstrap draws clusters whole
    n_boot: int = 1000  # replicates of the bootstrap
    block_km: float | None = None  # clusters and folds are squares of this size
    compat: Literal["causalimages"] | None = None  # with hajek: mean over folds, as the package
    missing: Literal["error", "drop"] = "error"  # rows with missing values
    treated: str | None = None  # level of the treatment that counts as 1
    seed: int = 0

    def estimator_of(self, encoder: Path | None = None) -> Any:
        """The estimator with these settings; ``encoder`` gives it embeddings to look at."""
        from jaxcore.estimators.image_confounding import ImageConfounding

        given, training = _parted(self)
        if encoder is not None:
            given["backbone"] = "embeddings"
        return ImageConfounding(**given, training=training)


@dataclasses.dataclass(frozen=True)
class ClusterSettings(Trained):
    """The estimator of clusters."""

    n_clusters: int = 2
    backbone: Literal["vit", "cnn", "cnn2023"] = "vit"  # network that is trained
    steps: int = 500  # of a training
    folds: int = 3
    repetitions: int = 2  # repeated partitions, over which predictions are averaged
    missing: Literal["error", "drop"] = "error"  # rows with missing values
    treated: str | None = None  # level of the treatment that counts as 1
    seed: int = 0

    def estimator_of(self) -> Any:
        """The estimator with these settings."""
        from jaxcore.estimators.image_confounding import ImageHeterogeneity

        given, training = _parted(self)
        return ImageHeterogeneity(**given, training=training)


def _parted(settings: Trained) -> tuple[dict[str, Any], Any]:
    """Settings by the names of the class, and those of the training."""
    from jaxcore.estimators.image_confounding import Training

    said = {"folds": "n_folds", "repetitions": "n_rep"}
    names = [f.name for f in dataclasses.fields(settings)]
    given = {said.get(name, name): getattr(settings, name) for name in names}
    own = {f.name: given.pop(f.name) for f in dataclasses.fields(Training) if f.name in given}
    return given, Training(**own)


def image_confounding(
    output: Annotated[Path, tyro.conf.arg(aliases=["-o", "--report"])],
    data: tyro.conf.Positional[Path | None] = None,
    pictures: Annotated[Pictures, tyro.conf.arg(name="")] = _NO_IMAGES,
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings(),
    columns: Annotated[Columns, tyro.conf.arg(name="")] = _NAMES,
    reading: Annotated[Reading, tyro.conf.arg(name="")] = _AS_FOUND,
    runs: Path | None = None,
    alone: bool = False,
    level: float = 0.95,
    save: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Effect of a treatment whose confounders show in images of the places.

    Writes the effect adjusted for nothing, for covariates, for images, and for both, on the same
    folds; overlap, balance, salience and a map as pictures. Without data it shows itself on a
    simulation whose effect is 2.

    Args:
      output: folder for summary.txt, estimate.json and pictures.
      data: table with a row for each unit (CSV, Parquet, Feather, Stata, Excel), or
        causalimages_uganda.npz, which holds images too.
      pictures: images of the places; they must be older than the treatment.
      settings: of the estimator.
      columns: of the table.
      reading: what is not to be found from the table itself.
      runs: folder for the trainings, which go on from there when they were stopped.
      alone: only the fit with images and covariates.
      level: coverage of the intervals.
      save: new folder for the fit that adjusts for most, which estimators.load_fit reads.
      overwrite: replace an earlier report.
    """
    from jaxcore.estimators.image_confounding.comparison import BOTH, IMAGE, Comparison, compare

    estimator = settings.estimator_of(pictures.encoder)
    _check_folders(output, Comparison.every_picture, level, save, overwrite=overwrite)
    given = units_of(data, pictures, columns, reading, settings.seed)
    if settings.block_km is not None and given.get("coords") is None:
        raise UserError("Expected --longitude and --latitude for --block-km, found none.")
    if pictures.encoder is not None:
        given["images"] = encoded(given["images"], pictures)
    if alone:
        name, part = (BOTH, "both") if "X" in given else (IMAGE, "images")
        run_dir = None if runs is None else runs / part
        result: Any = Comparison({name: estimator.fit(**given, run_dir=run_dir)})
    else:
        result = compare(estimator, **given, run_dir=runs)
    _write(result, result.main, output, level, save, overwrite=overwrite)


def image_heterogeneity(
    output: Annotated[Path, tyro.conf.arg(aliases=["-o", "--report"])],
    data: tyro.conf.Positional[Path | None] = None,
    pictures: Annotated[Pictures, tyro.conf.arg(name="")] = _NO_IMAGES,
    settings: Annotated[ClusterSettings, tyro.conf.arg(name="")] = ClusterSettings(),
    columns: Annotated[Columns, tyro.conf.arg(name="")] = _NAMES,
    reading: Annotated[Reading, tyro.conf.arg(name="")] = _AS_FOUND,
    propensity: str | None = None,
    others: Path | None = None,
    runs: Path | None = None,
    level: float = 0.95,
    save: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Effects that differ between kinds of places, told from their images.

    For a treatment that was drawn by lot. Writes what networks learned of clusters of images, and
    effects in groups of units that they have not seen, with intervals; typical images, effects,
    salience and a map as pictures. Without data it shows itself on a simulation in which all
    effects are the same.

    Args:
      output: folder for summary.txt, estimate.json and pictures.
      data: table with a row for each unit (CSV, Parquet, Feather, Stata, Excel), or
        causalimages_uganda.npz, which holds images too.
      pictures: images of the places; they must be older than the treatment.
      settings: of the estimator.
      columns: of the table.
      reading: what is not to be found from the table itself.
      propensity: probability of treatment by design: a number, or the column of one for each unit;
        none: the share of the treated, for all.
      others: file of images of other places (as --images, no raster), whose effects are told.
      runs: folder for the trainings, which go on from there when they were stopped.
      level: coverage of the intervals.
      save: new folder for the whole fit, which estimators.load_fit reads.
      overwrite: replace an earlier report.
    """
    from jaxcore.estimators.image_confounding.cluster_report import ClusterReport

    if columns.weights is not None or pictures.encoder is not None:
        raise UserError("Expected neither --weights nor --encoder here, found one.")
    estimator = settings.estimator_of()
    _check_folders(output, ClusterReport.every_picture, level, save, overwrite=overwrite)
    other = None if others is None else read_set(others)
    given = units_of(data, pictures, columns, reading, settings.seed, propensity)
    if other is not None and "X" in given:
        raise UserError("Expected no covariates with --others, whose covariates no file has.")
    if other is not None:
        _check_alike(other.images, getattr(given["images"], "images", given["images"]))
    result = estimator.fit(**given, run_dir=runs)
    told = None if other is None else result.transport(other)
    report = ClusterReport(result, told, () if other is None else list(map(str, other.keys)))
    _write(report, result, output, level, save, overwrite=overwrite)


COMMANDS: dict[str, Callable[..., None]] = {
    "image-confounding": image_confounding,
    "image-heterogeneity": image_heterogeneity,
}
"""By the names in `jaxcore.registry`."""


def _check_alike(others: Any, own: Any) -> None:
    """Refuse images of other places, before any training, that networks could not look at."""
    if tuple(others.shape[1:]) != tuple(own.shape[1:]):
        raise UserError(
            f"Expected images of shape (n, {', '.join(map(str, own.shape[1:]))}) for --others, as "
            f"those of the units, found {tuple(others.shape)}."
        )


def _check_folders(
    output: Path, pictures: tuple[str, ...], level: float, save: Path | None, *, overwrite: bool
) -> None:
    """Refuse, before any work, what could not be written, and a level outside (0, 1)."""
    from jaxcore.estimators.report import check_folder
    from jaxcore.estimators.variance import normal_quantile

    normal_quantile(level)
    check_folder(output, pictures, overwrite=overwrite)
    if save is not None and save.exists():
        raise UserError(f"Expected a new folder for --save, found {save}.")


def _write(
    report: Any, fit: Any, output: Path, level: float, save: Path | None, *, overwrite: bool
) -> None:
    from jaxcore.estimators.report import summary_path, write_report

    folder = write_report(report, output, level=level, overwrite=overwrite)
    if save is not None:
        fit.save(save)
    show(summary_path(folder).read_text(), end="")
    show(f"report: {folder}")
