"""``jaxcore convert``: weights keep their numbers and what they belong to."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcore.convert import read_state_dict
from jaxcore.models import adair
from jaxcore.weights import load
from tests.tiny_weights import TINY, params, write_run


def same(found, seed):
    jax.tree.map(np.testing.assert_array_equal, found, params(seed))


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("source", ["tiny.safetensors", "tiny.ckpt", "run"])
def test_weights_survive_every_way(call, weights, run, tmp_path, source, ending):
    output = tmp_path / f"out{ending}"
    seed = 1 if source == "run" else 0
    code, out, err = call("convert", run if source == "run" else weights / source, output)
    assert (code, err) == (0, "")
    assert out == f"{len(adair.to_torch(params(), TINY))} tensors of adair -> {output}\n"
    found = load(output)
    assert (found.network.name, found.cfg) == ("adair", TINY)
    same(found.params, seed)
    official = adair.to_torch(params(seed), TINY)
    tensors = read_state_dict(output).tensors
    assert tensors.keys() == official.keys()
    # And back.
    again = tmp_path / "again.pth"
    assert call("convert", output, again)[0] == 0
    same(load(again).params, seed)


def test_which_checkpoint_of_a_run(call, run, tmp_path):
    for which, seed in (("best", 1), ("last", 2)):
        assert call("convert", run, tmp_path / f"{which}.pth", "--which", which)[0] == 0
        same(load(tmp_path / f"{which}.pth").params, seed)
    code, _, err = call("convert", run, tmp_path / "ema.pth", "--which", "ema")
    assert code == 2 and "moving average" in err and not (tmp_path / "ema.pth").exists()


@pytest.mark.newest
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_what_weights_do_not_tell_is_kept(call, tmp_path, ending):
    cfg = dataclasses.replace(TINY, decoder=True, mask_mode="soft", soft_tau=2.0)
    write_run(tmp_path / "run", cfg)
    output = tmp_path / f"out{ending}"
    code, out, _ = call("convert", tmp_path / "run", output)
    assert code == 0
    assert load(output).cfg == cfg
    if ending == ".pth":
        assert 'below "state_dict", beside the settings mask_mode, soft_tau' in out
        assert read_state_dict(output).where == "state_dict"
    # Exported weights that are exported again lose nothing either.
    assert call("convert", output, tmp_path / "again.safetensors")[0] == 0
    assert load(tmp_path / "again.safetensors").cfg == cfg


@pytest.mark.parametrize(
    ("source", "output", "sentence"),
    [
        ("tiny.pth", "out.bin", "Expected an output ending in .safetensors, .pth, .pt"),
        ("tiny.pth", "there.pth", "exists already"),
        ("tiny.pth", "gone/out.pth", "cannot be written: No such file or directory"),
        ("gone.pth", "out.pth", "found nothing at"),
        ("", "out.pth", "Expected a run directory with config.json"),
    ],
)
def test_mistakes_end_in_one_sentence(call, weights, tmp_path, source, output, sentence):
    (tmp_path / "there.pth").write_text("mine")
    code, out, err = call("convert", weights / source, tmp_path / output)
    assert code == 2 and out == ""
    assert sentence in err and len(err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["there.pth"]
    assert (tmp_path / "there.pth").read_text() == "mine"
    if output == "there.pth":
        assert call("convert", weights / source, tmp_path / output, "--overwrite")[0] == 0
