"""Reading and writing images in FITS files, through astropy.

Read are images of any HDU, plain or tile-compressed, of whole numbers (scaled by BSCALE and BZERO,
with BLANK) and floating point, in files that may be packed by gzip, bzip2 or xz as a whole. Pixels
arrive as floats in the order of the machine, NaN where the file has no value. Nothing is mapped
into memory. What an HDU announces is compared with the file and with `MAX_BYTES` before memory is
taken for it; a few kilobytes cannot ask for more than `RATIO` times themselves.
"""

import bz2
import contextlib
import dataclasses
import gzip
import io
import lzma
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcore.atomic import whole_file
from jaxcore.errors import UserError, readable
from jaxcore.json_files import read_at_most

MAX_BYTES = 2**30
"""Bytes that the pixels of an image may take as float32: 1 GiB is 16,384 x 16,384 pixels."""
RATIO, LEAST = 1000, 2**23
"""What a compressed file may unpack to: so many times its bytes, and 8 MiB."""
ENDINGS = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz")
"""Names of FITS files in a folder."""

_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}  # first bytes -> what unpacks
# What no longer holds once pixels are computed anew; NAXIS and BITPIX astropy sets itself.
_STALE = ("BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM", "DATAMIN", "DATAMAX", "ZHECKSUM")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FitsImage:
    """The image of one HDU.

    Attributes:
      pixels: (..., height, width), floating point, NaN where the file has no value; rows go up on
        the sky as the file has them, nothing is flipped.
      header: its cards (``astropy.io.fits.Header``), a copy.
      primary: cards of the file's first HDU, where the image stands in another; else None.
      hdu: number of the HDU.
      path: the file.
      notes: sentences on what was left out.
    """

    pixels: Float[np.ndarray, "*b h w"]
    header: Any
    primary: Any = None
    hdu: int = 0
    path: Path = Path()
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What BUNIT says; "" without it."""
        value = self.header.get("BUNIT", "")
        return value.strip() if isinstance(value, str) else ""

    @property
    def where(self) -> str:
        """HDU and file, for messages."""
        return f"{_name(self.hdu, self.header)} of {self.path.name}"


def astropy_fits() -> Any:
    """The module ``astropy.io.fits``.

    Raises:
      UserError: astropy is not installed.
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise UserError(
            "Expected astropy for FITS files (pip install 'jaxcore[astro]'), found it is not "
            "installed."
        ) from None
    return fits


def _name(number: int, header: Any) -> str:
    name = str(header.get("EXTNAME", "")).strip()
    return f"HDU {number} ({readable(name, 30)})" if name else f"HDU {number}"


def read_fits(
    path: str | Path,
    hdu: int | str | None = None,
    *,
    what: str = "an image",
    max_bytes: int = MAX_BYTES,
) -> FitsImage:
    """Read the image of an HDU.

    Args:
      path: the file.
      hdu: its number, or its EXTNAME (with ``,2`` for the second of that name); None for the
        first that holds an image.
      what: what it is, for messages.
      max_bytes: that the pixels may take as float32.

    Raises:
      UserError: no such file or HDU, no FITS, damaged, a table, or too large.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "a.fits")
    >>> write_fits(path, [FitsImage(pixels=np.eye(3), header=astropy_fits().Header())])
    >>> read_fits(path).pixels.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    >>> folder.cleanup()
    """
    path = Path(path)
    with _opened(path, what, max_bytes) as (file, size):
        number, found = _choose(file, hdu, path, what, size)
        return _image(file, number, found, path, what, (max_bytes, size))


