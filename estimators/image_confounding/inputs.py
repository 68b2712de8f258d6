"""Checks of images, treatment, outcome and tables before a training: all mistakes at once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxcore.data.columns import array_of
from jaxcore.data.geo.bands import standardise_table
from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError, readable
from jaxcore.estimators.checks import Sample
from jaxcore.estimators.columns import column, covariate_columns, two_levels
from jaxcore.estimators.image_confounding.separation import words_on_separation
from jaxcore.estimators.image_confounding.spatial import check_coordinates

_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Checked inputs, and what there is to say about them."""

    Y: Float[np.ndarray, " n"]
    A: Float[np.ndarray, " n"]
    X: Float[np.ndarray, "n p"]
    covariates: tuple[str, ...]
    images: KeyedImages  # those that units have
    rows: Int[np.ndarray, " n"]  # image of each unit: its cluster, never to be split over folds
    notices: tuple[str, ...]


def check_inputs(
    images: KeyedImages,
    treatment: Any,
    outcome: Any,
    covariates: Any = None,
    unit_key: Any = None,
    *,
    acquired: Any = None,
    treated_on: Any = None,
    covariate_names: tuple[str, ...] | None = None,
    pixels: bool = True,
) -> Inputs:
    """Check everything and say all that is wrong at once.

    Args:
      images: one for each key; see `jaxcore.data.geo.keyed`.
      treatment: 0 and 1, or two levels, one for each unit.
      outcome: a number for each unit.
      covariates: tables; None for images alone.
      unit_key: key of each unit's image; None where unit i has image i.
      acquired: date of each image (in the order of ``images.keys``). Images taken after the
        treatment show what it did, and are refused.
      treated_on: date of the treatment, one for all.
      covariate_names: names of the columns.
      pixels: read all images once, for missing pixels and constant images.

    Raises:
      UserError: a line for each mistake: other numbers of rows, missing values, one arm only,
        constant columns, units without image, missing pixels, images after the treatment.

    >>> images = KeyedImages(np.arange(32.0).reshape(2, 4, 4, 1), ["a", "b"])
    >>> check_inputs(images, [0, 1, 1], [1.0, 2.0, 3.0], unit_key=["a", "b", "b"]).rows.tolist()
    [0, 1, 1]
    """
    wrong: list[str] = []
    notices = list(images.notices)

    def tried(check: Callable[[], Any], otherwise: Any = None) -> Any:
        try:
            return check()
        except UserError as error:
            wrong.append(str(error))
            return otherwise

    y = tried(lambda: _complete(column(outcome, "outcome"), "outcome"))
    n = len(y) if y is not None else len(array_of(treatment, "the treatment"))
    a = tried(lambda: _arms(treatment, n, notices))
    X, names = np.zeros((n, 0)), ()
    if covariates is not None:
        X, names = tried(lambda: _table(covariates, covariate_names, n), (X, names))
    keys = images.keys if unit_key is None else unit_key
    rows = tried(lambda: _rows(images, keys, n))
    if a is not None and X.shape[1]:
        notices += words_on_separation(a, X, names)
    if acquired is not None:
        tried(lambda: _before(images, acquired, treated_on))
    used = images
    if rows is not None:
        used, rows = images.of_units(keys)
        notices = [*used.notices, *(text for text in notices if text not in used.notices)]
        if used.coords is not None:
            tried(lambda: check_coordinates(used.coords, len(used)))
        if a is not None:
            notices += _shared(a, rows, len(used))
    if pixels:
        notices += tried(lambda: _pixels(used), [])
    if wrong or y is None or a is None or rows is None:
        many = "1 mistake" if len(wrong) == 1 else f"{len(wrong)} mistakes"
        raise UserError(f"Expected usable images and tables, found {many}:", wrong)
    return Inputs(Y=y, A=a, X=X, covariates=names, images=used, rows=rows, notices=tuple(notices))


def _complete(values: np.ndarray, name: str) -> np.ndarray:
    bad = int(np.sum(~np.isfinite(values)))
    if bad or not len(values):
        raise UserError(
            f"Expected a finite {name} for every unit, found {bad or 'none'} of {len(values)} "
            "missing or infinite."
        )
    return values


