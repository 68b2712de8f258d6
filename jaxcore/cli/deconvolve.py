"""``jaxcore deconvolve``."""

import glob
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from jaxcore.cli.output import show
from jaxcore.cli.paths import RunPlace
from jaxcore.errors import UserError
from jaxcore.weights import Which

MethodName: TypeAlias = Literal["tikhonov", "wiener", "richardson-lucy", "sparse", "two-channel"]


def deconvolve(
    images: tyro.conf.Positional[str],
    psf: tyro.conf.Positional[Path],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    method: MethodName | None = None,
    weights: tyro.conf.UseAppendAction[tuple[RunPlace, ...]] = (),
    point: tyro.conf.UseAppendAction[tuple[tuple[float, float], ...]] = (),
    fit_points: bool = True,
    report: Path | None = None,
    noise: tuple[float, ...] = (),
    mask: str | None = None,
    variance: str | None = None,
    inverse_variance: str | None = None,
    hdu: tuple[str, ...] = (),
    psf_hdu: str | None = None,
    factor: int | None = None,
    target: float | None = None,
    lam: str | None = None,
    debias: Literal["auto", "on", "off"] = "auto",
    centre_psf: bool = True,
    tile: int = 1024,
    which: Which = "best",
    part: Annotated[str | None, tyro.conf.arg(name="set")] = None,
    overwrite: bool = False,
) -> None:
    """Deconvolve FITS images with their PSF.

    Without --weights a classical method runs: by default the sparse one and debiasing, which have
    the least error on simulated galaxies. With it: Tikhonov, the network, debiasing. Every plane of
    a cube and every band is taken by itself, with its own noise. Header and coordinates are kept.
    Where the uncertainty of the pixels is known (Tikhonov alone, several networks), the result has
    an HDU of it, UNCERT.

    Args:
      images: a FITS file, a folder of such, or a quoted pattern.
      psf: FITS file of the PSF, one or one for each plane; or a folder of files with the names of
        the images.
      output: a file for one file, else a folder.
      method: classical method; "sparse" without it.
      weights: run directory, or weight file, of a SUNet for deconvolution; again for another. Of
        several, trained from other seeds, the mean is taken; what they differ by is UNCERT.
      point: X and Y of a point source for --method two-channel, in pixels of the image, the middle
        of the first one at 1 as in DS9; again for every further one. The result has HDUs POINTS,
        places and fluxes, and EXTENDED, the image without them.
      fit_points: move points to where they are; they should be given to about a pixel.
      report: folder for pictures of all steps and a JSON of figures.
      noise: standard deviation of the noise in a pixel, in the unit of the image, one or one per
        plane; estimated without it.
      mask: HDU of the image's file, or another file: pixels that are not 0 are left out.
      variance: HDU or file with the variance of every pixel.
      inverse_variance: HDU or file with one over it (a weight map); 0 leaves a pixel out.
      hdu: number or name of the HDU of the image, several for bands; the first image without it.
      psf_hdu: the same for the PSF.
      factor: pixels of the PSF, and of the result, along the side of a pixel of the image.
      target: full width at half maximum of the PSF of the result, in its pixels; 2 without it, 0
        for none.
      lam: regularisation of Tikhonov: a number, sure, gcv or discrepancy.
      debias: add what the residual holds of significant structure (step 3); auto does so after a
        network and after the sparse and two-channel methods.
      centre_psf: move the centre of the PSF into its middle pixel.
      tile: largest side, in pixels, of what is computed at once.
      which: checkpoint of a run directory.
      part: name of a set of weights in files of several (net_g_ema); without it the one that fits
        the network, and of several that do a moving average.
      overwrite: replace existing files.
    """
    import time

    from jaxcore.atomic import check_folder
    from jaxcore.cli.deconvolve_inputs import Options, open_networks
    from jaxcore.cli.deconvolving import run_one
    from jaxcore.cli.progress import steps, track

    jobs = plan(images, psf, output, overwrite=overwrite)
    options = Options(
        method=(method or "sparse").replace("-", "_"),
        noise=noise,
        planes={"mask": mask, "variance": variance, "inverse_variance": inverse_variance},
        hdu=hdu,
        psf_hdu=psf_hdu,
        factor=factor,
        target=target,
        lam=lam,
        debias=debias,
        centre_psf=centre_psf,
        tile=tile,
        overwrite=overwrite,
        details=report is not None,
        network=None,
        points=point,
        fit_points=fit_points,
    )
    if weights:
        if method not in (None, "tikhonov"):
            raise UserError(f"Expected no --method beside --weights, found {method}.")
        options = open_networks(options, weights, which, part)
    options.check()
    reports = {out: _report_of(report, out, output, len(jobs)) for _, _, out in jobs}
    for folder in reports.values():
        if folder is not None:
            check_folder(folder, ("report.json",), overwrite=overwrite)
    start = time.perf_counter()
    if len(jobs) == 1:
        source, psf_file, out = jobs[0]
        with steps("deconvolving") as progress:
            said = run_one(source, psf_file, out, options, reports[out], progress)
        show("\n".join([*said, f"{out}  {time.perf_counter() - start:.1f} s"]))
        return
    failures, done = [], []
    for source, psf_file, out in track(jobs, len(jobs), "deconvolving"):
        try:
            done.append(run_one(source, psf_file, out, options, reports[out]))
        except UserError as error:
            failures.append(str(error) if str(source) in str(error) else f"{source}: {error}")
    lines = list(dict.fromkeys(line for said in done for line in said if line.startswith("steps")))
    seconds = time.perf_counter() - start
    show("\n".join([*lines, f"{len(done)} of {len(jobs)} files -> {output}  {seconds:.1f} s"]))
    if failures:
        raise UserError(f"{len(failures)} of {len(jobs)} files were not deconvolved:", failures)