@contextlib.contextmanager
def _opened(path: Path, what: str, max_bytes: int) -> Iterator[tuple[Any, int]]:
    """The HDUs of a file, and how many bytes it has when it is not packed."""
    fits = astropy_fits()
    if not path.is_file():
        found = "something other than a file" if path.exists() else "no such file"
        raise UserError(f"Expected {what} in the FITS file {path}, found {found}.")
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")  # what is wrong is said below, or does not matter
        try:
            stream = stack.enter_context(path.open("rb"))
            start, size = stream.read(6), path.stat().st_size
            stream.seek(0)
            unpack = next((f for magic, f in _PACKED.items() if start.startswith(magic)), None)
            if unpack is not None:
                limit = min(2 * max_bytes, RATIO * size + LEAST)
                content = read_at_most(unpack(stream), limit + 1)
                if len(content) > limit:
                    raise UserError(f"Expected at most {limit:,} bytes in {path}, found more.")
                stream, size = io.BytesIO(content), len(content)
            if stream.read(9) != b"SIMPLE  =":
                raise UserError(f"Expected {what} in a FITS file, found another kind: {path}.")
            stream.seek(0)
            options: dict[str, Any] = {"memmap": False, "lazy_load_hdus": True}
            file = fits.open(stream, **options, do_not_scale_image_data=True)
            stack.callback(file.close)
            yield file, size
        except UserError:
            raise
        except Exception as error:  # astropy's are of a dozen kinds, for damaged files
            raise UserError(
                f"Expected {what} in the FITS file {path}, found that it is damaged "
                f"({readable(str(error) or type(error).__name__)})."
            ) from None


def _hdus(file: Any, size: int, path: Path) -> Iterator[tuple[int, Any]]:
    """HDUs one by one; none is passed whose data would end behind the file."""
    number = 0
    while True:
        try:
            found = file[number]
        except IndexError:
            return
        held = getattr(found, "_bintable", None) or found  # tiles stand in a table
        start, length = (held.fileinfo() or {}).get("datLoc", 0), int(held.size)
        if length < 0 or start + length > size:
            raise UserError(
                f"Expected {length:,} bytes of data in {_name(number, found.header)}, as its "
                f"header says, found that {path} ends before: it is cut off."
            )
        yield number, found
        number += 1


def _is_image(found: Any) -> bool:
    return bool(found.is_image) and len(found.shape) >= 2 and 0 not in found.shape


def _choose(file: Any, hdu: int | str | None, path: Path, what: str, size: int) -> tuple[int, Any]:
    """The HDU that is wanted."""
    seen: list[tuple[int, Any]] = []
    name, _, version = str(hdu).partition(",")
    number = int(name) if hdu is not None and re.fullmatch(r"\d{1,6}", name.strip()) else None
    for index, found in _hdus(file, size, path):
        seen.append((index, found))
        title = str(found.header.get("EXTNAME", "")).strip().upper()
        if hdu is None:
            if _is_image(found):
                return index, found
        elif number is not None:
            if index == number:
                break
        elif title == name.strip().upper() or (index == 0 and name.strip().upper() == "PRIMARY"):
            if not version or str(found.header.get("EXTVER", 1)) == version.strip():
                break
    else:
        raise UserError(
            f"Expected {what} in {path}, found "
            + (f"no HDU {readable(str(hdu))}; " if hdu is not None else "")
            + f"{_list(seen)}."
        )
    index, found = seen[-1]
    if not _is_image(found):
        seen += [more for more in _hdus(file, size, path) if more[0] > index]
        kind = "no pixels" if found.is_image else "a table"
        raise UserError(
            f"Expected {what} in {_name(index, found.header)} of {path}, found {kind}; "
            f"{_list(seen)}."
        )
    return index, found


def _list(seen: Sequence[tuple[int, Any]]) -> str:
    images = [_name(number, one.header) for number, one in seen if _is_image(one)]
    if not images:
        return "no HDU holds an image"
    shown = ", ".join(images[:8]) + (", ..." if len(images) > 8 else "")
    return f"images are in {shown}"


