"""Units of a table, and images of their places: what commands on images read."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcore.cli.output import show
from jaxcore.data.table_files import Reading
from jaxcore.errors import UserError

if TYPE_CHECKING:
    from jaxcore.data.geo.keyed import KeyedImages

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
class Pictures:
    """Where images come from."""

    # .npz with images and keys, .npy, .tfrecord of causalimages, or a GeoTIFF that crops around
    # the places are cut from
    images: Path | None = None
    side: int = 64  # height and width of crops from a GeoTIFF, pixels
    # folder with a pretrained encoder, whose features of the images take the place of a backbone
    encoder: Path | None = None
    span: tuple[float, float] | None = None  # black and white, for the encoder; bytes: 0 255


def units_of(
    data: Path | None,
    pictures: Pictures,
    columns: Columns,
    reading: Reading,
    seed: int,
    propensity: str | None = None,
) -> dict[str, Any]:
    """Arguments of ``fit``, from files or, without any, from a simulation.

    Args:
      data: see the commands.
      pictures: images.
      columns: of the table.
      reading: of the table.
      seed: of the simulation.
      propensity: a number, or a column.

    Raises:
      UserError: what is wrong with the files or the columns.
    """
    images, known = pictures.images, _number(propensity)
    if images is None and (data is None or data.suffix == ".npz"):
        _check_unused(columns, allowed=() if data is None else ("covariates",))
        if propensity is not None and known is None:
            raise UserError(f"Expected a number for --propensity, found {propensity!r}.")
        given = _simulated(seed) if data is None else _uganda(data, columns)
        return given if known is None else given | {"propensity": known}
    if data is None:
        raise UserError("Expected a table beside --images, found none.")
    return _tabled(
        data, images, pictures.side, columns, reading, propensity if known is None else known
    )


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


def _number(text: str | None) -> float | None:
    """A number, if the text is one."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _tabled(
    data: Path,
    images: Path | None,
    side: int,
    columns: Columns,
    reading: Reading,
    propensity: float | str | None,
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
    if isinstance(propensity, str):
        named.append(propensity)
    table.check([*named, *filter(None, [columns.latitude])])
    out: dict[str, Any] = {
        "Y": table.numbers(columns.outcome),
        "A": table.values(columns.treatment),
    }
    if covariates:
        out["X"], out["covariates"] = design(table, covariates)
    if propensity is not None:
        by_unit = isinstance(propensity, str)
        out["propensity"] = table.numbers(propensity) if by_unit else propensity
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
        out["images"], out["image"] = read_set(images), keys
    return out


def read_set(path: Path) -> "KeyedImages":
    """Images with keys from a file.

    Raises:
      UserError: another ending, no such file, or a damaged one.
    """
    from jaxcore.data.geo.keyed import read_images
    from jaxcore.data.geo.tfrecord import open_tfrecord

    if path.suffix not in _IMAGES:
        raise UserError(f"Expected images ending in {', '.join(_IMAGES)}, found {path}.")
    found = open_tfrecord(path) if path.suffix == ".tfrecord" else read_images(path)
    for notice in found.notices:
        show(notice)
    return found


def encoded(images: Any, pictures: Pictures) -> "KeyedImages":
    """Features of images by a pretrained encoder, as images of one pixel.

    Raises:
      UserError: no such encoder, or images without a range of values.
    """
    import numpy as np

    from jaxcore import weights
    from jaxcore.cli.progress import steps
    from jaxcore.data.geo.keyed import KeyedImages

    span = pictures.span
    if not isinstance(images, KeyedImages):
        images = KeyedImages(images, np.arange(len(images)))
    if span is None and np.dtype(images.images.dtype) != np.uint8:
        raise UserError(
            f"Expected --span with the values for black and white, as images are no bytes "
            f"({images.images.dtype}), found none."
        )
    assert pictures.encoder is not None
    encoder, found = weights.load_encoder(pictures.encoder), []
    with steps("encoding") as told:
        for batch in images.batches(64):
            found.append(encoder(batch, span=span or (0, 255)))
            told(sum(map(len, found)), len(images))
    return dataclasses.replace(images, images=np.concatenate(found)[:, None, None], bands=None)


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