def _report_of(report: Path | None, out: Path, output: Path, count: int) -> Path | None:
    """Of several files each has a folder of its own."""
    if report is None or count == 1:
        return report
    return report / out.relative_to(output).with_name(out.name.partition(".")[0])


Triple: TypeAlias = tuple[Path, Path, Path]


def plan(images: str, psf: Path, output: Path, *, overwrite: bool) -> list[Triple]:
    """Image, PSF and output of every job; every conflict of names is found here.

    Raises:
      UserError: nothing there, an output that exists or cannot be written.
    """
    from jaxcore.atomic import check_writable
    from jaxcore.data.astro.fits import ENDINGS

    path, fits = Path(images), output.name.lower().endswith(ENDINGS)
    single = path.is_file()
    if not path.exists() and not glob.has_magic(images):
        raise UserError(f"Expected a FITS file, a folder or a pattern, found nothing at {images}.")
    if single and not output.is_dir():
        if not fits or output.name.lower().endswith(".fz"):
            raise UserError(f"Expected an output named .fits or .fits.gz, found {output}.")
        sources = [(path, output)]
    elif single:
        sources = [(path, output / path.name)]
    else:
        if output.is_file() or (fits and not output.is_dir()):
            raise UserError(f"Expected a folder as output for several images, found {output}.")
        if path.is_dir():
            root, files = path, sorted(p for p in path.rglob("*") if p.is_file())
        else:
            files = [p for p in map(Path, sorted(glob.glob(images, recursive=True))) if p.is_file()]
            root = Path(*path.parts[: _fixed(path)])
        inside = output.resolve()
        if inside != root.resolve():  # results of an earlier call are no input
            files = [p for p in files if not p.resolve().is_relative_to(inside)]
        files = [p for p in files if p.name.lower().endswith(ENDINGS)]
        if psf.is_file():
            files = [p for p in files if p.resolve() != psf.resolve()]
        if not files:
            raise UserError(f"Expected FITS files ({', '.join(ENDINGS)}), found none in {images}.")
        sources = [(p, output / _unpacked(p.relative_to(root))) for p in files]
    jobs = [(source, _psf_of(source, psf), out) for source, out in sources]
    taken = [out for _, _, out in jobs if out.exists()]
    if taken and not overwrite:
        raise UserError(f"Expected new files, found that {taken[0]} exists (use --overwrite).")
    for folder in {out.parent for _, _, out in jobs}:
        check_writable(folder)
    same = [out for source, psf_file, out in jobs if out.resolve() in _all(source, psf_file)]
    if same:
        raise UserError(f"Expected an output other than the image and the PSF, found {same[0]}.")
    return jobs


def _all(*paths: Path) -> set[Path]:
    return {path.resolve() for path in paths}


def _fixed(path: Path) -> int:
    """How many parts of a pattern stand before the first that is one."""
    return next((i for i, part in enumerate(path.parts) if glob.has_magic(part)), 0)


def _unpacked(path: Path) -> Path:
    """The name of a result: floating-point images are not written in compressed tiles."""
    return path.with_suffix("") if path.suffix.lower() == ".fz" else path


def _psf_of(source: Path, psf: Path) -> Path:
    if not psf.is_dir():
        if not psf.exists():
            raise UserError(f"Expected a PSF in a FITS file, found no such file: {psf}.")
        return psf
    stem = source.name.partition(".")[0]
    found = [p for p in sorted(psf.glob(f"{glob.escape(stem)}.*")) if p.is_file()]
    if len(found) != 1:
        raise UserError(f"Expected one PSF named {stem}.fits in {psf}, found {len(found)}.")
    return found[0]
