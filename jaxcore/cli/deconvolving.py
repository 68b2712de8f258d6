"""One file of ``jaxcore deconvolve``: read, restore, write, and say what was done."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import jaxcore
from jaxcore.cli.deconvolve_inputs import (
    Field,
    Options,
    factor_of,
    prepare,
    read_bands,
    read_psf,
)
from jaxcore.errors import UserError

Progress = Callable[[int, int], None]
_MARGIN = 8  # pixels around what a network is shown, whose border it does not know
_AT_ONCE = 2**20  # pixels of the result that are computed together


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
    notes = [*first.notes, *psf_image.notes, *notes, *field.notes]
    area = per_area(first.unit)
    headers = _headers(bands, factor)
    psf = psf.reshape(-1, *psf.shape[-2:])
    if len(psf) not in (1, len(field.planes)):
        raise UserError(
            f"Expected one PSF or one for each of the {len(field.planes)} planes of {first.where}, "
            f"found {len(psf)} in {psf_image.where}."
        )
    lams, parts = restore(field, psf, factor, options, progress)
    figures = measure(field, lams, parts, options)
    where = "" if len(bands) > 1 or options.hdu else ", the first image" * (first.hdu > 0)
    sides = " x ".join(str(n) for n in (len(bands),) * (len(bands) > 1) + bands[0].pixels.shape)
    finer = f", {factor} x finer" if factor > 1 else ""
    width = f"{options.fwhm:g} pixels" if options.fwhm else "none"
    said = [
        f"{first.where}{where}: {sides} pixels{finer}",
        f"steps: {', '.join(options.steps)}; target {width}",
        *_figure_lines(figures, field.estimated),
        *[f"note: {note}" for note in notes],
    ]
    history = [
        f"jaxcore {jaxcore.__version__} deconvolve, PSF {psf_file.name}",
        *[line for line in said[1:] if len(line) < 200],
    ]
    image = parts["image"] * (factor**2 if area else 1)
    image = image.reshape(*stacked.shape[:-2], *image.shape[-2:])
    done = [
        dataclasses.replace(band, pixels=pixels, header=header)
        for band, pixels, header in zip(bands, image, headers, strict=True)
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_fits(output, done, history, overwrite=options.overwrite)
    if report is not None:
        about = {
            "image": source.name,
            "psf": psf_file.name,
            "output": output.name,
            "version": jaxcore.__version__,
            "steps": options.steps,
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


def _headers(bands: list[Any], factor: int) -> list[Any]:
    from jaxcore.data.astro import regrid

    try:
        return [regrid(band.header, factor=factor) for band in bands]
    except UserError as error:
        raise UserError(f"{bands[0].where}: {error}") from None


def restore(
    field: Field, psf: np.ndarray, factor: int, options: Options, progress: Progress | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Regularisation of every plane and the images of all steps, in the unit of the input."""
    import jax

    from jaxcore.models.deconvolution.fields import choose_field_lam, plan_tiles, restore_field
    from jaxcore.models.deconvolution.prepared import reach_of

    shape = (field.planes.shape[-2], field.planes.shape[-1])
    reach = math.ceil(min(reach_of(psf), max(shape) * factor) / factor)
    margin = 0 if options.network is None else _MARGIN
    block = plan_tiles(shape, reach, options.tile, margin).block
    _check_target(psf, options)
    batch = max(1, min(64, _AT_ONCE // (block[0] * block[1] * factor**2)))
    lams = np.zeros(len(field.planes))
    if options.method == "tikhonov":
        choice = options.choice
        if isinstance(choice, str):
            chosen: Any = choice  # one of CHOICES
            lams = choose_field_lam(field.planes, psf, chosen, factor=factor, reach=reach)
        else:
            lams = np.full(len(field.planes), choice)
    run = _chain(options)
    try:
        parts = restore_field(
            run,
            field.planes,
            psf,
            weights=field.weights,
            lam=lams,
            factor=factor,
            reach=reach,
            tile=options.tile,
            margin=margin,
            batch=batch,
            progress=progress,
        )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"Expected images that fit into the memory, found {shape[0]} x {shape[1]} pixels: use "
            "a smaller --tile."
        ) from None
    for name, part in parts.items():
        if name not in ("residual", "active"):
            part[field.empty] = np.kron(field.planes[field.empty], np.ones((1, factor, factor)))
            part[field.empty] /= factor**2
            part *= field.sigma[:, None, None].astype(part.dtype)
    return lams, parts


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
    return lines
