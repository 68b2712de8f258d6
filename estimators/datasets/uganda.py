"""The tutorial data of causalimages: cash grants in Uganda and satellite images, read by path.

2082 young adults at 327 places; grants were drawn at random by group, so an adjustment for images
should change little. The file belongs to a package under GPL-3 and does not come with this library.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxcore.data.geo.bands import BandSpec
from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError, readable

USABLE = (0, 2, 4)
"""Covariates that may be adjusted for; 1, 3 and 5 are the treatment times column 0, 2 and 4.

Column 3 is that of column 2 where a unit is treated, and one value for 1,255 of the other 1,257."""

_SHAPES = {
    "images": "n h w c",
    "image_key": "n",
    "unit_image_key": "u",
    "treatment": "u",
    "outcome": "u",
    "covariates": "u p",
    "image_long": "n",
    "image_lat": "n",
}


class Uganda(NamedTuple):
    """What `read_uganda` returns."""

    images: KeyedImages  # uint8, three bands of display values; coordinates rounded to 1 km
    Y: Float[np.ndarray, " n"]  # index of welfare and skills, standardised
    A: Float[np.ndarray, " n"]  # grant
    X: Float[np.ndarray, "n p"]  # missing values replaced by the mean of their column
    covariates: tuple[str, ...]  # names: covariate0, ...
    unit_key: np.ndarray  # key of each unit's image
    notices: tuple[str, ...]


def read_uganda(path: str | Path, *, columns: tuple[int, ...] = USABLE) -> Uganda:
    """Read ``causalimages_uganda.npz``.

    Args:
      path: the file.
      columns: covariates, 0 to 5. Columns 1, 3 and 5 contain the treatment: every unit with a 1 in
        column 1 or 5 is treated, which separates the arms perfectly, and column 3 varies among the
        treated alone; a notice says so where they are asked for.

    Raises:
      UserError: no such file, another one, or no such column.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Expected the file causalimages_uganda.npz, found no file {path}.")
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            data = {name: file[name] for name in _SHAPES}
    except Exception as error:  # of a damaged archive, or of another one
        text = readable(str(error)).strip().rstrip(".") or type(error).__name__
        raise UserError(f"Expected the file causalimages_uganda.npz, found: {text}.") from None
    _check_shapes(data, path)
    wrong = [c for c in columns if not 0 <= c < data["covariates"].shape[1]]
    if wrong:
        last = data["covariates"].shape[1] - 1
        raise UserError(f"Expected columns 0 to {last}, found {', '.join(map(str, wrong))}.")
    X = data["covariates"][:, list(columns)].astype(np.float64)
    gone = np.isnan(X)
    notices = []
    bad = [str(c) for c in columns if c not in USABLE]
    if bad:
        notices.append(
            f"perfect separation: covariate {' and '.join(bad)} is the treatment times another "
            "covariate and tells who is treated"
        )
    if gone.any():
        notices.append(f"replaced {int(gone.sum())} missing covariates by means of their columns")
        X = np.where(gone, np.nanmean(X, axis=0), X)
    coords = np.stack([data["image_long"], data["image_lat"]], axis=1).astype(np.float64)
    bands = BandSpec(("band1", "band2", "band3"))
    return Uganda(
        images=KeyedImages(data["images"], data["image_key"], bands, coords),
        Y=data["outcome"].astype(np.float64),
        A=data["treatment"].astype(np.float64),
        X=X,
        covariates=tuple(f"covariate{c}" for c in columns),
        unit_key=data["unit_image_key"],
        notices=tuple(notices),
    )


def _check_shapes(data: dict[str, np.ndarray], path: Path) -> None:
    sizes: dict[str, int] = {"c": 3}
    for name, axes in _SHAPES.items():
        shape, letters = data[name].shape, axes.split()
        same = len(shape) == len(letters) and all(
            sizes.setdefault(letter, size) == size
            for letter, size in zip(letters, shape, strict=True)
        )
        if not same or data[name].dtype.kind not in "iuf":
            raise UserError(
                f"Expected the arrays of causalimages_uganda.npz in {path}, found {name} of shape "
                f"{shape} and type {data[name].dtype}."
            )
