"""``jaxcore estimate image-confounding``: units of a table, and an image of each unit's place."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxcore.cli.output import show
from jaxcore.data.table_files import Reading
from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.data.geo.keyed import KeyedImages

NAME = "image-confounding"
LINE = "Effect of a treatment whose confounders show in images of the places."

_AS_FOUND = Reading()
_RASTERS = (".tif", ".tiff")
_IMAGES = (".npz", ".npy", ".tfrecord", *_RASTERS)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of the table are what."""

    outcome: str = "outcome"  # column of the outcome
    treatment: str = "treatment"  # column of the treatment, two levels
    covariates: tuple[str, ...] = ()  # columns of the covariates
    image: str | None = None  # column with the key of each unit's image; none: one image per row
    longitude: str | None = None  # column in degrees: a map, spatial correlation, crops of rasters
    latitude: str | None = None  # column in degrees
    weights: str | None = None  # column of observation weights
    clusters: str | None = None  # column of cluster labels; none: the images


@dataclasses.dataclass(frozen=True)
class Settings:
    """The estimator."""

    # networks that are trained, features of the images that are not, or no images
    backbone: Literal["vit", "cnn", "cnn2023", "rcf", "band_stats", "none"] = "vit"
    # how propensities become an effect; doubly robust: aipw, aipw_hajek
    estimator: Literal["aipw", "aipw_hajek", "hajek", "ipw", "ato", "att"] = "aipw"
    outcome_model: str = "ridge"  # learner of the outcome, or network: one for both
    ml_m: str = "lasso"  # learner of the treatment, where features are not trained
    folds: int = 5
    repetitions: int = 1  # repeated partitions, aggregated by medians
    clip: tuple[float, float] = (1e-3, 1 - 1e-3)  # bounds of propensities
    trim: float | None = None  # leave out units with propensities outside (trim, 1 - trim)
    calibrate: bool = True  # rescale propensities of networks on units that they have not seen
    se: Literal["cluster", "iid"] = "cluster"
    block_km: float | None = None  # clusters and folds are squares of this size
    missing: Literal["error", "drop"] = "error"  # rows with missing values
    treated: str | None = None  # level of the treatment that counts as 1
    steps: int = 400  # of a training
    batch_size: int = 32  # images of each fold in a step
    learning_rate: float = 1e-3
    augment: bool = True  # turn training images over, change their brightness
    seed: int = 0

    def estimator_of(self) -> Any:
        """The estimator with these settings."""
        from jaxcore.estimators.image_confounding import ImageConfounding, Training

        said = {"folds": "n_folds", "repetitions": "n_rep"}
        names = [f.name for f in dataclasses.fields(self)]
        given = {said.get(name, name): getattr(self, name) for name in names}
        training = {
            f.name: given.pop(f.name) for f in dataclasses.fields(Training) if f.name in given
        }
        return ImageConfounding(**given, training=Training(**training))


