"""The photographs that the shipped weights are trained on, from Debian packages.

``photographs.json`` lists packages with their SHA-256, pictures, authors and licences (public
domain or attribution only, as the packages state them). None of them is in a package whose
pictures anything is measured on. The result is a folder of WebP files without loss: of every
photograph the most detailed square at half of its size, and the whole one, smaller. The reductions
take the artefacts of JPEG away. Three grey pages of printed text come with them.

    python -m benchmarks.photographs FOLDER
"""

import hashlib
import io
import itertools
import json
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache/jaxcore/photographs"
SQUARE = 464  # side of the most detailed square, pixels
WHOLE = 350  # smaller side of the whole picture, pixels
PAGES = (14, 20, 30)  # heights of letters, pixels


def main(
    folder: tyro.conf.Positional[Path],
    cache: Path = CACHE,
) -> None:
    """Fetch the packages, check them, cut the pictures.

    Args:
      folder: receives the pictures.
      cache: keeps the packages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in json.loads((HERE / "photographs.json").read_text())["packages"]:
        files = _files(_fetch(package["url"], package["sha256"], cache))
        for name in package["pictures"]:
            picture = Image.open(io.BytesIO(files[f"./{package['folder']}/{name}"])).convert("RGB")
            for ending, part in _parts(picture).items():
                _save(part, folder / f"{Path(name).stem}-{ending}")
            print(f"{name}  {package['licence']}  {package['by']}", flush=True)
    words = (HERE.parent / "LICENSE").read_text().split()
    for size in PAGES:
        _save(_page(words, size), folder / f"page-{size}")


def _fetch(url: str, sha256: str, cache: Path) -> bytes:
    kept = cache / url.rpartition("/")[-1]
    if kept.exists():
        content = kept.read_bytes()
    else:
        with urllib.request.urlopen(url, timeout=300) as answer:
            content = answer.read()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SystemExit(f"Expected {url} with SHA-256 {sha256}, found {found}.")
    cache.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content)
    return content


def _files(package: bytes) -> dict[str, bytes]:
    """Files of a Debian package: an ``ar`` archive whose last member is a tar archive."""
    at = len(b"!<arch>\n")
    while not package[at:].startswith(b"data.tar"):
        size = int(package[at + 48 : at + 58])
        at += 60 + size + size % 2
    size = int(package[at + 48 : at + 58])
    with tarfile.open(fileobj=io.BytesIO(package[at + 60 : at + 60 + size])) as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
        return {m.name: file.read() for m in members if (file := archive.extractfile(m))}


def _save(picture: Image.Image, path: Path) -> None:
    picture.save(path.with_suffix(".webp"), lossless=True, quality=100, method=4, exact=True)


def _parts(picture: Image.Image) -> dict[str, Image.Image]:
    whole = picture.reduce(max(2, round(min(picture.size) / WHOLE)))
    return {"square": _most_detailed(picture.reduce(2), SQUARE), "whole": whole}


def _most_detailed(picture: Image.Image, side: int) -> Image.Image:
    grey = np.asarray(picture.convert("L"), np.float32)
    change = np.abs(np.diff(grey, axis=0))[:, 1:] + np.abs(np.diff(grey, axis=1))[1:]
    sums = np.pad(np.minimum(change, 40).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    high, wide = (min(side, n) for n in change.shape)
    inside = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return picture.crop((int(left), int(top), int(left) + wide, int(top) + high))


def _page(words: list[str], size: int) -> Image.Image:
    """Grey print on paper that is lit from one side."""
    side, font = 512, ImageFont.load_default(size)
    page = Image.new("L", (2 * side, 2 * side), 255)
    draw, rest = ImageDraw.Draw(page), itertools.cycle(words)
    for top in range(size, 2 * side - 2 * size, 3 * size // 2):
        line = " ".join(word for word, _ in zip(rest, range(3 * side // (2 * size)), strict=False))
        draw.text((2 * size, top), line, fill=40, font=font)
    light = np.linspace(0.75, 1, side)[:, None] * np.linspace(0.9, 1, side)
    grey = np.round(np.asarray(page.reduce(2)) * light).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[..., None], 3, axis=-1))


if __name__ == "__main__":
    tyro.cli(main)
