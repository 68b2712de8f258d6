"""Files of strangers, damaged at random: a value or one sentence, in bounded time and memory."""

import gzip
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from jaxcore.convert import read_state_dict, write_safetensors, write_torch
from jaxcore.data.astro import read_fits, regrid
from jaxcore.data.images import read_image
from jaxcore.data.images.pack import pack
from jaxcore.data.images.tfds import tfds_source
from jaxcore.data.table_files import read_table
from jaxcore.errors import UserError
from jaxcore.train import read_config
from jaxcore.train.records import read_metrics_file
from tests.gguf_files import write_gguf

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (24, 20, 3), np.uint8)
TENSORS = {
    "first.weight": RNG.normal(size=(3, 4)).astype(np.float32),
    "second.bias": np.arange(5),
    "mask": np.array([True, False]),
}
LEGACY = Path(__file__).parent / "convert/torch_files"

SECONDS = 5  # of processor time that one read may take
TIMES, CONSTANT = 50, 2**26  # bytes that it may take: so many times the file, and 64 MiB


class Kind(NamedTuple):
    """A valid file, the one of its parts that is damaged, and what reads it."""

    write: Callable[[Path], Any]
    name: str
    read: Callable[[Path], Any]


def weights(path):
    return {name: np.asarray(tensor) for name, tensor in read_state_dict(path).tensors.items()}


def columns(path):
    table = read_table(path)
    return [table.values(name) for name in table.names]


def read_picture(path):
    return read_image(path, max_bytes=2**22)


def tfds_part(name):
    """A file of a packed data set."""

    def write(path):
        folder = path.parents[2] / "folder"
        for part in ("degraded", "clean"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(PICTURE).save(folder / part / "a.png")
        pack(folder, path.parents[1], overwrite=True)

    return Kind(
        write, f"pairs/1.0.0/{name}", lambda p: tfds_source("pairs", p.parents[2], "train")[0]
    )


def write_parquet(path):
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table({"y": [1.5, 2.5, None], "who": ["ann", None, "ann"], "when": [1, 2, 3]})
    pyarrow.parquet.write_table(table, path)


def fits(kind, pack=bytes):
    """An image behind a table, with coordinates, plain or in compressed tiles."""

    def write(path):
        from astropy.io import fits

        pixels = RNG.normal(size=(24, 20)).astype(np.float32)
        table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=pixels[0])])
        image = getattr(fits, kind)(pixels, name="SCI")
        image.header.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CDELT1=-1e-4, CDELT2=1e-4)
        with path.open("wb") as stream:
            fits.HDUList([fits.PrimaryHDU(), table, image]).writeto(stream)
        path.write_bytes(pack(path.read_bytes()))

    def read(path):
        image = read_fits(path)
        return image.pixels, regrid(image.header, factor=2)

    return Kind(write, "a.fits", read)


def write_index(path):
    write_safetensors(path.parent / "a.safetensors", TENSORS)
    names = ", ".join(f'"{name}": "a.safetensors"' for name in TENSORS)
    path.write_text(f'{{"metadata": {{}}, "weight_map": {{{names}}}}}')


def picture(kind):
    def write(path):
        Image.fromarray(PICTURE).save(path, kind)

    return Kind(write, "a.img", read_picture)


def text(content, name, read):
    return Kind(lambda path: path.write_text(content), name, read)


CONFIG = '{"task": "t", "task_config": {"a": [1, 2]}, "train": {"steps": 3}, "extra": {}}'
KINDS = {
    "safetensors": Kind(lambda p: write_safetensors(p, TENSORS, {"a": "b"}), "a.bin", weights),
    "index": Kind(write_index, "model.safetensors.index.json", weights),
    "GGUF": Kind(write_gguf, "a.gguf", weights),
    "torch": Kind(lambda p: write_torch(p, TENSORS, wrap="net"), "a.pth", weights),
    "legacy torch": Kind(
        lambda p: p.write_bytes((LEGACY / "kinds_legacy.pth").read_bytes()), "a.pth", weights
    ),
    **{kind: picture(kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM")},
    "NPY": Kind(lambda p: p.write_bytes(_npy(p)), "a.img", read_picture),
    "FITS": fits("ImageHDU"),
    "FITS in tiles": fits("CompImageHDU"),
    "FITS in gzip": fits("ImageHDU", gzip.compress),
    "csv": text("y,a,who\n1.5,1,ann\n2.5,,bob\n", "t.csv", columns),
    "parquet": Kind(write_parquet, "t.parquet", columns),
    "features": tfds_part("features.json"),
    "description": tfds_part("dataset_info.json"),
    "array record": tfds_part("pairs-train.array_record-00000"),
    "settings": text(CONFIG, "config.json", lambda path: read_config(path.parent)),
    "records": text('{"step": 1, "loss": 0.5}\n{"step": 2}\n', "metrics.jsonl", read_metrics_file),
}


def _npy(path):
    np.save(path.with_suffix(".npy"), PICTURE)
    return path.with_suffix(".npy").read_bytes()


def damaged(content, rng):
    """Bytes changed, cut off, repeated or put in."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.random() ** 2 * len(out))  # mostly near the start, where headers are
        match rng.integers(5):
            case 0:
                out[place : place + 1] = rng.bytes(1)
            case 1 if out:
                out[place % len(out)] ^= 1 << int(rng.integers(8))
            case 2:
                del out[place:]
            case 3:
                out[place:place] = out[place : place + int(rng.integers(1, 200))]
            case 4:
                out[place : place + 8] = (2 ** int(rng.integers(64))).to_bytes(8, "little")
    return bytes(out)


def check(kind, folder, rounds, seed=0):
    folder.mkdir(exist_ok=True)
    path = folder / kind.name
    kind.write(path)
    kind.read(path)  # it is valid, and what the libraries load stays loaded
    content, rng, refused = path.read_bytes(), np.random.default_rng(seed), 0
    tracemalloc.start()
    try:
        for number in range(rounds):
            path.write_bytes(damaged(content, rng))
            allowed = TIMES * path.stat().st_size + CONSTANT + tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            began = time.process_time()
            try:
                kind.read(path)
            except UserError as error:
                refused += 1
                assert str(error).isprintable(), f"round {number}: {error!r}"
            assert time.process_time() - began < SECONDS, f"round {number} took long"
            assert tracemalloc.get_traced_memory()[1] < allowed, f"round {number} took much memory"
    finally:
        tracemalloc.stop()
    return refused


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_give_a_value_or_a_sentence(tmp_path, name):
    assert check(KINDS[name], tmp_path / "files", 60) > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_thousands_of_damaged_files_give_a_value_or_a_sentence(tmp_path, name):
    for seed in range(1, 4):
        check(KINDS[name], tmp_path / str(seed), 2000, seed)
