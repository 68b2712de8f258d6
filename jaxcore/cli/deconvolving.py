"""One file of ``jaxcore deconvolve``: read, restore, write, and say what was done."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import jaxcore
from jaxcore.cli import deconvolve_points
from jaxcore.cli.deconvolve_inputs import (
    Field,
    Options,
    factor_of,
    prepare,
    read_bands,
    read_psf,
)
from jaxcore.cli.deconvolve_points import EXTENDED, POINTS, Sources
from jaxcore.errors import UserError

Progress = Callable[[int, int], None]
_MARGIN = 8  # pixels around what a network is shown, whose border it does not know
_AT_ONCE = 2**20  # pixels of the result that are computed together
_IN_CACHE = 2**15  # the same on a CPU, whose caches hold no more
_CLOSE = 0.01  # of a sum to one
_RESPONSE = 256  # side of the image in which a point shows what becomes of noise, at most
UNCERTAINTY = "UNCERT"
"""EXTNAME of the HDU with the standard deviation of every pixel."""


def run_one(
    source: Path,
    psf_file: Path,
    output: Path,
    options: Options,
    report: Path | None,
    progress: Progress | None = None,
) -> list[str]:
    """Deconvolve one file.

    Returns:
      Lines for the user.

    Raises:
      UserError: what a file holds cannot be deconvolved.
    """
    from jaxcore.cli.deconvolve_report import write_report
    from jaxcore.data.astro import per_area, read_fits, write_fits

    bands = read_bands(source, options.hdu)
    first, psf_image = bands[0], read_fits(psf_file, options.psf_hdu, what="a PSF")
    stacked = np.stack([band.pixels for band in bands])
    shape = (stacked.shape[-2], stacked.shape[-1])
    psf, notes = read_psf(psf_image, options)
    factor = factor_of(first, psf_image, shape, options.factor)
    field = prepare(stacked.reshape(-1, *shape), first, options)
    notes = [*first.notes, *psf_image.notes, *_interchanged(bands, psf_image), *notes, *field.notes]
    area = per_area(first.unit)
    headers = _headers(bands, factor)
    psf = psf.reshape(-1, *psf.shape[-2:])
    if len(psf) not in (1, len(field.planes)):
        raise UserError(
            f"Expected one PSF or one for each of the {len(field.planes)} planes of {first.where}, "
            f"found {len(psf)} in {psf_image.where}."
        )
    lams, parts, sources = restore(field, psf, factor, options, progress)
    figures = measure(field, lams, parts, options)
    where = "" if len(bands) > 1 or options.hdu else ", the first image" * (first.hdu > 0)
    sides = " x ".join(str(n) for n in (len(bands),) * (len(bands) > 1) + bands[0].pixels.shape)
    finer = f", {factor} x finer" if factor > 1 else ""
    width = f"{options.fwhm:g} pixels" if options.fwhm else "none"
    scale = factor**2 if area else 1
    found = {} if sources is None else deconvolve_points.table(sources, headers[0], scale)
    networks = f"; mean of {options.networks} networks" if options.networks > 1 else ""
    said = [
        f"{first.where}{where}: {sides} pixels{finer}",
        f"steps: {', '.join(options.steps)}; target {width}{networks}",
        *_figure_lines(figures, field.estimated),
        *(deconvolve_points.lines(found) if found else ()),
        *[f"note: {note}" for note in notes],
    ]
    history = [
        f"jaxcore {jaxcore.__version__} deconvolve, PSF {psf_file.name}",
        *[line for line in said[1:] if len(line) < 200],
    ]
    done = []
    for name, title in (("image", None), ("extended", EXTENDED), ("uncertainty", UNCERTAINTY)):
        if name in parts:
            made = (parts[name] * scale).reshape(*stacked.shape[:-2], *parts[name].shape[-2:])
            done += _hdus(bands, headers, made, title)
    output.parent.mkdir(parents=True, exist_ok=True)
    tables = {POINTS: found} if found else None
    write_fits(output, done, history, tables=tables, overwrite=options.overwrite)
    if report is not None:
        about = {
            "image": source.name,
            "psf": psf_file.name,
            "output": output.name,
            "version": jaxcore.__version__,
            "steps": options.steps,
            "networks": options.networks if options.network is not None else 0,
            "target_fwhm": options.fwhm,
            "factor": factor,
            "unit": first.unit,
            "noise_estimated": field.estimated,
            "planes": figures,
            "notes": notes,
        }
        write_report(report, field, parts, headers[0], about, overwrite=options.overwrite)
        said.append(f"report  {report}")
    return said


def _interchanged(bands: list[Any], psf: Any) -> list[str]:
    """A question, where the image sums to one and the PSF does not."""
    sums = [float(np.nansum(band.pixels, dtype=float)) for band in bands]
    other = float(psf.pixels.sum(dtype=float))
    if abs(sums[0] - 1) > _CLOSE or abs(other - 1) < 10 * _CLOSE:
        return []
    return [f"The image sums to 1 and the PSF to {other:.6g}: are they interchanged?"]


def _hdus(bands: list[Any], headers: list[Any], images: np.ndarray, title: str | None) -> list[Any]:
    """Images of all bands with their cards; those of uncertainty as astropy's CCDData has them."""
    out = []
    for number, band in enumerate(bands):
        header = headers[number].copy()
        if title is not None:
            header["EXTNAME"], header["EXTVER"] = title, number + 1
        if title == UNCERTAINTY:
            header["UTYPE"] = ("StdDevUncertainty", "standard deviation of every pixel")
        out.append(dataclasses.replace(band, pixels=images[number], header=header))
    return out


