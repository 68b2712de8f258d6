"""Tiny weights (quick to compile), and the command line in this process."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcore.cli import main
from jaxcore.convert import write_safetensors, write_torch
from jaxcore.models import adair

TINY = adair.AdaIRConfig.restormer(
    dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=(1, 1, 1, 1)
)


@pytest.fixture
def call(capsys):
    """Run the command line; gives exit code, standard output and standard error."""

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
def tiny():
    """Parameters of a tiny network whose output is not its input."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32), adair.param_shapes(TINY)
    )


@pytest.fixture(scope="session")
def weights(tmp_path_factory, tiny):
    """Official weight files of `tiny`: as PyTorch users have them."""
    folder = tmp_path_factory.mktemp("weights")
    tensors = adair.to_torch(tiny, TINY)
    write_safetensors(folder / "tiny.safetensors", tensors)
    write_torch(folder / "tiny.pth", tensors)
    write_torch(folder / "tiny.ckpt", tensors, prefix="net.", wrap="state_dict",
                extra={"epoch": 3})  # fmt: skip
    write_torch(folder / "compiled.pt", tensors, prefix="module._orig_mod.", wrap="params")
    return folder


@pytest.fixture
def photo(tmp_path):
    """A small picture in a folder of its own."""
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path
