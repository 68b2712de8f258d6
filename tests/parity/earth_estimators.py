"""Checks of golden files of earth_observation: weighting, simulated assignment, TFRecord files.

float64 within 1e-10 relative to the largest entry of each array, and again in plain float32 within
1e-4 of it.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.estimators.image_confounding import (
    balance,
    compat,
    diagnostics,
    propensity,
    resampling,
    weighting,
)
from jaxcore.estimators.units import Units
from jaxcore.estimators.variance import variance
from tests.parity.golden import Golden, close, equal

DOUBLE, SINGLE = 1e-10, 1e-4


class _Check:
    """One golden file in one precision; what is computed is compiled."""

    def __init__(self, path: Path, double: bool):
        self.file, self.config = Golden(path), Golden(path).config
        self.share = DOUBLE if double else SINGLE

    def __getitem__(self, key: str) -> jax.Array:
        return jnp.asarray(self.file[key], float)

    def near(self, what: str, ours: Any) -> None:
        golden = self.file[what]
        bound = self.share * max(float(np.max(np.abs(golden))), 1e-12)
        close(ours, golden, atol=bound, rtol=0, what=what)


def _both(path: Path) -> Iterator[_Check]:
    for double in (True, False):
        with jax.enable_x64(True) if double else contextlib.nullcontext():
            yield _Check(path, double)


def _results(c: _Check) -> dict[str, Any]:
    """Everything of the file, under its names, from one compiled program."""
    fold = c.file["in/fold"]
    index = jnp.asarray(c.file["in/boot_index"], jnp.int32)
    groups = jnp.asarray(c.file["in/group"], jnp.int32)
    clusters = Units(clusters=groups, n_clusters=c.config["groups"])

    def compute(y, a, raw, m0, m1, X, place):
        n = y.shape[0]
        e = propensity.clip(raw, c.config["clip"][0]).e
        run = {name: weighting.effect(name, y, a, e, m0, m1) for name in weighting.ESTIMATORS}
        columns = jnp.mean(weighting.columns_of("hajek", y, a, e), axis=0)
        out: dict[str, Any] = {"mid/propensity": e}
        for name in ("ipw", "hajek", "aipw"):
            out |= {f"out/{name}": run[name].theta, f"out/{name}_se": run[name].se}
        for name in ("hajek", "aipw"):
            out[f"out/{name}_psi"] = run[name].psi
            plain = variance(run[name].psi, clusters, small_sample=False)
            out[f"out/{name}_se_cluster"] = jnp.sqrt(plain)
        out["out/diff_in_means"] = run["difference"].theta
        out["out/diff_in_means_se"] = run["difference"].se
        out["out/hajek_mu1"] = columns[0] / columns[1]
        out["out/hajek_mu0"] = columns[2] / columns[3]
        clustered = weighting.effect("hajek", y, a, e, units=clusters)
        out["out/hajek_se_cluster_smallsample"] = clustered.se
        out["out/aipw_hajek"], out["out/ato"] = run["aipw_hajek"].theta, run["ato"].theta
        kept = propensity.overlapping(e, 0.1).astype(y.dtype)
        out["out/hajek_trim_0.1"] = weighting.effect("hajek", y, a, e, units=Units(kept)).theta
        out["out/n_trim_0.1"] = jnp.sum(kept)
        narrow = propensity.clip(raw, 0.01).e
        out["out/hajek_clip_0.01"] = weighting.effect("hajek", y, a, narrow).theta
        out["out/stabilised_weights"] = diagnostics.stabilised_weights(a, e)
        size = diagnostics.effective_sizes("hajek", a, e)
        out["out/ess_treated"], out["out/ess_control"] = size
        largest = diagnostics.largest_weights("hajek", a, e)
        out["out/max_norm_weight_treated"], out["out/max_norm_weight_control"] = largest
        drawn = resampling.bootstrap(resampling.counts(index, n), "hajek", y, a, e)
        out["out/boot_hajek"] = drawn
        replicates = compat.mean_over_replicates(run["hajek"], drawn)
        out["out/boot_mean"], out["out/boot_sd"] = replicates.theta, replicates.se
        folds = jnp.stack([weighting.effect("hajek", y, a, e, units=u).theta for u in _folds(fold)])
        out["out/fold_hajek"] = folds
        out["out/official_cf_tau"], out["out/official_cf_se"] = compat.mean_over_folds(folds)
        smd = balance.standardised_differences("hajek", a, e, X)
        out["out/smd_before"], out["out/smd_after"] = smd
        out["out/longlat_pre"], out["out/longlat_post"] = balance.mean_differences(
            "hajek", a, e, place
        )
        out["out/longlat_post_official_quirk"] = compat.long_lat_after(a, e, place)
        share = jnp.full_like(a, 1) * jnp.mean(a)
        out["out/auc"] = diagnostics.auc(a, e)
        out["out/ce"] = diagnostics.cross_entropy(a, e)
        out["out/ce_baseline"] = diagnostics.cross_entropy(a, share)
        out["out/class_error"] = diagnostics.class_error(a, e)
        out["out/class_error_baseline"] = diagnostics.class_error(a, share)
        out["out/fbeta2_by_threshold"] = diagnostics.f2(a, e)
        out["out/fbeta2_max"] = jnp.max(diagnostics.f2(a, e))
        out["out/brier"] = diagnostics.brier(a, e)
        return out

    names = ("outcome", "treatment", "propensity_raw", "mu0", "mu1", "covariates")
    place = jnp.stack([c["in/long"], c["in/lat"]], axis=1)
    return jax.jit(compute)(*(c[f"in/{name}"] for name in names), place)


def _folds(fold: np.ndarray) -> list[Units]:
    return [Units(jnp.asarray(fold == k, float)) for k in range(int(fold.max()) + 1)]


def check_estimators(path: Path) -> None:
    for c in _both(path):
        ours = _results(c)
        golden = {k for k in c.file.arrays if k.startswith(("mid/", "out/"))}
        equal(sorted(ours), np.array(sorted(golden)), what="names")
        for name, value in ours.items():
            c.near(name, value)


CHECKS: dict[str, Callable[[Path], None]] = {
    "estimators": check_estimators,
}
