"""A reader of the pages, who types what is printed."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import jaxcore.train
from jaxcore.convert import write_torch
from jaxcore.models import adair
from jaxcore.train.integrity import check_tree
from jaxcore.train.prepare import prepare
from tests.tiny_weights import params

ROOT = Path(__file__).parent.parent.parent
FIVE = adair.AdaIRConfig(dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=(1,) * 4)


def printed(page, *words):
    """The commands of a page that hold some words, as a reader would type them."""
    text = (ROOT / page).read_text().replace("\\\n", "")  # lines that go on in the next
    lines = [x for x in text.splitlines() if x.startswith("jaxcore ")]
    found = [line for line in lines if all(word in line for word in words)]
    assert found
    return [shlex.split(line, comments=True)[1:] for line in found]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reader's folder: pairs of pictures, weights as their authors gave them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PHOTOS").mkdir()
    Image.new("RGB", (24, 16), (90, 80, 70)).save(tmp_path / "PHOTOS" / "one.png")
    for root in ("PAIRS", "MY_PAIRS"):
        for below in ("clean", "degraded"):
            Path(root, below).mkdir(parents=True)
            Image.new("RGB", (160, 136), (90, 80, 70)).save(Path(root, below, "one.png"))
    five = adair.to_torch(params(cfg=FIVE), FIVE)
    write_torch(Path("adair5d.ckpt"), five, prefix="net.", wrap="state_dict")
    return tmp_path


@pytest.fixture
def begun(monkeypatch):
    """Trainings up to their first step, which is left out."""
    seen = []

    def fit(task, cfg, run_dir, *, mesh=None, init_params=None, **_):
        ready = prepare(task, cfg, mesh)
        if init_params is not None:
            check_tree(init_params, ready.abstract.params, source="The file")
        next(task.batches(cfg.seed, 0))
        seen.append((task, init_params))
        return SimpleNamespace(interrupted=False, metrics={}, state=SimpleNamespace(step=0))

    monkeypatch.setattr(jaxcore.train, "fit", fit)
    return seen
