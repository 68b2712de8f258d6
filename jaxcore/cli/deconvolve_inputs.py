"""What ``jaxcore deconvolve`` is asked for and reads: options, bands, PSF, masks and noise."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcore.cli.output import show
from jaxcore.errors import UserError

CHOICES = ("sure", "gcv", "discrepancy")
_CORRELATED = 1.5  # noise on the second scale over that on the first: white noise has about 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command was asked for; see `jaxcore.cli.deconvolve.deconvolve`."""

    method: str
    noise: tuple[float, ...]
    planes: Mapping[str, str | None]
    hdu: tuple[str, ...]
    psf_hdu: str | None
    factor: int | None
    target: float | None
    lam: str | None
    debias: str
    centre_psf: bool
    tile: int
    overwrite: bool
    details: bool
    network: Callable[[Any], Any] | None
    network_name: str = ""
    networks: int = 1  # of an ensemble
    points: tuple[tuple[float, float], ...] = ()
    fit_points: bool = True

    @property
    def steps(self) -> list[str]:
        """Names of the steps that run."""
        biased = self.network is not None or self.method in ("sparse", "two_channel")
        debias = self.debias == "on" or (self.debias == "auto" and biased)
        network = [self.network_name] if self.network is not None else []
        return [self.method.replace("_", "-"), *network, *(["debias"] if debias else [])]

    @property
    def fwhm(self) -> float | None:
        """Of the PSF of the result, in its pixels."""
        from jaxcore.models.deconvolution.chain import FWHM

        if self.target is None:
            return None if self.network is not None else FWHM
        return self.target or None

    @property
    def choice(self) -> Any:
        """Regularisation, or how it is chosen."""
        from jaxcore.models.deconvolution.tikhonov import LAM

        if self.lam is None:
            return LAM if self.network is not None else "sure"
        return self.lam if self.lam in CHOICES else float(self.lam)

    def check(self) -> None:
        """Refuse what cannot be, before anything is read.

        Raises:
          UserError: an option, or two that exclude each other.
        """
        if self.lam is not None:
            if self.method != "tikhonov":
                raise UserError(
                    "Expected --lam with --method tikhonov or --weights, found it alone."
                )
            try:
                good = self.lam in CHOICES or 0 < float(self.lam) < math.inf
            except ValueError:
                good = False
            if not good:
                raise UserError(
                    f"Expected --lam to be a positive number or one of {', '.join(CHOICES)}, found "
                    f"{self.lam}."
                )
        if self.target is not None and not (self.target == 0 or 1 <= self.target < 1000):
            raise UserError(
                f"Expected --target to be 0 or at least 1 pixel, found {self.target:g}."
            )
        if self.target == 0 and self.method == "two_channel":
            raise UserError("Expected a --target for the method two-channel, found 0.")
        if self.points and self.method != "two_channel":
            found = self.method.replace("_", "-")
            raise UserError(f"Expected --method two-channel for --point, found {found}.")
        if self.factor is not None and not 1 <= self.factor <= 16:
            raise UserError(f"Expected --factor from 1 to 16, found {self.factor}.")
        if self.tile < 32:
            raise UserError(f"Expected --tile of at least 32 pixels, found {self.tile}.")
        if any(not 0 < value < math.inf for value in self.noise):
            raise UserError(f"Expected --noise above 0, found {min(self.noise):g}.")
        if self.planes["variance"] and self.planes["inverse_variance"]:
            raise UserError("Expected --variance or --inverse-variance, found both.")
        if self.noise and (self.planes["variance"] or self.planes["inverse_variance"]):
            raise UserError("Expected --noise or a map of it, found both.")


def open_networks(
    options: Options, places: Sequence[Path], which: Any, part: str | None = None
) -> Options:
    """Options with the networks of runs or weight files as step 2; what else they hold is said.

    Raises:
      UserError: networks of another kind, or that do not go together.
    """
    import jax
    import jax.numpy as jnp

    from jaxcore.models.sunet import pipeline
    from jaxcore.weights import load

    if len({place.resolve() for place in places}) < len(places):
        raise UserError("Expected several networks for --weights, found one of them twice.")
    loaded = [load(place, model="sunet", which=which, part=part) for place in places]
    for note in (note for one in loaded for note in one.notes):
        show(note)
    cfg = loaded[0].cfg
    for place, one in zip(places, loaded, strict=True):
        if one.cfg.in_channels != 1:
            raise UserError(
                f"Expected a SUNet of one channel, found one of {one.cfg.in_channels} in {place}."
            )
        if one.cfg != cfg:
            raise UserError(
                f"Expected networks of one configuration, found another in {place} than in "
                f"{places[0]}."
            )
    lams = {_trained_lam(place) if place.is_dir() else None for place in places}
    if options.lam is None and len(lams) > 1:
        raise UserError(
            "Expected networks trained with one regularisation, or --lam for all, found "
            f"{' and '.join(sorted(str(lam or 'none') for lam in lams))}."
        )
    run = pipeline.run_network if len(loaded) == 1 else pipeline.run_networks
    params = loaded[0].params
    if len(loaded) > 1:
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one.params for one in loaded))

    def network(x: Any) -> Any:
        return run(x, params, cfg)

    return dataclasses.replace(
        options,
        method="tikhonov",
        network=network,
        network_name="sunet",
        networks=len(loaded),
        lam=options.lam if options.lam is not None else lams.pop(),
        tile=min(options.tile, 384),
    )