def image_confounding(
    output: Annotated[Path, tyro.conf.arg(aliases=["-o", "--report"])],
    data: tyro.conf.Positional[Path | None] = None,
    images: Path | None = None,
    side: int = 64,
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings(),
    columns: Annotated[Columns, tyro.conf.arg(name="")] = Columns(),
    reading: Annotated[Reading, tyro.conf.arg(name="")] = _AS_FOUND,
    runs: Path | None = None,
    alone: bool = False,
    level: float = 0.95,
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
      images: .npz with images and keys, .npy, .tfrecord of causalimages, or a GeoTIFF that crops
        around the places are cut from. Images must be older than the treatment.
      side: height and width of crops from a GeoTIFF, pixels.
      settings: of the estimator.
      columns: of the table.
      reading: what is not to be found from the table itself.
      runs: folder for the trainings, which go on from there when they were stopped.
      alone: only the fit with images and covariates.
      level: coverage of the intervals.
      overwrite: replace an earlier report.
    """
    from jaxcore.estimators.image_confounding.comparison import BOTH, IMAGE, Comparison, compare
    from jaxcore.estimators.report import check_folder, summary_path, write_report
    from jaxcore.estimators.variance import normal_quantile

    normal_quantile(level)  # refuses a level outside (0, 1) before any work
    estimator = settings.estimator_of()
    check_folder(output, Comparison.every_picture, overwrite=overwrite)
    given = _units(data, images, side, columns, reading, settings)
    if settings.block_km is not None and given.get("coords") is None:
        raise UserError("Expected --longitude and --latitude for --block-km, found none.")
    if alone:
        name, part = (BOTH, "both") if "X" in given else (IMAGE, "images")
        run_dir = None if runs is None else runs / part
        result: Any = Comparison({name: estimator.fit(**given, run_dir=run_dir)})
    else:
        result = compare(estimator, **given, run_dir=runs)
    folder = write_report(result, output, level=level, overwrite=overwrite)
    show(summary_path(folder).read_text(), end="")
    show(f"report: {folder}")


def _units(
    data: Path | None,
    images: Path | None,
    side: int,
    columns: Columns,
    reading: Reading,
    settings: Settings,
) -> dict[str, Any]:
    """Arguments of ``fit``."""
    if images is None and (data is None or data.suffix == ".npz"):
        _check_unused(columns, allowed=() if data is None else ("covariates",))
        return _simulated(settings.seed) if data is None else _uganda(data, columns)
    if data is None:
        raise UserError("Expected a table beside --images, found none.")
    return _tabled(data, images, side, columns, reading)


def _check_unused(columns: Columns, allowed: tuple[str, ...]) -> None:
    """Refuse columns where no table has them, rather than pass over them."""
    names = [
        f"--{f.name}"
        for f in dataclasses.fields(columns)
        if f.name not in allowed and getattr(columns, f.name) != f.default
    ]
    if names:
        raise UserError(f"Expected a table for {', '.join(names)}, found none.")


def _simulated(seed: int) -> dict[str, Any]:
    import jax
    import numpy as np

    from jaxcore.estimators.image_confounding.simulate import simulate_tutorial

    show("simulated: 1,000 units, an image of 64 pixels each, two covariates, an effect of 2")
    drawn = jax.device_get(simulate_tutorial(jax.random.key(seed)))
    pixels = np.round(255 * np.clip(drawn.images / drawn.images.max(), 0, 1)).astype(np.uint8)
    return {"Y": drawn.Y, "A": drawn.A, "images": pixels, "X": drawn.X}


def _uganda(path: Path, columns: Columns) -> dict[str, Any]:
    import numpy as np

    from jaxcore.estimators.datasets.uganda import USABLE, read_uganda

    chosen = USABLE
    names = [name for part in columns.covariates for name in part.split(",")]
    if names:
        known = {f"covariate{c}": c for c in range(6)}
        for name in names:
            if name not in known:
                raise UserError(f"Expected covariates of {', '.join(known)}, found {name!r}.")
        chosen = tuple(known[name] for name in names)
    found = read_uganda(path, columns=chosen)
    for notice in found.notices:
        show(notice)
    row, coords = found.images.rows_of(found.unit_key), found.images.coords
    return {
        "Y": found.Y,
        "A": found.A,
        "images": found.images,
        "X": found.X,
        "covariates": found.covariates,
        "image": found.unit_key,
        "coords": None if coords is None else np.asarray(coords)[row],
    }


def _tabled(
    data: Path, images: Path | None, side: int, columns: Columns, reading: Reading
) -> dict[str, Any]:
    import numpy as np

    from jaxcore.data.table_files import read_table
    from jaxcore.data.tables import design

    if images is None:
        raise UserError("Expected --images beside a table, found none.")
    if (columns.longitude is None) != (columns.latitude is None):
        raise UserError("Expected --longitude and --latitude together, found one of them.")
    table = read_table(data, reading)
    for notice in table.notices:
        show(notice)
    covariates = [
        name
        for part in columns.covariates
        for name in ([part] if part in table.columns else part.split(","))
    ]
    optional = (columns.image, columns.longitude, columns.weights, columns.clusters)
    named = [columns.outcome, columns.treatment, *covariates, *filter(None, optional)]
    table.check([*named, *filter(None, [columns.latitude])])
    out: dict[str, Any] = {
        "Y": table.numbers(columns.outcome),
        "A": table.values(columns.treatment),
    }
    if covariates:
        out["X"], out["covariates"] = design(table, covariates)
    if columns.weights is not None:
        out["weights"] = table.numbers(columns.weights)
    if columns.clusters is not None:
        out["clusters"] = table.values(columns.clusters)
    if columns.longitude is not None and columns.latitude is not None:
        places = [table.numbers(name) for name in (columns.longitude, columns.latitude)]
        out["coords"] = np.stack(places, axis=1)
    keys = None if columns.image is None else table.values(columns.image)
    if images.suffix.lower() in _RASTERS:
        out["images"], out["image"] = _crops(images, out.get("coords"), keys, side)
    else:
        out["images"], out["image"] = _read(images), keys
    return out


def _read(path: Path) -> "KeyedImages":
    from jaxcore.data.geo.keyed import read_images
    from jaxcore.data.geo.tfrecord import open_tfrecord

    if path.suffix not in _IMAGES:
        raise UserError(f"Expected images ending in {', '.join(_IMAGES)}, found {path}.")
    found = open_tfrecord(path) if path.suffix == ".tfrecord" else read_images(path)
    for notice in found.notices:
        show(notice)
    return found


def _crops(path: Path, coords: Any, keys: Any, side: int) -> "tuple[KeyedImages, Any]":
    """Crops around the places of a table, one for each key, or for each different place."""
    import numpy as np

    from jaxcore.data.geo.geotiff import open_crops
    from jaxcore.data.geo.keyed import texts

    if coords is None:
        raise UserError("Expected --longitude and --latitude for crops of a GeoTIFF, found none.")
    if keys is None:
        places, row = np.unique(coords, axis=0, return_inverse=True)
        row = row.reshape(-1)
        found = open_crops(path, places, size=side)
        return found, np.asarray(found.keys)[row]
    names, first = np.unique(texts(keys), return_index=True)
    return open_crops(path, coords[first], names, size=side), keys
