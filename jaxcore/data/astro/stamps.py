"""Readers of real stamps and catalogues, from paths that the user gives; nothing is shipped.

Arrays come from NumPy's files, of which nothing is run or unpickled, or from FITS. Which layout a
file has is told by the names of its arrays.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxcore.data.astro.fits import ENDINGS, read_fits
from jaxcore.data.astro.telescopes import resample_psf
from jaxcore.data.npy import open_npy
from jaxcore.errors import UserError

MAX_BYTES = 2**30
"""Bytes that the arrays of a file may take."""
ACS_SCALE = 0.03
"""Side of a pixel of the HST mosaics of the COSMOS field, arcsec."""

Arrays = dict[str, np.ndarray]


class Stamps(NamedTuple):
    """Images of objects.

    Attributes:
      target: as sharp as restored images shall be; all of one size.
      observed: the same objects through a ground-based telescope; None where there are none.
      psf: of each observation, on the grid of the target; None where there are none.
    """

    target: Float[np.ndarray, "n h2 w2"]
    observed: Float[np.ndarray, "n h w"] | None = None
    psf: Float[np.ndarray, "n h2 w2"] | None = None


class Catalogue(NamedTuple):
    """Galaxies of COSMOS, in pixels of the mosaics (0.03 arcsec).

    Attributes:
      sersic: Sersic index.
      radius: half-light radius along the major axis.
      axis_ratio: minor over major axis.
      magnitude: in F814W.
      psf: of HST's camera ACS at each galaxy, in the middle, with sum one.
    """

    sersic: Float[np.ndarray, " n"]
    radius: Float[np.ndarray, " n"]
    axis_ratio: Float[np.ndarray, " n"]
    magnitude: Float[np.ndarray, " n"]
    psf: Float[np.ndarray, "n h w"]

    def shapes(self, scale: float) -> Float[np.ndarray, "n 3"]:
        """Index, radius and axis ratio for `draw_galaxies`.

        Args:
          scale: side of a pixel, arcsec.
        """
        radius = self.radius * ACS_SCALE / scale
        return np.stack([self.sersic, radius, self.axis_ratio], axis=1)

    def psfs(self, scale: float, side: int) -> Float[np.ndarray, "n h w"]:
        """The PSFs on other pixels, for `observe`.

        Args:
          scale: side of a pixel, arcsec.
          side: height and width of the grid.
        """
        return resample_psf(self.psf, scale / ACS_SCALE, (side, side))


def read_arrays(path: str | Path) -> Arrays:
    """All arrays of an ``.npz`` file; the one of an ``.npy`` or FITS file is called "target".

    Raises:
      UserError: no such file, not arrays of numbers, damaged, or more than `MAX_BYTES`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Expected a file of arrays, found none at {path}.")
    if path.name.lower().endswith(ENDINGS):
        return {"target": read_fits(path, what="stamps", max_bytes=MAX_BYTES).pixels}
    try:
        if path.suffix == ".npz":
            arrays = _archive(path)
        else:
            arrays = {"target": open_npy(path)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"Expected NumPy arrays of numbers in {path}, found: {error}.") from None
    for name, array in arrays.items():
        if array.nbytes > MAX_BYTES:
            raise UserError(_too_much(array.nbytes, path))
        if array.dtype.kind not in "biufU":
            raise UserError(f"Expected numbers in {path}, found {name} of {array.dtype}.")
    return arrays


