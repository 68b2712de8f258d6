"""Kill runs at random times (SIGKILL), go on with them, and compare the end to the last bit.

``kills.py toy 50`` kills 50 times and prints what it has seen as JSON. A run that ends before it is
killed is compared and begun anew; after the last kill one runs to its end.
"""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from plain_task import CFG, Heard, PlainTask, records

from jaxcore.data.images.kinds import CleanImages, Pairs
from jaxcore.data.images.pipeline import Stage
from jaxcore.estimators.studies import MonteCarloTask, run_study
from jaxcore.models.rddm import RDDMConfig
from jaxcore.train import EMAConfig, OptimConfig, checkpoint, fit
from jaxcore.train.tasks.diffusion import DiffusionTask
from jaxcore.train.tasks.restoration import RestorationTask
from tests.tiny_network import TinyConfig

assert checkpoint  # imported here, with Orbax, for all children: JAX starts in them only

Run = Callable[[Path, Heard], Any]  # in a run directory; returns arrays to compare

_CFG = dataclasses.replace(CFG, steps=12, save_every=1, log_every=3, eval_every=4, sample_every=6)


def _pictures(folder: Path, kinds: tuple[str, ...] = ("",)) -> str:
    rng = np.random.default_rng(0)
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name in "abc":
            pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{name}.png")
    return str(folder)


def _toy(where: Path) -> Run:
    return lambda run_dir, heard: _arrays(fit(PlainTask(), _CFG, run_dir, reporter=heard).state)


def _restoration(where: Path) -> Run:
    data = CleanImages(root=_pictures(where / "clean"), tasks=("noise25", "haze"), held_out=1)
    stages = (Stage(patch=16, batch_size=2),)
    task = RestorationTask(model="tiny", network=TinyConfig(), data=data, stages=stages)
    cfg = dataclasses.replace(
        _CFG, optim=OptimConfig(learning_rate=1e-3), best_metric="psnr", best_mode="max"
    )
    return lambda run_dir, heard: _arrays(fit(task, cfg, run_dir, reporter=heard).state)


def _diffusion(where: Path) -> Run:
    root = _pictures(where / "pairs", ("degraded", "clean"))
    unet = {"dim": 8, "dim_mults": (1,), "groups": 4}
    task = DiffusionTask(
        network=RDDMConfig.low_light(unet=unet, schedule={"timesteps": 10}),
        data=Pairs(root=root, held_out=1),
        stages=(Stage(patch=8, batch_size=4),),
        sample_steps=2,
    )
    cfg = dataclasses.replace(
        _CFG,
        optim=OptimConfig(name="adam", learning_rate=1e-3),
        accum_steps=2,
        ema=EMAConfig(decay=0.5),
        eval_every=8,
        sample_every=8,
        best_metric=None,
    )
    return lambda run_dir, heard: _arrays(fit(task, cfg, run_dir, reporter=heard).state)


def _study(where: Path) -> Run:
    task = MonteCarloTask(study="siv1", n=200, reps=61, block=2, options={"scenarios": ["all"]})

    def run(run_dir: Path, heard: Heard) -> Any:
        found = run_study(task, run_dir, save_every=1, reporter=heard)
        assert found is not None
        return [found.theta, found.se]

    return run


RUNS = {"toy": _toy, "restoration": _restoration, "diffusion": _diffusion, "study": _study}


def _arrays(state: Any) -> Any:
    import jax

    return jax.tree.leaves(dataclasses.replace(state, rng=jax.random.key_data(state.rng)))


def _child(run: Run, run_dir: Path, result: Path) -> None:
    """Run, and leave a fingerprint of the end."""
    code = 1
    try:
        heard = Heard()
        digest = hashlib.sha256()
        for array in run(run_dir, heard):
            digest.update(np.asarray(array).tobytes())
        seen = {"arrays": digest.hexdigest(), "records": records(run_dir)}
        damaged = [text for text in heard.messages if "damaged" in text]
        result.write_text(json.dumps({"seen": seen, "damaged": damaged}))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def kill(name: str, kills: int, where: Path) -> dict[str, int]:
    """Kill so many times; how many of all ends were equal to that of a run without a stop."""
    run, chance = RUNS[name](where), random.Random(0)
    result = where / "result"

    def go(run_dir: Path, patience: float | None) -> bool:
        """Start or go on; False when it was killed."""
        child = os.fork()
        if child == 0:
            _child(run, run_dir, result)
        if patience is not None:
            time.sleep(patience)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL), status
        return status == 0

    began = time.monotonic()
    assert go(where / "first", None)  # compiles
    first, began = time.monotonic() - began, time.monotonic()
    assert go(where / "straight", None)
    straight, length = result.read_text(), time.monotonic() - began
    print(f"{name}: {first:.1f} s, then {length:.1f} s a run", file=sys.stderr)
    killed = ends = equal = resumed = 0
    run_dir = where / "run"
    while killed < kills or run_dir.exists():
        resumed += run_dir.exists()
        last = killed == kills
        if go(run_dir, None if last else chance.uniform(0.1, 1.0) * length):
            ends += 1
            equal += result.read_text() == straight
            shutil.rmtree(run_dir)
        else:
            killed += 1
    return {"kills": killed, "resumed": resumed, "ends": ends, "equal": equal}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(kill(sys.argv[1], int(sys.argv[2]), Path(folder))))
