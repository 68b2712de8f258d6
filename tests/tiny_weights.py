"""For tests of the commands: a network that is quick to compile, as weight files and as a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxcore import registry
from jaxcore.atomic import write_json
from jaxcore.cli import main
from jaxcore.convert import write_safetensors, write_torch
from jaxcore.models import adair
from jaxcore.train import Checkpointer, create_state

TINY = adair.AdaIRConfig.restormer(
    dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=(1, 1, 1, 1)
)


def params(seed=0, cfg=TINY, module=adair):
    """Random parameters with which the output differs from the input."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32), module.param_shapes(cfg)
    )


def write_weights(folder):
    """Files as PyTorch users have them."""
    tensors = adair.to_torch(params(), TINY)
    write_safetensors(folder / "tiny.safetensors", tensors)
    write_torch(folder / "tiny.pth", tensors)
    write_torch(folder / "tiny.ckpt", tensors, prefix="net.", wrap="state_dict", extra={"epoch": 3})
    write_torch(folder / "compiled.pt", tensors, prefix="module._orig_mod.", wrap="params")


def write_run(run, cfg=TINY, model="adair", **task):
    """A run with the checkpoints 1 (the best, seed 1) and 2 (seed 2)."""
    run.mkdir(parents=True)
    task_config = {"model": model, "network": cfg.to_dict(), **task}
    train = {"best_metric": "psnr", "best_mode": "max"}
    write_json(run / "config.json", {"task_config": task_config, "train": train})
    with Checkpointer(run / "checkpoints", best_metric="psnr") as checkpointer:
        for step in (1, 2):
            drawn = params(step, cfg, registry.network(model))
            weights = jax.tree.map(jnp.asarray, drawn)
            state = create_state(weights, optax.sgd(0.1), key=jax.random.key(0))
            state = dataclasses.replace(state, step=jnp.int32(step))
            checkpointer.save(state, config={}, metrics={"psnr": 30.0 - step})


@pytest.fixture
def call(capsys):
    """Run the command line in this process; gives exit code, output and errors."""

    def run(*argv):
        code = 0
        try:
            main([str(a) for a in argv])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder)
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder)
    return folder


@pytest.fixture
def photo(tmp_path):
    """A small picture in a folder of its own."""
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path
