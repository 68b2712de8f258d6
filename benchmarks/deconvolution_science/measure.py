"""The questions, one function each: galaxies in, a table out."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.deconvolution_science.methods import Restore, Seen, galaxies, look, medians
from jaxcore.data.astro.galaxies import Galaxies, Population
from jaxcore.data.astro.telescopes import Telescope
from jaxcore.metrics import galaxies as m

APERTURE = 14 / 64  # radius over the side of a stamp
TRAINED = Telescope()  # the noise and seeing of the training
_ZERO = 30.0  # magnitude of one standard deviation of the noise in a pixel


def photometry(restore: Restore, side: int, count: int, seed: int) -> dict[str, Any]:
    """Errors of magnitudes in a circle, by magnitude, after every step.

    All galaxies are seen with the same noise: a faint one is one of low signal to noise.
    """
    telescope = Telescope(snr=(5.0, 200.0), snr_spacing="log")
    seen = look(galaxies(seed, count, Population()), telescope, side, seed)
    images = restore(seen)
    radius = APERTURE * side
    truth = np.asarray(m.aperture_flux(jnp.asarray(seen.target), radius))
    magnitude = _ZERO - 2.5 * np.log10(truth / seen.sigma)
    errors = {
        name: np.asarray(m.magnitude_error(m.flux_error(jnp.asarray(a), seen.target, radius)))
        for name, a in images.items()
    }
    edges = np.quantile(magnitude, np.linspace(0, 1, 6))
    rows = []
    for low, high in itertools.pairwise(edges):
        inside = (magnitude >= low) & (magnitude <= high)
        rows.append(
            {
                "magnitudes": [round(float(low), 2), round(float(high), 2)],
                "galaxies": int(inside.sum()),
                "bias": medians({name: e[inside] for name, e in errors.items()}),
                "scatter": medians(
                    {name: np.abs(e[inside] - np.median(e[inside])) for name, e in errors.items()}
                ),
            }
        )
    absolute = medians({name: np.abs(e) for name, e in errors.items()})
    return {
        "bins": rows,
        "bias": medians(errors),
        "absolute": absolute,
        "network_over_debias": round(absolute["network"] / max(absolute["debias"], 1e-6), 2),
        "photutils": _photutils(seen, images, radius),
        "curves": {
            "magnitude": np.round(magnitude, 3).tolist(),
            **{n: np.round(errors[n], 4).tolist() for n in ("tikhonov", "network", "debias")},
        },
    }


def _photutils(seen: Seen, images: dict[str, Any], radius: float) -> Any:
    """The same circles by another program: largest difference of a flux, relative."""
    try:
        from photutils.aperture import CircularAperture, aperture_photometry
    except ImportError:
        return "not installed"
    middle = seen.target.shape[-1] // 2
    circle = CircularAperture((middle, middle), radius)
    worst = 0.0
    for stack in images.values():
        ours = np.asarray(m.aperture_flux(jnp.asarray(stack), radius))
        theirs = [float(aperture_photometry(a, circle)["aperture_sum"][0]) for a in stack]
        worst = max(worst, float(np.abs(ours / theirs - 1).max()))
    return {"largest_difference": round(worst, 5)}


def resolution(restore: Restore, side: int, count: int, seed: int) -> dict[str, Any]:
    """Width of restored points, and peaks, radii and shapes of galaxies."""
    points = Population(
        radius=(1.0, 1.0, 1.0), sersic=(0.5, 0.5, 0.5), axis_ratio=(1.0, 1.0), clumps=0
    )
    telescope = Telescope(snr=(100.0, 100.0))
    seen = look(galaxies(seed, count // 4, points), telescope, side, seed)
    images = restore(seen)
    width = {name: _width(a) for name, a in {**images, "target": seen.target}.items()}
    seen = look(galaxies(seed + 1, count, Population()), TRAINED, side, seed)
    images, radius = restore(seen), APERTURE * side
    target = jnp.asarray(seen.target)
    size = m.half_light_radius(target, radius)
    shape = jnp.stack(m.ellipticity(target))
    return {
        "width_of_a_point": medians(width),
        "nmse": medians({n: np.asarray(m.nmse(a, target)) for n, a in images.items()}),
        "peak_error": medians(
            {n: np.max(a, (1, 2)) / np.max(seen.target, (1, 2)) - 1 for n, a in images.items()}
        ),
        "radius_error": medians(
            {
                n: np.asarray(m.half_light_radius(jnp.asarray(a), radius) / size - 1)
                for n, a in images.items()
            }
        ),
        "ellipticity_error": medians(
            {
                n: np.asarray(
                    jnp.linalg.norm(jnp.stack(m.ellipticity(jnp.asarray(a))) - shape, axis=0)
                )
                for n, a in images.items()
            }
        ),
    }


def _width(images: np.ndarray) -> np.ndarray:
    """Full width at half maximum, from the area above half of the maximum on a fine grid."""
    from scipy.ndimage import zoom

    widths = []
    for image in images:
        row, col = np.unravel_index(int(image.argmax()), image.shape)
        cut = image[max(row - 10, 0) : row + 11, max(col - 10, 0) : col + 11]
        fine: Any = zoom(cut, 8, order=3)
        widths.append(2 * np.sqrt((fine > fine.max() / 2).sum() / np.pi) / 8)
    return np.array(widths)


CONDITIONS: dict[str, Telescope] = {
    "as trained, S/N 20 to 100": TRAINED,
    "noisier, S/N 5 to 20": Telescope(snr=(5.0, 20.0)),
    "cleaner, S/N 100 to 300": Telescope(snr=(100.0, 300.0)),
    "with photon noise": Telescope(gain=30.0),
    "sharper seeing, 4.5 pixels": Telescope(fwhm=(4.5, 4.5)),
    "worse seeing, 8 pixels": Telescope(fwhm=(8.0, 8.0)),
    "elongated Gaussian seeing": Telescope(profile="gaussian", axis_ratio=(0.8, 0.8)),
}


def conditions(restore: Restore, side: int, count: int, seed: int) -> dict[str, Any]:
    """Other noise and seeing than those of the training, same galaxies."""
    drawn = galaxies(seed + 2, count, Population())
    out = {}
    for name, telescope in CONDITIONS.items():
        seen = look(drawn, telescope, side, seed)
        images = restore(seen)
        radius, target = APERTURE * side, jnp.asarray(seen.target)
        errors = {n: np.asarray(m.flux_error(a, target, radius)) for n, a in images.items()}
        out[name] = {
            "nmse": medians({n: np.asarray(m.nmse(a, target)) for n, a in images.items()}),
            "flux_bias": medians(errors),
            "flux_error": medians({n: np.abs(e) for n, e in errors.items()}),
        }
    return out


def clumps(restore: Restore, side: int, count: int, seed: int) -> dict[str, Any]:
    """Completeness and purity of clumps that are more than a twentieth of the brightest pixel.

    What lies within 2.5 pixels of the galaxy's centre counts as its nucleus.
    """
    drawn = galaxies(seed + 3, count, Population())
    seen = look(drawn, TRAINED, side, seed)
    out = {}
    for name, images in {**restore(seen), "target": seen.target}.items():
        matches = [
            _matched(image, float(seen.target[i].max()), drawn, i, side)
            for i, image in enumerate(images)
        ]
        found, present, right, detected = np.sum(matches, axis=0)
        out[name] = {
            "completeness": round(float(found / max(present, 1)), 3),
            "purity": round(float(right / max(detected, 1)), 3),
            "present": int(present),
            "detected": int(detected),
        }
        counts = [_photutils_sources(image) for image in images]
        counted = [n for n in counts if n is not None]
        if counted:
            out[name]["photutils_per_galaxy"] = round(float(np.mean(counted)), 2)
    return out


def _matched(image: Any, brightest: float, drawn: Galaxies, i: int, side: int) -> m.Matches:
    middle = side // 2
    row, col = (float(x) + middle for x in drawn.centre[i])
    flux = np.asarray(drawn.clump_flux[i])
    place = np.asarray(drawn.clump_place[i]) + middle
    # Behind the target's PSF, whose variance is 0.72.
    peak = flux / (2 * np.pi * (np.asarray(drawn.clump_sigma[i]) ** 2 + 0.72))
    away = np.hypot(place[:, 0] - row, place[:, 1] - col) > 2.5
    there = place[(peak > brightest / 20) & away]
    found = m.detect_clumps(image, centre=(row, col)).places
    return m.match_clumps(found, there, 2.0)


def _photutils_sources(image: np.ndarray) -> int | None:
    """Sources of a SExtractor-like extraction of the fine structure, the nucleus among them."""
    try:
        from photutils.segmentation import deblend_sources, detect_sources
    except ImportError:
        return None
    from scipy.ndimage import gaussian_filter

    fine = image - gaussian_filter(image, 3.0)
    level = 5 * 1.4826 * np.median(np.abs(fine - np.median(fine)))
    found = detect_sources(fine, max(level, 0.02 * fine.max()), 4)
    if found is None:
        return 0
    parts = deblend_sources(fine, found, 4, n_levels=16, contrast=0.05, progress_bar=False)
    return 0 if parts is None else int(parts.n_labels)


def colour(restore: Restore, side: int, count: int, seed: int) -> dict[str, Any]:
    """Does the number of clumps follow the colour of the disc, as it was put in?

    Discs, seen nearly face-on, get a colour between 0 and 1 magnitude, and one clump fewer for
    every 0.2 of it; clumps are one magnitude bluer than the bluest disc. They are counted in the
    blue band; the disc's colour is that of the circle without what lies around clumps and nucleus.
    """
    rng = np.random.default_rng(seed)
    disc = rng.uniform(0, 1, count)
    wanted = np.clip(np.round(5 * (1 - disc)).astype(int), 0, 5)
    face_on = Population(
        radius=(5.0, 6.5, 8.0),
        sersic=(0.7, 1.0, 1.3),
        axis_ratio=(0.7, 1.0),
        clump_place=(0.9, 1.6),
    )
    drawn = galaxies(seed + 4, count, face_on)
    flux = np.where(np.arange(5)[None] < wanted[:, None], 6.0, 0.0)
    fluxes = ((70 * 10 ** (-0.4 * disc), flux), (np.full(count, 70.0), 0.4 * flux))
    blue, red = (
        drawn._replace(
            flux=jnp.asarray(smooth, jnp.float32), clump_flux=jnp.asarray(points, jnp.float32)
        )
        for smooth, points in fluxes
    )
    bands = [look(g, TRAINED, side, seed + k) for k, g in enumerate((blue, red))]
    images = [restore(band) for band in bands]
    out = {}
    for name in images[0]:
        both = [one[name] for one in images]
        out[name] = _relation(both[0], both[1], drawn, disc, wanted)
    out["target"] = _relation(bands[0].target, bands[1].target, drawn, disc, wanted)
    return out


def _relation(
    blue: Any, red: Any, drawn: Galaxies, disc: np.ndarray, wanted: np.ndarray
) -> dict[str, float]:
    from scipy import stats

    def rank(a: Any, b: Any) -> float:
        found: Any = stats.spearmanr(a, b)
        return round(float(found.statistic), 3)

    counted, colours = [], []
    for b, r, place in zip(blue, red, drawn.centre, strict=True):
        row, col = (float(x) + len(b) // 2 for x in place)
        found = m.detect_clumps(b, centre=(row, col)).places
        counted.append(len(found))
        rows, cols = np.indices(b.shape)
        away = np.hypot(rows - row, cols - col)
        used = (away > 4) & (away < APERTURE * b.shape[0])
        for row, col in found:
            used &= np.hypot(rows - row, cols - col) > 3
        ratio = max(float(b[used].sum()), 1e-6) / max(float(r[used].sum()), 1e-6)
        colours.append(-2.5 * np.log10(ratio))
    return {
        "clumps_against_truth": rank(counted, wanted),
        "clumps_against_colour": rank(counted, colours),
        "colour_bias": round(float(np.median(np.array(colours) - disc)), 3),
        "colour_scatter": round(float(np.median(np.abs(np.array(colours) - disc))), 3),
        "clumps_per_galaxy": round(float(np.mean(counted)), 2),
        "put_in_per_galaxy": round(float(np.mean(wanted)), 2),
        "put_in_against_colour": rank(wanted, disc),
    }
