"""All diagnostics of fitted propensities in one: fit, overlap, balance, places, and notices."""

import dataclasses
from typing import Any

import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import overlap
from jaxcore.estimators.image_confounding import balance, diagnostics, propensity, spatial
from jaxcore.estimators.image_confounding.weighting import arm_weights

BLIND_AUC = 0.55
"""Up to here out of fold, the images are said not to show who is treated."""
UNBALANCED = 0.1
"""A standardised difference beyond this is said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverlapReport:
    """Diagnostics of propensities; plain numbers, and lists where there are several."""

    weights: str  # see `weighting.arm_weights`
    n: int
    share_treated: float
    auc: float
    auprc: float
    cross_entropy: float
    cross_entropy_constant: float  # of the share of the treated
    class_error: float
    class_error_constant: float
    f2: float  # largest over thresholds 0.1 to 0.9
    brier: float
    effective_size: dict[str, float]  # of each arm
    largest_weight: dict[str, float]  # share of one unit in its arm
    clipped: int
    trimmed: int
    range: tuple[float, float]
    reliability: dict[str, list[float]]
    histogram: dict[str, list[float]]
    standardised_differences: dict[str, list[float]]  # name -> before, after
    place: dict[str, list[float]] | None  # longitude, latitude -> difference before, after
    moran: dict[str, float] | None  # of weighted residuals by image
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def overlap_report(
    treatment: Any,
    e: Any,
    *,
    weights: str = "hajek",
    X: Any = None,
    names: tuple[str, ...] | None = None,
    images: Any = None,
    coords: Any = None,
    residuals: Any = None,
    clip: float = 0.0,
    trim: float = 0.0,
    out_of_fold: bool = True,
) -> OverlapReport:
    """Diagnose propensities before their effect is believed.

    Args:
      treatment: 0 or 1 for each unit.
      e: propensities as fitted; they are clipped and trimmed here as for the estimate.
      weights: "hajek", "ato" or "att".
      X: covariates and features of images whose balance is shown.
      names: of their columns.
      images: key (or row) of each unit's image, for ``coords`` and ``residuals``.
      coords: longitude and latitude of each unit.
      residuals: of the outcome (less its fit); their weighted means by image are tested for spatial
        correlation where there are ``coords``.
      clip: as in the estimate.
      trim: as in the estimate; 0 keeps all.
      out_of_fold: whether ``e`` comes from fits that had not seen their unit.

    Raises:
      UserError: propensities that make no weights, or an arm without units after trimming.

    >>> a = np.array([0, 1, 0, 1])
    >>> overlap_report(a, [0.4, 0.6, 0.5, 0.5]).auc
    0.875
    """
    a: Any = np.asarray(treatment, np.float64)
    raw: Any = propensity.check(e, len(a), bounded=not clip and not trim)
    kept: Any = np.asarray(propensity.overlapping(raw, trim)) if trim else np.ones(len(a), bool)
    if not 0 < a[kept].sum() < kept.sum():
        raise UserError(
            f"Expected units of both arms, found {int(a[kept].sum())} treated among "
            f"{int(kept.sum())} of {len(a)} that are kept."
        )
    bounded = propensity.clip(raw[kept], clip)
    a, p = a[kept], bounded.e
    share: Any = np.full(len(a), a.mean())
    sizes = diagnostics.effective_sizes(weights, a, p)
    largest = diagnostics.largest_weights(weights, a, p)
    bins, bars = diagnostics.reliability(a, p), diagnostics.overlap_histogram(a, p)
    area = float(diagnostics.auc(a, p))
    differences: dict[str, list[float]] = {}
    if X is not None:
        columns: Any = np.asarray(X, np.float64)[kept]
        named = names or tuple(f"x{j + 1}" for j in range(columns.shape[1]))
        before, after = balance.standardised_differences(weights, a, p, columns)
        differences = dict(zip(named, map(list, zip(before, after, strict=True)), strict=True))
    place = correlated = None
    if coords is not None:
        at: Any = spatial.check_coordinates(coords, len(kept))[kept]
        pairs = zip(*balance.mean_differences(weights, a, p, at), strict=True)
        place = dict(zip(("longitude", "latitude"), map(list, pairs), strict=True))
        if residuals is not None:
            w1, w0 = arm_weights(weights, p)
            held = np.asarray(residuals, np.float64)[kept] * np.where(a > 0.5, w1, w0)
            key = np.arange(len(a)) if images is None else np.asarray(images)[kept]
            means, first = spatial.means_by_image(held, key)
            if len(means) > 12:
                correlated = spatial.moran(means, at[first])
    notices = _notices(area, sizes, bounded.moved, a, kept, differences, correlated, out_of_fold)
    return OverlapReport(
        weights=weights,
        n=len(kept),
        share_treated=float(a.mean()),
        auc=area,
        auprc=float(diagnostics.auprc(a, p)),
        cross_entropy=float(diagnostics.cross_entropy(a, p)),
        cross_entropy_constant=float(diagnostics.cross_entropy(a, share)),
        class_error=float(diagnostics.class_error(a, p)),
        class_error_constant=float(diagnostics.class_error(a, share)),
        f2=float(np.max(diagnostics.f2(a, p))),
        brier=float(diagnostics.brier(a, p)),
        effective_size=_arms(sizes),
        largest_weight=_arms(largest),
        clipped=int(bounded.moved),
        trimmed=int(np.sum(~kept)),
        range=(float(p.min()), float(p.max())),
        reliability={name: value.tolist() for name, value in bins._asdict().items()},
        histogram={name: value.tolist() for name, value in bars._asdict().items()},
        standardised_differences={k: [float(v) for v in pair] for k, pair in differences.items()},
        place=None if place is None else {k: [float(v) for v in pair] for k, pair in place.items()},
        moran=None if correlated is None else correlated._asdict(),
        notices=tuple(notices),
    )


def _arms(arms: diagnostics.Arms) -> dict[str, float]:
    return {name: float(value) for name, value in arms._asdict().items()}


def _notices(
    area: float,
    sizes: diagnostics.Arms,
    moved: Any,
    a: np.ndarray,
    kept: np.ndarray,
    differences: dict[str, list[float]],
    correlated: spatial.Moran | None,
    out_of_fold: bool,
) -> list[str]:
    """What the user must know before the estimate is used."""
    total = float(sizes.treated + sizes.control)
    out = overlap.notices({"the propensity": int(moved)}, total, len(a))
    if (gone := int(np.sum(~kept))) > 0:
        out.append(
            f"trimmed {gone} of {len(kept)} units: the effect is that of the {len(a)} others"
        )
    if out_of_fold and area <= BLIND_AUC:
        out.append(
            f"the propensity hardly tells who is treated (area under the curve {area:.2f} out of "
            "fold): even weights then are no sign of overlap, and adjust for nothing"
        )
    far = [name for name, (_, after) in differences.items() if abs(after) > UNBALANCED]
    if far:
        shown = ", ".join(far[:5]) + (", ..." if len(far) > 5 else "")
        out.append(f"not balanced by the weights (standardised difference over 0.1): {shown}")
    if correlated is not None and correlated.p_value < 0.01:
        out.append(
            f"weighted residuals of neighbouring images are alike (Moran's I "
            f"{correlated.value:.2f}, p {correlated.p_value:.2g}): take blocks of places as "
            "clusters"
        )
    return out