def _archive(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        size = sum(one.file_size for one in archive.infolist())
    if size > MAX_BYTES:
        raise UserError(_too_much(size, path))
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _too_much(size: int, path: Path) -> str:
    return f"Expected at most {MAX_BYTES:,} bytes of arrays, found {size:,} in {path}."


def read_catalogue(path: str | Path) -> Catalogue:
    """Galaxies of the COSMOS catalogue with their PSFs.

    Args:
      path: an ``.npz`` file with ``sersicfit`` (n, 8), ``mag_auto`` and ``psf_acs``.

    Raises:
      UserError: another file.
    """
    arrays = read_arrays(path)
    fit, magnitude, psf = (_wanted(arrays, n, path) for n in ("sersicfit", "mag_auto", "psf_acs"))
    if fit.ndim != 2 or fit.shape[1] != 8 or psf.ndim != 3 or not len(fit) == len(psf):
        raise UserError(
            f"Expected sersicfit (n, 8) and psf_acs (n, h, w) in {path}, found {fit.shape} and "
            f"{psf.shape}."
        )
    return Catalogue(fit[:, 2], fit[:, 1], fit[:, 3], magnitude, psf)


def read_stamps(path: str | Path, side: int, shrink: int = 1) -> Stamps:
    """Stamps of one file.

    Args:
      path: ``.npz`` with ``target`` (n, h, w) and, of real pairs, ``observed`` and ``psf``; with
        the ``image`` and ``psf`` of one galaxy; with ``luma``, a field whose sources are cut out;
        ``.npy`` or FITS with images (n, h, w) or one image.
      side: height and width of the stamps, cut from the middle of larger ones. Pairs must have
        it.
      shrink: pixels that are added up along each axis first; 1 keeps all. Not for pairs.

    Raises:
      UserError: another file, smaller images, or numbers that are not finite.
    """
    arrays = read_arrays(path)
    if "observed" in arrays:
        stamps = _pairs(arrays, side, path)
    elif "luma" in arrays:
        stamps = Stamps(_sources(arrays["luma"], side, shrink))
    elif found := {"target", "image"} & arrays.keys():
        stamps = Stamps(_cut(arrays[found.pop()], side, shrink, path))
    else:
        raise UserError(
            f"Expected one of the arrays target, image, luma in {path}, found "
            f"{', '.join(arrays) or 'none'}."
        )
    for name, value in stamps._asdict().items():
        if value is not None and not np.isfinite(value).all():
            raise UserError(f"Expected finite pixels, found others in {name} of {path}.")
    return stamps


def read_folder(folder: str | Path, side: int, shrink: int = 1) -> Stamps:
    """The stamps of all files of a folder, in the order of their names; see `read_stamps`.

    Raises:
      UserError: no folder, no such files, or pairs beside stamps without observations.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"Expected a folder of stamps, found none at {folder}.")
    endings = (".npz", ".npy", *ENDINGS)
    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(endings))
    if not files:
        raise UserError(f"Expected files .npz, .npy or .fits of stamps in {folder}, found none.")
    parts = [read_stamps(path, side, shrink) for path in files]
    paired = {part.observed is not None for part in parts}
    if len(paired) > 1:
        raise UserError(f"Expected either pairs or single stamps in {folder}, found both.")
    target = np.concatenate([part.target for part in parts])
    if parts[0].observed is None:
        return Stamps(target)
    observed, psf = (
        np.concatenate([np.asarray(getattr(part, name)) for part in parts])
        for name in ("observed", "psf")
    )
    return Stamps(target, observed, psf)


def _wanted(arrays: Arrays, name: str, path: str | Path) -> np.ndarray:
    if name not in arrays:
        found = ", ".join(arrays) or "none"
        raise UserError(f"Expected the array {name} in {path}, found {found}.")
    return np.asarray(arrays[name], np.float32)


def _pairs(arrays: Arrays, side: int, path: str | Path) -> Stamps:
    target, observed, psf = (_wanted(arrays, name, path) for name in ("target", "observed", "psf"))
    if psf.ndim == 2:
        psf = np.broadcast_to(psf, (len(target), *psf.shape))
    if (
        target.ndim != 3
        or observed.ndim != 3
        or len(observed) != len(target)
        or psf.shape != target.shape
        or target.shape[1:] != (side, side)
    ):
        raise UserError(
            f"Expected pairs target (n, {side}, {side}), observed (n, h, w) and psf of the shape "
            f"of target or of one stamp in {path}, found {target.shape}, {observed.shape}, "
            f"{psf.shape}."
        )
    return Stamps(target, observed, psf)


def _cut(images: np.ndarray, side: int, shrink: int, path: str | Path) -> np.ndarray:
    """Middles of images, after blocks of pixels are added up."""
    if images.ndim == 2:
        images = images[None]
    if images.ndim != 3 or min(images.shape[1:]) < side * shrink:
        raise UserError(
            f"Expected images (n, h, w) of at least {side * shrink} pixels, found {images.shape} "
            f"in {path}."
        )
    top, left = ((n - side * shrink) // 2 for n in images.shape[1:])
    cut = images[:, top : top + side * shrink, left : left + side * shrink]
    blocks = np.asarray(cut, np.float32).reshape(-1, side, shrink, side, shrink)
    return blocks.sum((2, 4))


def _sources(field: np.ndarray, side: int, shrink: int) -> np.ndarray:
    """Stamps around the brightest places of a field, none of which overlap."""
    h, w = (n // shrink for n in field.shape)
    image = np.asarray(field, np.float32)[: h * shrink, : w * shrink]
    image = image.reshape(h, shrink, w, shrink).sum((1, 3))
    if min(h, w) < side:
        raise UserError(f"Expected a field of at least {side} pixels, found {h} x {w}.")
    image = image - np.median(image)
    free = np.full(image.shape, -np.inf, np.float32)
    half = side // 2
    inside = (slice(half, h - side + half + 1), slice(half, w - side + half + 1))
    free[inside] = image[inside]
    out = []
    limit = 5 * 1.4826 * np.median(np.abs(image))
    while free.max() > limit:
        row, col = np.unravel_index(int(free.argmax()), free.shape)
        out.append(image[row - half : row - half + side, col - half : col - half + side])
        free[max(row - side, 0) : row + side, max(col - side, 0) : col + side] = -np.inf
    if not out:
        raise UserError("Expected sources in the field, found none.")
    return np.stack(out)


class Pairs(NamedTuple):
    """The same fields from the ground and from space, on grids of their own.

    Attributes:
      ground: bands of each field.
      ground_psf: of each band, at the pixel of the ground, with sum one.
      space: each field from space.
      space_psf: at the pixel of space, with sum one.
      affine: places in space are ``affine @ (x, y, 1)`` of places on the ground, x the column.
    """

    ground: Float[np.ndarray, "n b h w"]
    ground_psf: Float[np.ndarray, "b k l"]
    space: Float[np.ndarray, "n h2 w2"]
    space_psf: Float[np.ndarray, "k2 l2"]
    affine: Float[np.ndarray, "n 2 3"]

    def on_grid(self, band: int, factor: int, side: int) -> Stamps:
        """Stamps whose target has ``factor`` pixels along the side of one of the ground.

        Args:
          band: of the ground.
          factor: fine pixels per pixel of the ground.
          side: of the observed stamps, from the middle of the field.
        """
        from scipy.ndimage import map_coordinates

        top, left = ((n - side) // 2 for n in self.ground.shape[2:])
        observed = self.ground[:, band, top : top + side, left : left + side]
        # Middles of fine pixels in pixels of the ground, x and y.
        place = (np.arange(side * factor) + 0.5) / factor - 0.5
        targets = []
        for image, affine in zip(self.space, self.affine, strict=True):
            ratio = float(np.sqrt(abs(np.linalg.det(affine[:, :2])))) / factor
            x, y = np.meshgrid(place + left, place + top)
            # Mean over a few places inside every fine pixel, then its area: the flux stays.
            step = (np.arange(3) - 1) / 3 / factor
            value = np.mean(
                [
                    map_coordinates(image, _mapped(affine, x + dx, y + dy), order=1, mode="nearest")
                    for dx in step
                    for dy in step
                ],
                axis=0,
            )
            targets.append(value * ratio**2)
        shape = (side * factor, side * factor)
        psf = resample_psf(self.ground_psf[band], 1 / factor, shape)
        psf = np.broadcast_to(psf, (len(observed), *shape))
        return Stamps(*(np.asarray(a, np.float32) for a in (targets, observed, psf)))


def _mapped(affine: np.ndarray, x: np.ndarray, y: np.ndarray) -> Sequence[np.ndarray]:
    """Row and column in the image from space."""
    across, down = np.einsum("ij,jhw->ihw", affine, np.stack([x, y, np.ones_like(x)]))
    return [down, across]


def read_pairs(path: str | Path) -> Pairs:
    """Fields of Subaru's HSC and of HST.

    Args:
      path: an ``.npz`` file with ``hsc``, ``hst``, ``psf_hsc``, ``psf_hst``, ``hsc_to_hst_xy``.

    Raises:
      UserError: another file.
    """
    names = ("hsc", "psf_hsc", "hst", "psf_hst", "hsc_to_hst_xy")
    arrays = read_arrays(path)
    ground, ground_psf, space, space_psf, affine = (_wanted(arrays, n, path) for n in names)
    affine = np.asarray(arrays["hsc_to_hst_xy"], float)
    if ground.ndim != 4 or space.ndim != 3 or affine.shape != (len(space), 2, 3):
        raise UserError(
            f"Expected hsc (n, b, h, w), hst (n, h, w) and hsc_to_hst_xy (n, 2, 3) in {path}, "
            f"found {ground.shape}, {space.shape} and {affine.shape}."
        )
    ground_psf = ground_psf / ground_psf.sum((-2, -1), keepdims=True)
    return Pairs(ground, ground_psf, space, space_psf / space_psf.sum(), affine)


class Scene(NamedTuple):
    """A field in several bands.

    Attributes:
      images: in units of the survey.
      variance: of every pixel.
      psfs: of every band, at the pixel of the images, with sum one.
      bands: their names.
      sources: column and row of known sources.
    """

    images: Float[np.ndarray, "b h w"]
    variance: Float[np.ndarray, "b h w"]
    psfs: Float[np.ndarray, "b k l"]
    bands: tuple[str, ...]
    sources: Float[np.ndarray, "n 2"]


def read_scene(path: str | Path) -> Scene:
    """A field of Subaru's HSC.

    Args:
      path: an ``.npz`` file with ``images``, ``variance``, ``psfs``, ``filters``, ``catalog_xy``.

    Raises:
      UserError: another file.
    """
    arrays = read_arrays(path)
    names = ("images", "variance", "psfs", "catalog_xy")
    images, variance, psfs, sources = (_wanted(arrays, name, path) for name in names)
    if images.ndim != 3 or images.shape != variance.shape or len(psfs) != len(images):
        raise UserError(
            f"Expected images and variance (b, h, w) and psfs (b, k, l) in {path}, found "
            f"{images.shape}, {variance.shape} and {psfs.shape}."
        )
    bands = tuple(str(name) for name in arrays.get("filters", np.arange(len(images))))
    psfs = psfs / psfs.sum((-2, -1), keepdims=True)
    return Scene(images, variance, psfs, bands, sources)