def _arms(treatment: Any, n: int, notices: list[str]) -> np.ndarray:
    a, notice = two_levels(treatment, "treatment", n=n)
    _complete(a, "treatment")
    if np.all(a == a[0]):
        raise UserError(f"Expected both 0 and 1 in the treatment, found only {a[0]:g}.")
    if notice is not None:
        notices.append(notice)
    return a


def _table(
    covariates: Any, names: tuple[str, ...] | None, n: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    X, found = covariate_columns(covariates, names, n)
    gone = (~np.isfinite(X)).sum(axis=0)
    bad = [f"{int(k)} in {name}" for name, k in zip(found, gone, strict=True) if k]
    if bad:
        raise UserError(f"Expected covariates without missing values, found {', '.join(bad)}.")
    flat = [name for name, spread in zip(found, np.ptp(X, axis=0), strict=True) if spread == 0]
    if flat:
        raise UserError(f"Expected covariates that vary, found {', '.join(flat)} constant.")
    return X, found


def _rows(images: KeyedImages, keys: Any, n: int) -> np.ndarray:
    if len(keys) != n:
        raise UserError(f"Expected a key of an image for each of {n} units, found {len(keys)}.")
    return images.rows_of(keys)


def _before(images: KeyedImages, acquired: Any, treated_on: Any) -> None:
    """Refuse images that the treatment may have changed."""
    try:
        dates = array_of(acquired, "the dates of images").astype("datetime64[D]")
        day = np.datetime64(treated_on, "D")
    except ValueError:
        raise UserError(
            "Expected dates such as 2000-05-31 of images and treatment, found others."
        ) from None
    if dates.shape != (len(images),) or np.isnat(day) or np.isnat(dates).any():
        raise UserError(
            f"Expected a date for each of {len(images)} images and one of the treatment, found "
            f"an array of shape {dates.shape} or missing ones."
        )
    late = np.flatnonzero(dates >= day)
    if len(late):
        raise UserError(
            f"Expected images from before the treatment ({day}), found {len(late)} of "
            f"{len(images)} from that day or later (keys {_some(images.keys, late)}): they show "
            "what the treatment did."
        )


def _shared(a: np.ndarray, rows: np.ndarray, count: int) -> list[str]:
    """A word where units share images: whether treatment varies within them."""
    if count == len(rows):
        return []
    treated = np.bincount(rows, a, count) / np.bincount(rows, minlength=count)
    mixed = int(np.sum((treated > 0) & (treated < 1)))
    return [
        f"{len(rows)} units share {count} images, {mixed} of which have treated and untreated "
        "ones: errors are to be those of images as clusters"
    ]


def _pixels(images: KeyedImages) -> list[str]:
    """Refuse missing pixels; a word on constant images."""
    bad, flat, start = [], [], 0
    for batch in images.batches():
        pixels = batch.reshape(len(batch), -1, batch.shape[-1])
        if batch.dtype.kind == "f":
            bad += (start + np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2)))).tolist()
        same = np.all(pixels == pixels[:, :1], axis=(1, 2))
        flat += (start + np.flatnonzero(same)).tolist()
        start += len(batch)
    if bad:
        hint = " (float16 ends at 65504)" if images.images.dtype == np.float16 else ""
        raise UserError(
            f"Expected finite pixels, found missing or infinite ones in {len(bad)} of "
            f"{len(images)} images (keys {_some(images.keys, bad)}){hint}: fill or leave out."
        )
    if len(flat) == len(images):
        raise UserError("Expected images that show something, found all of them constant.")
    if flat:
        return [f"{len(flat)} constant images (keys {_some(images.keys, flat)})"]
    return []


def _some(keys: Any, places: Any) -> str:
    shown = ", ".join(readable(str(keys[i]), 40) for i in places[:_SHOWN])
    return shown if len(places) <= _SHOWN else f"{shown}, ..."


def as_trained(sample: Sample, X: Any, n: int) -> Float[np.ndarray, "n p"] | None:
    """Covariates of other units on the scale of those of a fit; None where it had none.

    Raises:
      UserError: another number of columns or rows.
    """
    wanted = (n, sample.X.shape[1])
    found = (n, 0) if X is None else np.shape(X)
    if tuple(found) != wanted:
        raise UserError(f"Expected covariates of shape {wanted}, as in the fit, found {found}.")
    if X is None:
        return None
    return standardise_table(np.asarray(X, float), sample.X).astype(np.float32)