def _image(
    file: Any, number: int, found: Any, path: Path, what: str, bounds: tuple[int, int]
) -> FitsImage:
    max_bytes, size = bounds
    where = f"{_name(number, found.header)} of {path}"
    count = math.prod(int(n) for n in found.shape)
    packed = hasattr(found, "compression_type")
    if packed:
        _check_tiles(found, where)
        max_bytes = min(max_bytes, RATIO * size + LEAST)
    if 4 * count > max_bytes:
        sides = " x ".join(str(n) for n in found.shape[:6])
        raise UserError(
            f"Expected {what} of at most {max_bytes:,} bytes, found {sides} pixels in {where}."
        )
    found.verify("silentfix+ignore")
    header, lost = _readable_cards(found.header)
    scale, zero = _number(header, "BSCALE", 1, where), _number(header, "BZERO", 0, where)
    raw = found.data
    if raw is None or raw.shape != tuple(found.shape):
        raise UserError(f"Expected pixels in {where}, found none that can be read.")
    narrow = raw.dtype.kind == "f" and raw.dtype.itemsize == 4 and (scale, zero) == (1, 0)
    pixels = raw.astype(np.float32 if narrow else np.float64)
    if (scale, zero) != (1, 0):
        pixels = pixels * scale + zero
    blank = header.get("BLANK", header.get("ZBLANK"))
    if raw.dtype.kind in "iu" and isinstance(blank, int):
        pixels[raw == blank] = np.nan
    primary = None if number == 0 else _readable_cards(file[0].header)[0]
    notes = (f"{where}: cards that cannot be read are left out: {lost}.",) if lost else ()
    cards = {"header": header, "primary": primary, "hdu": number}
    return FitsImage(pixels=pixels, path=path, notes=notes, **cards)


def _readable_cards(header: Any) -> tuple[Any, str]:
    """A copy without cards that astropy cannot make sense of, and their names."""
    header, lost = header.copy(), []
    for index in reversed(range(len(header.cards))):
        try:
            _ = header.cards[index].keyword, header.cards[index].value
        except Exception:  # as above
            lost.append(readable(str(header.cards[index])[:8].strip()))
            del header[index]
    return header, ", ".join(reversed(lost))


def _check_tiles(found: Any, where: str) -> None:
    """That a compressed image has the tiles its size asks for, none larger than the image."""
    shape, tile = tuple(found.shape), tuple(found.tile_shape)
    fits = len(tile) == len(shape) and all(0 < t <= n for t, n in zip(tile, shape, strict=True))
    needed = math.prod(-(-n // t) for n, t in zip(shape, tile, strict=False)) if fits else 0
    rows = int(found._bintable.header.get("NAXIS2", -1)) if fits else -1
    if not fits or needed != rows:
        raise UserError(
            f"Expected a compressed image in {where}, found that its tiles are damaged."
        )


def _number(header: Any, name: str, default: float, where: str) -> float:
    value = header.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"Expected a number for {name} in {where}, found {readable(repr(value))}.")
    return float(value)


def write_fits(
    path: str | Path,
    images: Sequence[FitsImage],
    history: Sequence[str] = (),
    *,
    tables: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    overwrite: bool = False,
) -> None:
    """Write images as float32; the file appears whole or not at all.

    An image of the first HDU stays there, others follow in the order given, then tables.

    Args:
      path: the file; packed if its name ends in ``.gz``.
      images: at least one.
      history: lines for HISTORY of every image.
      tables: EXTNAME -> name of a column -> its values.
      overwrite: replace a file.

    Raises:
      UserError: the file exists, or cannot be written.
    """
    fits, path = astropy_fits(), Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdus: list[Any] = []
        for image in images:
            header = _fresh(image.header)
            for line in history:
                header.add_history(_ascii(line))
            if not hdus and image.hdu == 0:
                hdus.append(fits.PrimaryHDU(np.asarray(image.pixels, np.float32), header))
                continue
            if not hdus:
                hdus.append(fits.PrimaryHDU(header=_fresh(image.primary or fits.Header())))
            hdus.append(fits.ImageHDU(np.asarray(image.pixels, np.float32), header))
        for name, columns in (tables or {}).items():
            made = [
                fits.Column(column, "J" if values.dtype.kind in "iu" else "D", array=values)
                for column, values in columns.items()
            ]
            hdus.append(fits.BinTableHDU.from_columns(made, name=name))
        with whole_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
            target: Any = stream
            if path.suffix == ".gz":
                target = gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0)
            buffer = io.BytesIO()
            fits.HDUList(hdus).writeto(buffer, output_verify="silentfix+ignore")
            target.write(buffer.getbuffer())
            if target is not stream:
                target.close()


def _fresh(header: Any) -> Any:
    """Cards without what new pixels make wrong."""
    header = header.copy()
    for name in _STALE:
        header.remove(name, ignore_missing=True, remove_all=True)
    return header


def _ascii(line: str) -> str:
    return readable(line, 2000).encode("ascii", "backslashreplace").decode()
