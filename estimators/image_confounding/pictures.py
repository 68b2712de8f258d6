"""Pictures of images, what networks look at in them, and maps of places."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxcore.estimators.image_confounding import salience
from jaxcore.estimators.image_confounding.result import ImageConfoundingResult
from jaxcore.figures import new_figure

_EDGES = 1, 99  # percentiles of an image that are drawn black and white


def extremes(result: ImageConfoundingResult, count: int = 3) -> Int[np.ndarray, " units"]:
    """Units without treatment and the lowest propensities, then treated ones with the highest.

    Each of another image.
    """
    e, a, row = result.propensity, result.sample.A, result.image_rows
    chosen: list[int] = []
    for arm, sign in ((0, 1), (1, -1)):
        order = [i for i in np.argsort(sign * e, kind="stable") if a[i] == arm]
        seen = {int(row[i]) for i in chosen}
        for i in order:
            if len(chosen) < count * (1 + arm) and int(row[i]) not in seen:
                chosen.append(int(i))
                seen.add(int(row[i]))
    return np.array(chosen)


def draw_salience(
    result: ImageConfoundingResult,
    units: Sequence[int] | Int[np.ndarray, " u"] | None = None,
    *,
    figure: Any = None,
    **options: Any,
) -> Any:
    """Images, and below them where their pixels move the log-odds of treatment.

    Colours are the direction (red: more of it, more likely treated), their strength the magnitude.

    Args:
      result: a fit with networks.
      units: numbers of units; None takes `extremes`.
      figure: to draw on; None makes one.
      **options: of `ImageConfoundingResult.salience`.
    """
    units = extremes(result) if units is None else np.asarray(units)
    kinds = ["treated" if arm else "not treated" for arm in result.sample.A[units]]
    told = zip(kinds, result.propensity[units], strict=True)
    return draw_slopes(
        result.pixels[result.image_rows[units]],
        result.salience(units, **options),
        [f"{kind}\npropensity {e:.2f}" for kind, e in told],
        of="log-odds",
        figure=figure,
    )


def draw_slopes(
    images: Any, slopes: Any, titles: Sequence[str], *, of: str, figure: Any = None
) -> Any:
    """Images, and below them how a number depends on their pixels.

    Args:
      images: (b, h, w, c), or sequences, of which the last images are shown.
      slopes: maps of them, with bands or, of windows, without.
      titles: above the images.
      of: the number.
      figure: to draw on; None makes one.
    """
    images, slopes = np.asarray(images), np.asarray(slopes)
    if slopes.ndim == 3:  # of windows
        slopes = slopes[..., None]
    if slopes.ndim == 5:
        slopes = slopes[:, -1]
    images = images[:, -1] if images.ndim == 5 else images
    strength = np.asarray(salience.for_display(salience.magnitude(slopes)))
    sign = np.sign(np.asarray(salience.direction(slopes)))
    figure = new_figure(2.1 * len(images), 4.6) if figure is None else figure
    axes, shown = figure.subplots(2, len(images), squeeze=False), None
    top = float(np.max(strength)) or 1.0
    for j, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes[0, j].imshow(as_picture(image))
        axes[0, j].set_title(title, fontsize=9)
        shown = axes[1, j].imshow(sign[j] * strength[j], cmap="RdBu_r", vmin=-top, vmax=top)
    for ax in axes.ravel():
        ax.set_xticks([])
        ax.set_yticks([])
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("salience")
    bar = figure.colorbar(shown, ax=axes[1], shrink=0.8)
    bar.set_label(f"{of} per unit of the pixel\n(log scale, per image)", fontsize=8)
    return figure


def as_picture(image: Float[np.ndarray, "*b h w c"]) -> Float[np.ndarray, "*b h w 3"]:
    """Bands as red, green and blue (the first three) or grey, stretched to what the eye can see.

    Several images are stretched alike.

    >>> as_picture(np.arange(8.0).reshape(2, 2, 2)).shape
    (2, 2, 3)
    """
    image = np.asarray(image, np.float64)
    image = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].repeat(3, axis=-1)
    low, high = np.percentile(image, _EDGES)
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def draw_map(result: ImageConfoundingResult, *, figure: Any = None) -> Any:
    """Places by their mean propensity, and by the share of their units that are treated.

    Args:
      result: a fit with coordinates.
      figure: to draw on; None makes one.
    """
    coords, row = result.places, result.image_rows
    figure = new_figure(10, 4.6) if figure is None else figure
    first = np.unique(row, return_index=True)[1]
    count = np.bincount(row)[row[first]]
    panels = {"propensity, out of fold": result.propensity, "share treated": result.sample.A}
    shown = None
    for ax, (title, values) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        mean = np.bincount(row, weights=values)[row[first]] / count
        shown = ax.scatter(
            *coords[first].T, c=mean, s=8 + 4 * np.sqrt(count), cmap="viridis", vmin=0, vmax=1
        )
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("longitude")
        ax.set_aspect(1 / np.cos(np.radians(np.mean(coords[:, 1]))))
    figure.axes[0].set_ylabel("latitude")
    figure.colorbar(shown, ax=figure.axes, shrink=0.8)
    return figure
