"""The weights that come with jaxcore: made, and measured, by one command.

    python -m benchmarks.shipped_weights

fetches the photographs (`benchmarks.photographs`), trains (`jaxcore train adair_photos` for noise,
`dea_net_photos` for haze; minutes on a GPU, hours on a CPU, goes on where it stopped), writes
``noise.safetensors`` and ``haze.safetensors`` into ``jaxcore/weights`` and measures them. Parts are
named to run them alone.

Measured is on pictures from other packages than those of the training: scikit-image and
scikit-learn. Noise is the protocol's, clipped and 8-bit, with sigma 15, 25 and 50; haze is that of
`jaxcore demo`; "clean" is the picture itself, which should come out of the network for noise as it
went in. Rivals see the same pictures and are told the sigma, which the network is not.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.dark_channel import dehaze
from benchmarks.harness import RESULTS, environment, say, write
from jaxcore.convert import write_safetensors
from jaxcore.data.images.crops import to_float
from jaxcore.data.images.degradations import CLEAN
from jaxcore.data.images.pipeline import evaluation_samples
from jaxcore.data.images.sources import ArraySource, Group
from jaxcore.data.images.write import write_image
from jaxcore.metrics import PROTOCOLS
from jaxcore.train.tasks.images import Restored, comparison
from jaxcore.weights import HAZE, NOISE, Shipped, describe, load

HELD_OUT = ("astronaut", "chelsea", "coffee", "rocket")  # of scikit-image
SAMPLES = ("china", "flower")  # of scikit-learn
PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "immunohistochemistry", "moon", "page", "retina", "rocket", "text"),
)
SHOWN = ("chelsea", "flower", "china")
SIDE = 288  # of the central square that is measured for noise and haze, pixels
MOST = 640  # the same for clean photographs
LICENCE = "Apache-2.0; trained on photographs of CC0 and CC BY 4.0, listed in jaxcore/weights"
Part = Literal["photographs", "train", "package", "scores"]
MADE = {NOISE.name: (NOISE, "adair_photos"), HAZE.name: (HAZE, "dea_net_photos")}


def main(
    parts: tyro.conf.Positional[tuple[Part, ...]] = (),
    work: Path = Path("runs/photos"),
    only: tuple[Literal["noise", "haze"], ...] = ("noise", "haze"),
    trained: Path | None = None,
    options: tuple[str, ...] = (),
    again: bool = False,
    out: Path = RESULTS,
) -> None:
    """Make and measure the shipped weights.

    Args:
      parts: photographs, train, package, scores; all of them, in this order, without any.
      work: folder of the photographs and of the run.
      only: train and package these.
      trained: run or weight file to package, if it was trained elsewhere.
      options: further ones of the training, such as --train.steps 20000.
      again: take the figures of the rivals, on which weights have no bearing, from the results.
      out: folder of the results.
    """
    chosen = parts or ("photographs", "train", "package", "scores")
    photographs = work / "photographs"
    if "photographs" in chosen:
        _python("benchmarks.photographs", photographs)
    for name in only:
        own, recipe = MADE[name]
        if "train" in chosen:
            words = ("--data.root", photographs, "-o", work / name, *options)
            _python("jaxcore", "train", recipe, *words)
        if "package" in chosen:
            package(own, trained or work / name, out)
    if "scores" in chosen:
        scores(out, again=again)


def _python(*words: object) -> None:
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)


def package(own: Shipped, trained: Path, out: Path) -> None:
    """Write weights with 16 bits each into the library, and how a run came to them."""
    found = load(trained)
    cfg = dataclasses.replace(found.cfg, dtype="float32")
    tensors = found.network.to_torch(found.params, cfg)
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    about = {**describe(found.network, cfg), "format": "pt", "licence": LICENCE}
    path = own.path
    write_safetensors(path, halves, about, overwrite=True)
    say(f"{path}: {sum(v.size for v in halves.values()):,} parameters, {path.stat().st_size:,} B")
    if trained.is_dir():
        training = json.loads((trained / "config.json").read_text())
        data = training["task_config"]["data"]
        data["root"] = Path(data["root"]).name  # where it was is nobody's business
        lines = (trained / "metrics.jsonl").read_text().splitlines()
        made = {**training, "log": [json.loads(line) for line in lines]}
        write(made, out / f"shipped_weights_{own.name}.json")


def scores(out: Path, *, again: bool = False) -> None:
    """Measure the packaged weights beside rivals."""
    loaded = {name: load(name) for name in MADE}

    def ours(image: np.ndarray, name: str = NOISE.name) -> np.ndarray:
        found = loaded[name]
        return found.network.restore(found.params, image, found.cfg, bucket=64)

    file = out / "shipped_weights.json"
    known = json.loads(file.read_text())["pictures"] if again else {}
    result: dict[str, Any] = {"weights": list(MADE), "side": SIDE, "pictures": {}}
    source = ArraySource({name: _photo(name) for name in (*HELD_OUT, *SAMPLES)})
    shown = []
    for task in ("noise15", "noise25", "noise50", "haze"):
        rivals = {} if task in known else _rivals(task)
        group = Group(task, source, degradation=task)
        for sample in evaluation_samples(group, side=SIDE):
            degraded, clean = sample["degraded"], sample["clean"]
            name = HAZE.name if task == "haze" else NOISE.name
            made = {"input": degraded, "jaxcore": ours(degraded, name)}
            made |= {name: rival(degraded) for name, rival in rivals.items()}
            figures = {name: _quality(image, clean) for name, image in made.items()}
            figures = known.get(task, {}).get(sample["name"], {}) | figures
            result["pictures"].setdefault(task, {})[sample["name"]] = figures
            if sample["name"] in SHOWN and task != "noise15":
                restored = np.clip(made["jaxcore"], 0, 1)
                shown.append(Restored(task, sample["name"], degraded, restored, clean))
        say(f"{task}: {_means(result['pictures'][task])}")
    clean = {}
    for name, image in _clean_photographs():
        clean[name] = _quality(ours(image), image)
        say(f"{CLEAN} {name}: {clean[name]['psnr']:.2f} dB")
    result["means"] = {task: _means(found) for task, found in result["pictures"].items()}
    result[CLEAN] = clean
    result["environment"] = environment("bm3d", "scikit-image")
    write(result, file)
    picture = comparison(iter(shown)) / np.float32(255)
    write_image(out / "shipped_weights.png", picture, overwrite=True)


def _photo(name: str) -> np.ndarray:
    import skimage.data
    from sklearn.datasets import load_sample_image

    if name in SAMPLES:
        return load_sample_image(f"{name}.jpg")
    image = np.asarray(getattr(skimage.data, name)())
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)


def _clean_photographs() -> Iterator[tuple[str, np.ndarray]]:
    for name in PHOTOGRAPHS:
        image = _photo(name)
        top, left = (max(n - MOST, 0) // 2 for n in image.shape[:2])
        yield name, to_float(image[top : top + MOST, left : left + MOST])


def _rivals(task: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    if task == "haze":
        return {"dark_channel": dehaze}
    import bm3d
    from skimage.restoration import denoise_nl_means

    sigma = int(task.removeprefix("noise")) / 255
    means = {"h": 0.8 * sigma, "sigma": sigma, "patch_size": 5, "patch_distance": 6}
    return {
        "bm3d": lambda image: bm3d.bm3d_rgb(image, sigma),
        "nl_means": lambda image: denoise_nl_means(image, channel_axis=-1, **means),
    }


def _quality(image: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    import jax.numpy as jnp

    pair = jnp.asarray(np.clip(image, 0, 1), jnp.float32), jnp.asarray(clean)
    psnr, ssim = (float(metric(*pair)) for metric in PROTOCOLS["rgb"])
    return {"psnr": round(psnr, 3), "ssim": round(ssim, 4)}


def _means(found: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    methods = next(iter(found.values()))
    return {
        method: {
            key: round(float(np.mean([row[method][key] for row in found.values()])), 3)
            for key in ("psnr", "ssim")
        }
        for method in methods
    }


if __name__ == "__main__":
    tyro.cli(main)