def _trained_lam(run: Path) -> str | None:
    """Regularisation of the step before the network in its training."""
    from jaxcore.train import read_config

    config = read_config(run)
    task = config.get("task_config") if isinstance(config, dict) else None
    lam = task.get("lam") if isinstance(task, dict) else None
    return str(lam) if isinstance(lam, str | float) else None


class Field(NamedTuple):
    """Planes of one file, ready to be restored.

    Attributes:
      planes: observations (n, h, w).
      weights: of their pixels, 0 to 1; None where all are 1.
      sigma: noise of every plane where its weight is 1.
      estimated: whether the noise was.
      empty: planes without any structure.
      notes: sentences for the user.
    """

    planes: np.ndarray
    weights: np.ndarray | None
    sigma: np.ndarray
    estimated: bool
    empty: np.ndarray
    notes: list[str]


def read_bands(source: Path, hdus: tuple[str, ...]) -> list[Any]:
    """The images of some HDUs, of one size and unit.

    Raises:
      UserError: they differ.
    """
    from jaxcore.data.astro import check_units, read_fits

    bands = [read_fits(source, hdu) for hdu in hdus or (None,)]
    first, out = bands[0], [bands[0]]
    for band in bands[1:]:
        if band.pixels.shape != first.pixels.shape:
            raise UserError(
                f"Expected bands of one size, found {first.pixels.shape} in {first.where} and "
                f"{band.pixels.shape} in {band.where}."
            )
        if check_units(first.unit, band.unit, (first.where, band.where)) != 1:
            raise UserError(
                f"Expected one unit for all bands, found {first.unit} in {first.where} and "
                f"{band.unit} in {band.where}."
            )
        out.append(band)
    return out


def read_psf(image: Any, options: Options) -> tuple[np.ndarray, list[str]]:
    """The PSF of a file, ready, and what was changed.

    Raises:
      UserError: it cannot be one.
    """
    from jaxcore.models.deconvolution.prepared import prepare_psf

    try:
        psf, notes = prepare_psf(image.pixels, centre=options.centre_psf)
    except UserError as error:
        raise UserError(f"{image.where}: {error}") from None
    return psf, list(notes)


def factor_of(image: Any, psf: Any, shape: tuple[int, int], given: int | None) -> int:
    """How much finer the pixels of the PSF are: as given, from their scales, or 1.

    Raises:
      UserError: it cannot be told.
    """
    from jaxcore.data.astro import pixel_scale

    scales = pixel_scale(image.header), pixel_scale(psf.header)
    if scales[0] and scales[1]:
        ratio = scales[0] / scales[1]
        found = max(round(ratio), 1)
        if given is None and abs(ratio - found) > 0.02 * found:
            raise UserError(
                "Expected pixels of the PSF that are as large as those of the image or divide "
                f"them, found {scales[1]:.4g} and {scales[0]:.4g} arcsec (or give --factor)."
            )
        return given or found
    sides = psf.pixels.shape[-2:]
    if given is None and sides[0] >= 2 * shape[0] and sides[1] >= 2 * shape[1]:
        raise UserError(
            f"Expected --factor (pixels of the PSF along a pixel of the image) for a PSF of "
            f"{sides[0]} x {sides[1]} pixels and an image of {shape[0]} x {shape[1]} without pixel "
            "scales, found none."
        )
    return given or 1


