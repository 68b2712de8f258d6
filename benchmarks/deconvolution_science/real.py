"""The same methods on real stamps, read from a folder that the user gives."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.deconvolution_science.measure import APERTURE, TRAINED
from benchmarks.deconvolution_science.methods import Restore, Seen, medians
from jaxcore.data.astro.galaxies import Population, draw_galaxies, render
from jaxcore.data.astro.stamps import read_catalogue, read_pairs, read_stamps
from jaxcore.data.astro.telescopes import observe, seeing
from jaxcore.metrics import galaxies as m
from jaxcore.ops.starlet import mad_sigma

_BANDS = (1, 2, 3)  # r, i, z of HSC, around HST's F814W


def seen_anew(truth: np.ndarray, seed: int, psfs: np.ndarray | None = None) -> Seen:
    """Real galaxies behind the simulated telescope."""
    keys = jax.random.split(jax.random.key(seed), len(truth))
    positive = truth * (100 / np.maximum(truth.sum((1, 2), keepdims=True), 1e-6))
    wanted = None if psfs is None else jnp.asarray(psfs, jnp.float32)
    made = observe(keys, jnp.asarray(positive, jnp.float32), TRAINED, wanted)
    return Seen(*map(np.asarray, made))


def _scores(images: dict[str, Any], target: Any) -> dict[str, Any]:
    radius = APERTURE * target.shape[-1]
    errors = {
        n: np.asarray(m.flux_error(jnp.asarray(a), target, radius)) for n, a in images.items()
    }
    return {
        "nmse": medians({n: np.asarray(m.nmse(a, target)) for n, a in images.items()}),
        "flux_bias": medians(errors),
        "flux_error": medians({n: np.abs(e) for n, e in errors.items()}),
        "stamps": len(target),
    }


def simulated_from_real(
    restore: Restore, folder: Path, side: int, seed: int
) -> tuple[dict[str, Any], list[tuple[Seen, dict[str, Any]]]]:
    """A galaxy of COSMOS (0.12 arcsec pixels) and those of the XDF through the telescope.

    Targets of the COSMOS galaxy have the ACS PSF of its catalogue instead of a Gaussian, where
    that file is there.
    """
    out: dict[str, Any] = {}
    shown = []
    sources = {
        "cosmos_galaxy": ("cosmos_galaxy_147246.npz", 4),
        "xdf": ("hubble_xdf_luma.npz", 1),
    }
    for name, (file, shrink) in sources.items():
        path = folder / file
        if not path.exists():
            continue
        truth = np.maximum(read_stamps(path, side, shrink).target, 0)[:60]
        seen = seen_anew(np.repeat(truth, 20, 0) if len(truth) == 1 else truth, seed)
        images = restore(seen)
        out[name] = _scores(images, seen.target)
        shown.append((seen, images))
    catalogue = folder / "cosmos_catalog.npz"
    if catalogue.exists():
        known = read_catalogue(catalogue)
        keys = jax.random.split(jax.random.key(seed), 40)
        shapes = known.shapes(0.1).astype(np.float32)
        truth = np.asarray(render(draw_galaxies(keys, Population(), shapes), side))
        seen = seen_anew(truth, seed + 1, known.psfs(0.1, side))
        images = restore(seen)
        out["cosmos_catalogue_acs_psf"] = _scores(images, seen.target)
    return out, shown


def pairs(
    restore: Restore, folder: Path, side: int
) -> tuple[dict[str, Any], list[tuple[Seen, dict[str, Any]]]]:
    """Subaru's HSC restored, against HST: two fields, three bands each.

    The cubes have no common calibration: a factor and a background are fitted to each restored
    image before the error is taken. HST's image is first blurred to the resolution of the result.
    Fluxes are compared with the observation itself.
    """
    path = folder / "hsc_hst_pairs.npz"
    if not path.exists():
        return {}, []
    read = read_pairs(path)
    out, shown = {}, []
    for band in _BANDS:
        stamps = read.on_grid(band, factor=2, side=side // 2)
        assert stamps.observed is not None and stamps.psf is not None
        observed = stamps.observed
        sigma = np.asarray(mad_sigma(jnp.asarray(observed)))
        seen = Seen(stamps.target, observed, stamps.psf, sigma)
        images = restore(seen)
        errors = {n: _after_fit(a, stamps.target) for n, a in images.items()}
        flux = {n: a.sum((1, 2)) / observed.sum((1, 2)) - 1 for n, a in images.items()}
        out["grizy"[band]] = {"nmse_after_fit": medians(errors), "flux_change": medians(flux)}
        shown.append((seen, images))
    return out, shown


def _after_fit(images: Any, targets: Any) -> np.ndarray:
    target_psf = np.asarray(seeing(targets.shape[1:], 2.0, profile="gaussian"))
    transfer = np.fft.rfft2(np.fft.ifftshift(target_psf))
    errors = []
    for image, target in zip(images, targets, strict=True):
        wanted = np.fft.irfft2(np.fft.rfft2(target) * transfer, s=target.shape)
        basis = np.stack([image.ravel(), np.ones(image.size)], axis=1)
        fit, *_ = np.linalg.lstsq(basis, wanted.ravel(), rcond=None)
        rest = wanted.ravel() - basis @ fit
        errors.append((rest**2).sum() / ((wanted - fit[1]) ** 2).sum())
    return np.array(errors)
