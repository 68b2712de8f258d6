"""Pictures of clusters of images: typical images, effects, and where the clusters are."""

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding.cluster_result import ImageHeterogeneityResult
from jaxcore.estimators.image_confounding.pictures import as_picture, draw_slopes
from jaxcore.figures import new_figure


def typical(
    result: ImageHeterogeneityResult, cluster: int, count: int = 4
) -> Int[np.ndarray, " u"]:
    """Units whose images are the most probable ones of a cluster, each of another image."""
    first = np.unique(result.images.row, return_index=True)[1]
    order = np.argsort(-result.cluster_probs[first, cluster], kind="stable")
    return first[order[:count]]


def draw_typical(result: ImageHeterogeneityResult, count: int = 4, *, figure: Any = None) -> Any:
    """A row of images for each cluster: those that belong to it most surely, out of fold.

    All have one scale of brightness.

    Args:
      result: of a fit.
      count: images of each cluster.
      figure: to draw on; None makes one.
    """
    clusters = len(result.effects)
    count = min(count, len(np.unique(result.images.row)))
    figure = new_figure(1.9 * count, 2.2 * clusters) if figure is None else figure
    axes = figure.subplots(clusters, count, squeeze=False)
    units = np.stack([typical(result, c, count) for c in range(clusters)])
    images = np.asarray(result.images.pixels[result.images.row[units.ravel()]])
    images = images[:, -1] if images.ndim == 5 else images  # of sequences the last
    shown = as_picture(images).reshape(clusters, count, *images.shape[1:3], 3)
    for c in range(clusters):
        for ax, unit, image in zip(axes[c], units[c], shown[c], strict=True):
            ax.imshow(image)
            ax.set_title(f"probability {result.cluster_probs[unit, c]:.2f}", fontsize=8)
            ax.set_xticks([])
            ax.set_yticks([])
        axes[c, 0].set_ylabel(f"cluster {c + 1}\neffect {result.effects[c]:.3g}", fontsize=9)
    return figure


def draw_salience(result: ImageHeterogeneityResult, count: int = 3, *, figure: Any = None) -> Any:
    """What makes the cluster of the highest effect more probable (red), or less, in typical images.

    Args:
      result: of a fit.
      count: images of the clusters of the lowest and of the highest effect, each.
      figure: to draw on; None makes one.
    """
    last = len(result.effects) - 1
    units = np.concatenate([typical(result, cluster, count) for cluster in (0, last)])
    return draw_slopes(
        result.images.pixels[result.images.row[units]],
        result.salience(units, cluster=last),
        [f"cluster {last + 1}:\nprobability {p:.2f}" for p in result.cluster_probs[units, last]],
        of="log-probability",
        figure=figure,
    )


def draw_effects(
    result: ImageHeterogeneityResult, *, level: float = 0.95, figure: Any = None
) -> Any:
    """Effects of the clusters: those of every network, and estimates of groups with intervals.

    Args:
      result: of a fit.
      level: of the intervals.
      figure: to draw on; None makes one.
    """
    figure = new_figure(5.5, 3.6) if figure is None else figure
    ax, scale = figure.subplots(), result.sample.Y.std()
    learned = scale * np.concatenate([one.means for one in result.repetitions])
    places = np.arange(len(result.effects))
    for row in learned:
        ax.plot(places - 0.1, row, "o", color="0.6", ms=4, label="learned, each network")
    rows = result.rows(level)
    for place, row in zip(places, rows, strict=True):
        if "group_estimate" in row:
            middle, low, high = (row[f"group_{k}"] for k in ("estimate", "lower", "upper"))
            sides = [[middle - low], [high - middle]]
            ax.errorbar(
                place + 0.1,
                middle,
                sides,
                fmt="s",
                color="C0",
                capsize=4,
                label="AIPW in the group",
            )
    ax.axhline(float(result.ate.theta), color="C1", lw=1, label="average effect (AIPW)")
    ax.set_xticks(places, [f"{row['cluster']}\n{row['units']} units" for row in rows])
    ax.set_xlim(-0.5, len(places) - 0.5)
    ax.set_ylabel("effect, in units of the outcome")
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    ax.legend(unique.values(), unique.keys(), fontsize=8)
    return figure


def draw_cluster_map(
    result: ImageHeterogeneityResult, *, cluster: int = -1, figure: Any = None
) -> Any:
    """Places by the probability of a cluster, out of fold.

    Args:
      result: of a fit with coordinates, of units or of images (`KeyedImages.coords`).
      cluster: counted from 0; -1 is that of the highest effect.
      figure: to draw on; None makes one.

    Raises:
      UserError: there are none.
    """
    rows, first = np.unique(result.images.row, return_index=True)
    of_images = result.images.keyed.coords
    if result.coords is None and of_images is None:
        raise UserError("Expected coordinates of units or images, found none.")
    coords = np.asarray(of_images)[rows] if result.coords is None else result.coords[first]
    number = range(len(result.effects))[cluster] + 1
    figure = new_figure(6.4, 4.8) if figure is None else figure
    ax = figure.subplots()
    shown = ax.scatter(
        *coords.T, c=result.cluster_probs[first, cluster], s=14, cmap="viridis", vmin=0, vmax=1
    )
    ax.set_xlabel("longitude")
    ax.set_ylabel("latitude")
    ax.set_aspect(1 / np.cos(np.radians(np.mean(coords[:, 1]))))
    figure.colorbar(shown, ax=ax, shrink=0.8, label=f"probability of cluster {number}")
    return figure
