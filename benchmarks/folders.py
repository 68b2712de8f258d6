"""How near `jaxcore restore FOLDER` comes to the rate of the network itself.

A folder of photographs of many sizes (crops of those of `jaxcore demo`, as JPEG) is restored in
three ways, in turns in one process, all programs compiled before:

* ``network``: the pictures are in memory already, and nothing is written;
* ``folder``: as `jaxcore restore FOLDER` does it, reading and writing while the network works;
* ``one_by_one``: read, restore, write, and only then the next one.

``of_network`` is the rate beside that of the network, by the clock; ``processor_of_network`` is the
same by processor time, which other work on the machine changes little.

    python -m benchmarks.folders            # 3 minutes on 2 cores
    python -m benchmarks.folders --smoke    # four small pictures
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks.harness import RESULTS, interleaved, limits, record_parts, say
from jaxcore import registry
from jaxcore.cli.restoring import Job, header_sizes, restore_many, restore_one, runner
from jaxcore.data.images import read_image, write_image
from jaxcore.data.images.photos import demo_photos
from jaxcore.models.dea_net import DEANetConfig
from jaxcore.weights import NOISE, Loaded, load

PARTS = {"noise": (8, 3), "dea_net": (24, 7)}  # pictures, turns
_SIDES = (200, 420)  # pixels
_OPTIONS = {"tile": 0, "overlap": 32, "ensemble": False, "bucket": None}
_TURNS = ("network", "folder", "one_by_one")


def network(name: str) -> Loaded:
    """The weights that come with the library, or a small DEA-Net with random ones.

    The second is the quickest network here, which is the harder case for what surrounds it.
    """
    if name == "noise":
        return load(NOISE.name)
    chosen, cfg = registry.network("dea_net"), DEANetConfig.tiny()
    return Loaded(chosen, cfg, chosen.init(jax.random.key(0), cfg))


def pictures(folder: Path, count: int, sides: tuple[int, int]) -> list[Job]:
    """Crops of photographs, of sides that are drawn between two, and what becomes of them."""
    rng, (train, held_out) = np.random.default_rng(0), demo_photos()
    photos = [photo.image for photo in (*train, *held_out)]
    jobs = []
    for i in range(count):
        image = photos[i % len(photos)]
        height, width = (int(rng.integers(*sides)) for _ in range(2))
        top = int(rng.integers(0, max(1, image.shape[0] - height)))
        left = int(rng.integers(0, max(1, image.shape[1] - width)))
        crop = image[top : top + height, left : left + width]
        source = folder / "in" / f"{i:03}.jpg"
        source.parent.mkdir(exist_ok=True)
        write_image(source, crop / np.float32(255))
        jobs.append(Job(source, folder / "out" / source.name))
    return jobs


def ways(jobs: list[Job], loaded: Loaded) -> dict[str, Callable[[], Any]]:
    """Each restores all pictures once."""
    run = runner(loaded, _OPTIONS, header_sizes(jobs), several=True)
    held = [read_image(job.source).unit() for job in jobs]

    def network() -> None:
        for pixels in held:
            run(pixels, None)

    def folder() -> None:
        summary = restore_many(jobs, run, overwrite=True)
        assert summary.restored == len(jobs), summary.failures

    def one_by_one() -> None:
        for job in jobs:
            restore_one(job, run, overwrite=True)

    return dict(zip(_TURNS, (network, folder, one_by_one), strict=True))


def _watched(call: Callable[[], Any], spent: list[float]) -> Callable[[], Any]:
    """The call, noting the processor time it takes."""

    def run() -> None:
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)

    return run


def measure(name: str, *, count: int, sides: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Seconds of each way, and images per second beside those of the network."""
    with tempfile.TemporaryDirectory() as place:
        jobs = pictures(Path(place), count, sides)
        (Path(place) / "out").mkdir()
        sizes = sorted(set(header_sizes(jobs)))
        calls = ways(jobs, network(name))
        began = time.perf_counter()
        calls["network"]()
        first = time.perf_counter() - began
        spent: dict[str, list[float]] = {way: [] for way in calls}
        watched = {way: _watched(call, spent[way]) for way, call in calls.items()}
        times = interleaved(watched, repeats)
    for way, found in times.items():
        found["processor_s"] = round(float(np.median(spent[way])), 3)
        found["images_s"] = round(count / found["median_s"], 3)
        for share, of in (("of_network", "median_s"), ("processor_of_network", "processor_s")):
            found[share] = round(times["network"][of] / max(found[of], 1e-9), 3)
    say(", ".join(f"{way} {found['images_s']} images/s" for way, found in times.items()))
    megapixels = sum(width * height for width, height in sizes) / 1e6
    about = {"pictures": count, "sizes": len(sizes), "megapixels": round(megapixels, 2)}
    compiling = round(first - times["network"]["median_s"], 2)
    return {**about, "compile_s": compiling, "times": times, **limits("matrix_product_gflop_s")}


def main(
    smoke: bool = False,
    output: Path = RESULTS / "folders.json",
    parts: tuple[str, ...] = tuple(PARTS),
) -> None:
    """Measure and write JSON.

    Args:
      smoke: four small pictures, once.
      output: where.
      parts: which of photos, dea_net.
    """

    def run(name: str) -> dict[str, Any]:
        say(name)
        count, repeats = (4, 1) if smoke else PARTS[name]
        sides = (60, 120) if smoke else _SIDES
        return {"smoke": smoke, **measure(name, count=count, sides=sides, repeats=repeats)}

    record_parts(output, parts, run, "pillow")


if __name__ == "__main__":
    tyro.cli(main)
