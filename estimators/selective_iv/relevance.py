"""Is the instrument of use here? Overlap, the variance contrast D, and what to warn about.

The estimator divides by ``D(x) = Var(A|Z=1,x) - Var(A|Z=0,x)``. For a binary treatment D vanishes
when the instrument does nothing and also when ``P(A=1|Z=1) + P(A=1|Z=0) = 1``, however strong the
instrument is in the ordinary sense.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxcore.errors import UserError
from jaxcore.estimators import overlap
from jaxcore.estimators.overlap import WEAK_T
from jaxcore.estimators.selective_iv.moment import Clip, Nuisances
from jaxcore.estimators.units import Units

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
WEAK_SHARE = 0.05  # share of units below the floor, or with D of the other sign


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relevance:
    """Overlap and strength of the instrument; numbers for a report."""

    n: int
    one_sided: bool
    pi_quantiles: dict[str, float]
    abs_d_quantiles: dict[str, float]
    n_clipped_pi: int
    n_clipped_mu: int
    n_floored_d: int
    share_negative_d: float
    mean_inverse_d: float
    effective_n: float  # (sum w)^2 / sum w^2 of w = 1 / (f |D|)
    d_test_t: float  # of E[pi (1 - pi) D] = 0
    first_stage: float  # effect of the instrument on the treatment
    first_stage_t: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dict."""
        return dataclasses.asdict(self)

    def warnings(self) -> list[str]:
        """What the user must know before the estimate is used."""
        out = []
        weak = abs(self.d_test_t) < WEAK_T
        if weak:
            out.append(
                "weak identification: the variance of the treatment hardly changes with the "
                f"instrument (t = {self.d_test_t:.2f}); see the robust confidence set"
            )
        minority = min(self.share_negative_d, 1 - self.share_negative_d)
        if minority > WEAK_SHARE:
            out.append(
                f"D changes sign: it is negative for {100 * self.share_negative_d:.1f}% of units, "
                "and near zero between"
            )
        if self.n_floored_d > WEAK_SHARE * self.n:
            out.append(
                f"|D| was raised to its floor for {self.n_floored_d} of {self.n} units; the "
                "estimate depends on that floor"
            )
        doubtful = weak or minority > WEAK_SHARE or self.n_floored_d > WEAK_SHARE * self.n
        if doubtful and abs(self.first_stage_t) > WEAK_T:
            out.append(
                f"the instrument moves the treatment strongly (t = {self.first_stage_t:.1f}) but "
                "P(A=1|Z=1) + P(A=1|Z=0) is near 1, where this method has no information"
            )
        clipped = {"P(Z=1|X)": self.n_clipped_pi, "P(A=1|Z,X)": self.n_clipped_mu}
        return out + overlap.notices(clipped, self.effective_n, self.n)


def relevance(
    A: np.ndarray,
    Z: np.ndarray,
    raw: Nuisances,
    clip: Clip,
    units: Units,
) -> Relevance:
    """Diagnostics from unclipped nuisances (NumPy arrays, one value per unit).

    Args:
      A: treatment.
      Z: instrument.
      raw: nuisances before clipping; pi, mu1 and mu0 are used.
      clip: the bounds.
      units: observation weights and clusters.

    Raises:
      UserError: the instrument changes nothing for anybody.
    """
    n = len(A)
    w = units.weights_like(np.ones(n))
    pi, mu1 = np.clip(raw.pi, *clip.pi), np.clip(raw.mu1, *clip.mu)
    mu0 = np.asarray(raw.mu0) if clip.one_sided else np.clip(raw.mu0, *clip.mu)
    v1, v0 = mu1 * (1 - mu1), mu0 * (1 - mu0)
    d = v1 - v0
    if np.max(np.abs(d)) < 1e-12:  # rounding errors would be the estimate
        raise UserError(
            "Expected an instrument with which the variance of the treatment changes, found the "
            "same variance at both values for every unit."
        )
    floored = np.where(d < 0, np.minimum(d, -clip.min_abs_D), np.maximum(d, clip.min_abs_D))
    floored = np.where(np.abs(floored) < 1e-12, 1e-12, floored)  # min_abs_D may be 0
    f = np.where(Z > 0.5, pi, 1 - pi)
    load = w / (f * np.abs(floored))
    clipped_mu = mu1 != raw.mu1
    if not clip.one_sided:
        clipped_mu = clipped_mu | (mu0 != raw.mu0)
    e2 = (A - np.where(Z > 0.5, mu1, mu0)) ** 2
    contrast = w * (Z - pi) * (e2 - (pi * v1 + (1 - pi) * v0))
    effect = mu1 - mu0 + (Z / pi - (1 - Z) / (1 - pi)) * (A - np.where(Z > 0.5, mu1, mu0))
    return Relevance(
        n=n,
        one_sided=clip.one_sided,
        pi_quantiles=_quantiles(np.asarray(raw.pi)),
        abs_d_quantiles=_quantiles(np.abs(d)),
        n_clipped_pi=int(np.sum(pi != raw.pi)),
        n_clipped_mu=int(np.sum(clipped_mu)),
        n_floored_d=int(np.sum(np.abs(d) < clip.min_abs_D)),
        share_negative_d=float(np.average(d < 0, weights=w)),
        mean_inverse_d=float(np.average(1 / np.abs(floored), weights=w)),
        effective_n=overlap.effective_size(load),
        d_test_t=_t(contrast, units),
        first_stage=float(np.average(effect, weights=w)),
        first_stage_t=_t(w * effect, units),
    )


def _quantiles(x: np.ndarray) -> dict[str, float]:
    return {f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(x, QUANTILES), strict=True)}


def _t(x: np.ndarray, units: Units) -> float:
    centred = x - np.mean(x)
    if units.clusters is not None:
        centred = np.bincount(units.clusters, centred)
    se, mean = np.sqrt(np.sum(centred**2)) / len(x), float(np.mean(x))
    if abs(mean) < 1e-12:  # of probabilities: nothing but rounding
        return 0.0
    return mean / float(se) if se > 0 else float("inf")