def prepare(planes: np.ndarray, image: Any, options: Options) -> Field:
    """Masks, noise and weights of the planes of a file.

    Raises:
      UserError: maps that do not fit, or noise that cannot be estimated.
    """
    import jax.numpy as jnp

    from jaxcore.models.deconvolution.masks import fill_missing, noise_by_scale

    notes: list[str] = []
    known = np.isfinite(planes)
    lost = int(known.size - known.sum())
    if lost:
        notes.append(f"{lost} pixels without a value were left out ({lost / known.size:.2%}).")
    bad = _plane("mask", planes, image, options, 0)
    if bad is not None:
        known &= ~(bad != 0)  # NaN is not 0
        notes.append(f"{int((bad != 0).sum())} pixels of the mask were left out.")
    sigma, weights = None, known.astype(np.float32)
    for name, power in (("variance", 2), ("inverse_variance", -2)):
        given = _plane(name, planes, image, options, power)
        if given is None:
            continue
        if (given < 0).any():
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"Expected a map of at least 0 for {option}, found pixels below.")
        with np.errstate(divide="ignore"):
            given = given if power == 2 else 1 / given
        known &= np.isfinite(given) & (given > 0)
        values = [v[k] if k.any() else np.ones(1) for v, k in zip(given, known, strict=True)]
        least = np.array([np.percentile(v, 1) for v in values])
        sigma = np.sqrt(least)
        safe = np.where(known, given, 1)
        weights = np.where(known, np.minimum(least[:, None, None] / safe, 1), 0).astype(np.float32)
    if not known.any():
        used = [f"--{name.replace('_', '-')}" for name, given in options.planes.items() if given]
        leave = f" that {' and '.join(used)} leave{'s' * (len(used) == 1)}"
        left = leave if used and lost < planes.size else ""
        raise UserError(f"Expected pixels with a value in {image.where}{left}, found none.")
    estimated = sigma is None and not options.noise
    planes = np.where(known, planes, 0)
    if options.noise:
        if len(options.noise) not in (1, len(planes)):
            raise UserError(
                f"Expected one --noise or one for each of the {len(planes)} planes, found "
                f"{len(options.noise)}."
            )
        sigma = np.broadcast_to(np.array(options.noise, float), len(planes))
    empty = np.array(
        [np.ptp(p[k]) == 0 if k.any() else True for p, k in zip(planes, known, strict=True)]
    )
    # Numbers such as 1e-18 have no squares in float32.
    level = np.array([np.abs(p).max() or 1.0 for p in planes])
    scaled = (planes / level[:, None, None]).astype(np.float32)
    if not known.all():
        scaled = np.asarray(fill_missing(jnp.asarray(scaled), jnp.asarray(known)))
    if sigma is None:
        scales = noise_by_scale(jnp.asarray(scaled), jnp.asarray(known))
        scales = np.asarray(scales, float) * level[:, None]
        sigma = scales[:, 0]
        notes += _correlated(scales)
    sigma = np.where(empty, 1.0, sigma)
    if not (sigma > 0).all():
        raise UserError(
            f"Expected noise in {image.where}, found that most neighbouring pixels are equal: give "
            "--noise."
        )
    if empty.any():
        notes.append(f"{int(empty.sum())} of {len(planes)} planes are empty and stay as they are.")
    planes = scaled * (level / sigma)[:, None, None].astype(np.float32)
    held = None if (weights == 1).all() else weights
    return Field(planes, held, sigma, estimated, empty, notes)


def _correlated(scales: np.ndarray) -> list[str]:
    """Whether noise is larger on the second scale, as in images that were resampled."""
    more = float(np.median(scales[:, 1] / np.where(scales[:, 0] > 0, scales[:, 0], np.inf)))
    if more < _CORRELATED:
        return []
    wanted = " ".join(f"{value:.3g}" for value in scales[:, 1][:12])
    return [
        f"Noise over two pixels is {more:.2g} times that of white noise, as in resampled images: "
        f"it is correlated, and --noise {wanted} or more would allow for it."
    ]


def _plane(
    name: str, planes: np.ndarray, image: Any, options: Options, power: int
) -> np.ndarray | None:
    """A mask or a map, by HDU of the image's file or of another file."""
    from jaxcore.data.astro import check_units, read_fits

    given = options.planes[name]
    if given is None:
        return None
    what = f"a map for --{name.replace('_', '-')}"
    if Path(given).exists() or re.search(r"\.(fits?|fts)(\.\w+)?$", given.lower()):
        found = read_fits(given, what=what)
    else:
        found = read_fits(image.path, given, what=what)
    if power:
        scale = check_units(image.unit, found.unit, (image.where, found.where), power)
    else:
        scale = 1.0
    if found.pixels.shape[-2:] != planes.shape[-2:] or planes.size % found.pixels.size:
        raise UserError(
            f"Expected {what} of {planes.shape[-2]} x {planes.shape[-1]} pixels, found "
            f"{' x '.join(map(str, found.pixels.shape))} in {found.where}."
        )
    return np.broadcast_to(found.pixels.reshape(-1, *planes.shape[-2:]) * scale, planes.shape)