def _headers(bands: list[Any], factor: int) -> list[Any]:
    from jaxcore.data.astro import regrid

    try:
        return [regrid(band.header, factor=factor) for band in bands]
    except UserError as error:
        raise UserError(f"{bands[0].where}: {error}") from None


def restore(
    field: Field, psf: np.ndarray, factor: int, options: Options, progress: Progress | None
) -> tuple[np.ndarray, dict[str, np.ndarray], Sources | None]:
    """Regularisation of every plane, images of all steps in the unit of the input, and sources."""
    import jax

    from jaxcore.models.deconvolution.fields import choose_field_lam, plan_tiles, restore_field
    from jaxcore.models.deconvolution.prepared import reach_of

    shape = (field.planes.shape[-2], field.planes.shape[-1])
    reach = math.ceil(min(reach_of(psf), max(shape) * factor) / factor)
    margin = 0 if options.network is None else _MARGIN
    block = plan_tiles(shape, reach, options.tile, margin).block
    _check_target(psf, options)
    together = _IN_CACHE if jax.default_backend() == "cpu" else _AT_ONCE
    batch = max(1, min(64, together // (block[0] * block[1] * factor**2 * options.networks)))
    lams = np.zeros(len(field.planes))
    if options.method == "tikhonov":
        choice = options.choice
        if isinstance(choice, str):
            chosen: Any = choice  # one of CHOICES
            lams = choose_field_lam(field.planes, psf, chosen, factor=factor, reach=reach)
        else:
            lams = np.full(len(field.planes), choice)
    run, sources = _chain(options), None
    how: dict[str, Any] = {"lam": lams, "factor": factor, "reach": reach, "batch": batch}
    try:
        if options.points:
            found = deconvolve_points.restore_points(field, psf, factor, reach, options)
            parts, sources = found
        else:
            parts = restore_field(
                run,
                field.planes,
                psf,
                weights=field.weights,
                tile=options.tile,
                margin=margin,
                progress=progress,
                **how,
            )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"Expected images that fit into the memory, found {shape[0]} x {shape[1]} pixels: use "
            "a smaller --tile."
        ) from None
    if options.steps == ["tikhonov"] and field.weights is None:
        parts["uncertainty"] = _propagated(run, field.planes.shape, psf, how)
    for name, part in parts.items():
        if name in ("residual", "active"):
            continue
        part[field.empty] = 0
        if name != "uncertainty":
            part[field.empty] = np.kron(field.planes[field.empty], np.ones((1, factor, factor)))
            part[field.empty] /= factor**2
        part *= field.sigma[:, None, None].astype(part.dtype)
    return lams, parts, sources


def _propagated(
    run: Any, shape: tuple[int, ...], psf: np.ndarray, how: Mapping[str, Any]
) -> np.ndarray:
    """Noise of the result, borders aside, where that of every pixel of the image is one.

    It is the same for all pixels of the result that lie alike in a pixel of the image.
    """
    import jax.numpy as jnp

    from jaxcore.models.deconvolution.fields import restore_field
    from jaxcore.models.deconvolution.uncertainty import propagated_noise

    count, sides, factor = shape[0], [min(n, _RESPONSE) for n in shape[1:]], how["factor"]
    points = np.zeros((count, *sides), np.float32)
    row, col = (n // 2 for n in sides)
    points[:, row, col] = 1
    response = jnp.asarray(restore_field(run, points, psf, **how)["image"])
    noise = np.asarray(propagated_noise(response, jnp.ones(points.shape)))
    rows, cols = (slice(n * factor, (n + 1) * factor) for n in (row, col))
    return np.tile(noise[:, rows, cols], (1, *shape[1:]))


def _check_target(psf: np.ndarray, options: Options) -> None:
    """Refuse a result less sharp than the observation."""
    from jaxcore.models.deconvolution import gaussian_psf

    if options.fwhm is None:
        return
    side = int(8 * options.fwhm) + 9
    peak, wanted = float(psf.max()), float(gaussian_psf((side, side), options.fwhm).max())
    if peak >= wanted:
        raise UserError(
            f"Expected a PSF that is wider than that of the result (--target {options.fwhm:g} "
            f"pixels), found one about {options.fwhm * math.sqrt(wanted / peak):.2g} pixels wide: "
            "give a PSF on finer pixels (--factor), or a smaller --target."
        )


_CHAINS: dict[Any, Any] = {}


def _chain(options: Options) -> Any:
    """One compiled function for all files of a call."""
    from jaxcore.models.deconvolution.chain import chain

    key = (options.method, options.fwhm, options.network, options.steps[-1], options.details)
    if key not in _CHAINS:
        _CHAINS[key] = chain(
            options.method,
            target=options.fwhm,
            network=options.network,
            debias=options.steps[-1] == "debias",
            details=options.details,
        )
    return _CHAINS[key]


def measure(
    field: Field, lams: np.ndarray, parts: Mapping[str, np.ndarray], options: Options
) -> list[dict[str, float | None]]:
    """Figures of every plane: regularisation, noise, flux before and after, chi-square."""
    out = []
    factor = parts["residual"].shape[-1] // field.planes.shape[-1]
    for i, plane in enumerate(field.planes):
        weights = np.ones_like(plane) if field.weights is None else field.weights[i]
        residual = parts["residual"][i, ::factor, ::factor]
        known = weights > 0
        chi2 = float((weights * residual**2)[known].mean()) if known.any() else None
        flux = float(plane[known].sum(dtype=float) * field.sigma[i])
        image = parts["image"][i].reshape(plane.shape[0], factor, plane.shape[1], factor)
        out.append(
            {
                "lambda": float(lams[i]) if options.method == "tikhonov" else None,
                "noise": float(field.sigma[i]),
                "flux_in": flux,
                "flux_out": float(image.sum((1, 3), dtype=float)[known].sum()),
                "chi2": chi2,
            }
        )
        if "uncertainty" in parts:
            out[-1]["uncertainty"] = float(np.sqrt(np.mean(parts["uncertainty"][i] ** 2.0)))
    return out


def _figure_lines(figures: list[dict[str, Any]], estimated: bool) -> list[str]:
    how = " (estimated)" if estimated else ""
    lines = []
    for number, one in enumerate(figures[:12]):
        lam = "" if one["lambda"] is None else f"lambda {one['lambda']:.3g}, "
        plane = f"plane {number}: " if len(figures) > 1 else ""
        lines.append(
            f"{plane}{lam}noise {one['noise']:.4g}{how}, flux {one['flux_in']:.6g} -> "
            f"{one['flux_out']:.6g}, chi2 {one['chi2']:.3g}"
        )
    if len(figures) > 12:
        lines.append(f"... {len(figures) - 12} more planes")
    if "uncertainty" in figures[0]:
        values = ", ".join(f"{one['uncertainty']:.3g}" for one in figures[:12])
        lines.append(f"uncertainty of a pixel, HDU {UNCERTAINTY}: {values}")
    return lines
