"""Checks of golden files of earth_observation: weighting, simulated assignment, TFRecord files.

float64 within 1e-10 relative to the largest entry of each array, and again in plain float32 within
1e-4 of it.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.data.geo.tfrecord import open_tfrecord, write_tfrecord
from jaxcore.estimators.image_confounding import (
    balance,
    compat,
    diagnostics,
    propensity,
    resampling,
    simulate,
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


def check_simulation(path: Path) -> None:
    """Images of a stranger's file and what derives from them: not to be committed."""
    for c in _both(path):
        raw, tau, widest = c["in/raw_uint8"], c.config["tau"], c.config["kernel_width_max"]
        golden = c.file["mid/image_standardised"]  # a float32 copy
        close(simulate.standardised(raw), golden, atol=2e-6, rtol=0, what="images")
        first, end = c.config["crop"]
        assert simulate.cropped(raw, widest).shape[1:] == (end - first, end - first)
        noise = simulate.Noise(c["in/eps_treat"], c["in/uniform"], c["in/eps_outcome"])
        for width in c.config["kernel_widths"]:
            weights = jnp.asarray(simulate.kernel(width))
            c.near(f"mid/kernel_{width}", weights)
            maps = simulate.response(simulate.standardised(raw), weights)
            c.near(f"mid/map_{width}_first4", maps[:4])
            pixels = simulate.confounder(raw, width, level="pixel", widest=widest)
            what = f"out/pixel_k{width}/propensity_noiseless_first4"
            c.near(what, jax.nn.sigmoid(pixels[:4]))
            for pool in simulate.POOLS:
                u = simulate.confounder(raw, width, pool=pool, widest=widest)
                drawn, place = simulate.assigned(u, noise, tau=tau), f"out/{pool}_k{width}"
                c.near(f"{place}/U", drawn.U)
                c.near(f"{place}/propensity", drawn.propensity)
                equal(drawn.A, c.file[f"{place}/treatment"], what=f"treatment of {place}")
                c.near(f"{place}/outcome", drawn.Y)
                for name, key in (("difference", "naive"), ("hajek", "hajek_oracle")):
                    found = weighting.effect(name, drawn.Y, drawn.A, drawn.propensity)
                    c.near(f"{place}/{key}", jnp.asarray(found.theta))


def check_tfrecord(path: Path) -> None:
    """Reader against the stored arrays; what the writer makes of them has the same bytes."""
    file, stored = Golden(path), path.with_name(path.name.replace("_expected.npz", ".tfrecord"))
    images = open_tfrecord(stored)
    equal(images.keys, file["out_keys"], what="keys")
    pixels = images.images[np.arange(len(images))]
    equal(pixels, file["out/images"], what="images")
    assert images.images.shape[1:] == tuple(file.config["shape"])
    assert pixels.dtype == file.config["dtype"]
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder, "again.tfrecord")
        write_tfrecord(again, KeyedImages(pixels, file["out_keys"]), dtype=file.config["dtype"])
        assert again.read_bytes() == stored.read_bytes()


CHECKS: dict[str, Callable[[Path], None]] = {
    "estimators": check_estimators,
    "simulation_dgp": check_simulation,
    "tfrecord_image": check_tfrecord,
    "tfrecord_video": check_tfrecord,
}
