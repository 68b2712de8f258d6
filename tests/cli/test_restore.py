"""``jaxcore restore``: what arrives where."""

import dataclasses
import importlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcore import registry
from jaxcore.cli import main
from jaxcore.convert import write_safetensors
from jaxcore.data.images import read_image, read_rgb
from jaxcore.models import adair
from jaxcore.models.base import ImageNetwork
from jaxcore.weights import Shipped, describe
from tests import tiny_network
from tests.tiny_weights import TINY, params


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def expected(path, *, seed=0, **options):
    picture = read_image(path)
    return np.clip(adair.restore(params(seed), picture.unit(), TINY, **options), 0, 1)


def close_to_8_bits(path, values):
    assert np.abs(read_rgb(path) / 255 - values).max() <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("name", ["tiny.safetensors", "tiny.pth", "tiny.ckpt", "compiled.pt"])
def test_one_picture_with_every_kind_of_file(call, weights, photo, tmp_path, name):
    output = tmp_path / "new" / "out.png"
    code, out, err = call("restore", photo, "-o", output, "--weights", weights / name)
    assert (code, err) == (0, "")
    assert out.startswith(str(output)) and len(out.splitlines()) == 1
    values = expected(photo)
    assert np.abs(values - read_image(photo).unit()).max() > 2 / 255  # the network does something
    close_to_8_bits(output, values)


def test_without_weights_those_of_the_library_are_taken_and_named(
    call, weights, photo, tmp_path, monkeypatch
):
    monkeypatch.setattr(Shipped, "path", property(lambda _: weights / "tiny.safetensors"))
    output = tmp_path / "out.png"
    code, out, err = call("restore", photo, "-o", output)
    assert (code, err) == (0, "")
    said, done = out.splitlines()
    assert "noise of jaxcore" in said and "--weights haze" in said and done.startswith(str(output))
    close_to_8_bits(output, expected(photo))


def test_where_the_library_lacks_its_weights_some_are_asked_for(call, photo, tmp_path, monkeypatch):
    # The module: its function has the same name. Another dict, as the order of the true one counts.
    monkeypatch.setattr(importlib.import_module("jaxcore.weights.shipped"), "SHIPPED", {})
    code, _, err = call("restore", photo, "-o", tmp_path / "out.png")
    assert code == 2 and "Expected --weights" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "seed"), [([], 1), (["--which", "last"], 2), (["--model", "adair"], 1)]
)
def test_a_run(call, run, photo, tmp_path, argv, seed):
    output = tmp_path / "out.png"
    code, _, err = call("restore", photo, "-o", output, "--weights", run, *argv)
    assert (code, err) == (0, "")
    close_to_8_bits(output, expected(photo, seed=seed))


def test_options_reach_the_network(call, weights, photo, tmp_path, monkeypatch):
    seen = {}

    def restore(params, pixels, cfg, **options):
        seen.update(options, cfg=cfg)
        return 1 - pixels

    monkeypatch.setattr(ImageNetwork, "restore", staticmethod(restore))
    argv = ["restore", photo, "-o", tmp_path / "a.png", "--weights", weights / "tiny.pth"]
    assert call(*argv)[0] == 0
    close_to_8_bits(tmp_path / "a.png", 1 - read_rgb(photo) / 255)
    seen.pop("progress")
    default = {"tile": None, "overlap": 32, "ensemble": False, "bucket": None}
    assert seen == {**default, "cfg": TINY}
    options = "--overwrite --tile 64 --overlap 8 --ensemble --bucket 24 --stat-window 16"
    assert call(*argv, *options.split())[0] == 0
    seen.pop("progress")
    assert seen.pop("cfg") == dataclasses.replace(TINY, stat_window=16)
    assert seen == {"tile": 64, "overlap": 8, "ensemble": True, "bucket": 24}


def test_tiles(call, weights, tmp_path):
    photo = tmp_path / "in.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 32, 3), np.uint8)).save(photo)
    argv = ["restore", photo, "-o", tmp_path / "out.png", "--weights", weights / "tiny.pth"]
    assert call(*argv, "--tile", 24, "--overlap", 8)[0] == 0
    close_to_8_bits(tmp_path / "out.png", expected(photo, tile=24, overlap=8))


@pytest.fixture
def album(tmp_path):
    """Pictures of several kinds in two folders, and what is no picture."""
    rng = np.random.default_rng(2)
    root = tmp_path / "album"
    (root / "deep" / "er").mkdir(parents=True)
    colour = rng.integers(0, 256, (20, 27, 3), np.uint8)
    Image.fromarray(colour).save(root / "a.jpg", dpi=(300, 300))
    Image.fromarray(colour[..., 0]).save(root / "grey.png")
    np.save(root / "float.npy", rng.random((20, 27, 3), np.float32))
    alpha = np.concatenate([colour, colour[..., :1]], -1)
    Image.fromarray(alpha).save(root / "deep" / "clear.webp", lossless=True)
    Image.fromarray(rng.integers(0, 65536, (20, 27), np.uint16)).save(root / "deep/er/b.TIF")
    (root / "notes.txt").write_text("no picture")
    return root


def test_a_folder_keeps_names_and_kinds(call, weights, album, tmp_path):
    out = tmp_path / "out"
    argv = ["restore", album, "-o", out, "--weights", weights / "tiny.pth"]
    code, said, err = call(*argv)
    assert (code, err) == (0, "")
    assert said.startswith("5 restored  ") and said.endswith(f" Mpixel/s) -> {out}\n")
    assert tree(out) == ["a.jpg", "deep/clear.webp", "deep/er/b.TIF", "float.npy", "grey.png"]
    for name in tree(out):
        old, new = read_image(album / name), read_image(out / name)
        kind = (old.depth, old.grey, old.format, old.about.dpi)
        assert (new.depth, new.grey, new.format, new.about.dpi) == kind
        assert (new.alpha is None) == (old.alpha is None)
    old, new = (read_image(f / "deep" / "clear.webp") for f in (album, out))
    np.testing.assert_array_equal(old.alpha, new.alpha)
    values = expected(album / "float.npy", bucket=64)
    np.testing.assert_allclose(read_image(out / "float.npy").pixels, values, atol=1e-5)
    # Again: nothing is overwritten unasked.
    before = {name: (out / name).stat().st_mtime_ns for name in tree(out)}
    code, said, err = call(*argv)
    assert (
        code == 2
        and "and 4 others exist (use --overwrite or --skip-existing)" in err
        and said == ""
    )
    assert {name: (out / name).stat().st_mtime_ns for name in tree(out)} == before
    assert call(*argv, "--overwrite")[0] == 0
    assert all((out / name).stat().st_mtime_ns > old for name, old in before.items())


def test_buckets_bound_the_compilations(call, tmp_path):
    traced = []

    def counted(params, x, cfg):
        traced.append(x.shape)
        return tiny_network.apply(params, x, cfg)

    network = dataclasses.replace(tiny_network.NETWORK, name="counted", apply=counted)
    registry.register(network)
    cfg = network.tiny()
    weights = network.to_torch(network.init(jax.random.key(0), cfg), cfg)
    write_safetensors(tmp_path / "w.safetensors", weights, describe(network, cfg))
    rng = np.random.default_rng(3)
    (tmp_path / "in").mkdir()
    for i, (height, width) in enumerate([(17, 30), (25, 44), (33, 60), (41, 64), (49, 18)]):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i}.png")
    argv = ["restore", tmp_path / "in", "-o", tmp_path / "out"]
    assert call(*argv, "--weights", tmp_path / "w.safetensors")[0] == 0
    assert traced == [(1, 64, 64, 3)]


def test_patterns_and_several_files(call, weights, album, tmp_path):
    tail = ["--weights", weights / "tiny.pth"]
    assert call("restore", f"{album}/**/*", "-o", tmp_path / "all", *tail)[0] == 0
    assert len(tree(tmp_path / "all")) == 5 and (tmp_path / "all" / "deep" / "er").is_dir()
    assert call("restore", f"{album}/*.jpg", "-o", tmp_path / "one", *tail)[0] == 0
    assert tree(tmp_path / "one") == ["a.jpg"]
    files = [album / "a.jpg", album / "deep" / "clear.webp"]
    assert call("restore", *files, "-o", tmp_path / "two", *tail)[0] == 0
    assert tree(tmp_path / "two") == ["a.jpg", "clear.webp"]
    assert call("restore", album / "grey.png", "-o", tmp_path / "two", *tail)[0] == 0
    assert "grey.png" in tree(tmp_path / "two")


def test_results_below_the_input_are_not_taken_for_input(call, weights, photo):
    folder = photo.parent
    argv = ["restore", folder, "-o", folder / "out", "--weights", weights / "tiny.pth"]
    assert call(*argv)[0] == 0
    assert call(*argv, "--overwrite")[0] == 0
    assert tree(folder) == ["out/photo.png", "photo.png"]
    # The other way round: the output holds the input.
    argv = ["restore", folder / "out", "-o", folder, "--weights", weights / "tiny.pth"]
    assert "exists" in call(*argv)[2]
    assert call(*argv, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("{gone} -o {out}", "found nothing at"),
        ("{empty} -o {out}", "found none in"),
        ("{empty}/*.png -o {out}", "found none in"),
        ("{photo} -o {out}.gif", "Expected a picture ending in"),
        ("{photo} -o {photo}", "exists (use --overwrite or --skip-existing)"),
        ("{photo} -o {photo}/below.png", "Expected a folder that can be written"),
        ("{folder} -o {out}.png", "Expected a folder as output"),
        ("{folder} -o {photo}", "Expected a folder as output"),
        ("{photo} {same} -o {out}", "Expected one picture per output"),
        ("{photo} -o {out} --tile 30", "tile must be a positive multiple of 8"),
        ("{photo} -o {out} --tile 32 --overlap 32", "overlap must be"),
        ("{photo} -o {out} --bucket 12", "bucket must be"),
        ("{photo} -o {out} --stat-window 12", "--stat-window must be"),
        ("{photo} -o {out} --model nothing", "Unknown network 'nothing'"),
    ],
)
def test_mistakes_end_in_one_sentence(call, weights, photo, tmp_path, argv, sentence):
    (tmp_path / "empty").mkdir()
    same = tmp_path / "other" / "photo.png"
    same.parent.mkdir()
    same.write_bytes(photo.read_bytes())
    places = {name: tmp_path / name for name in ("gone", "empty", "out")}
    argv = argv.format(photo=photo, folder=photo.parent, same=same, **places).split()
    before = tree(tmp_path)
    code, out, err = call("restore", *argv, "--weights", weights / "tiny.pth")
    assert code == 2 and out == ""
    assert err.startswith("jaxcore: ") and sentence in err and len(err.splitlines()) == 1
    assert tree(tmp_path) == before and not (tmp_path / "out").exists()


def test_conflicts_are_found_before_any_work(call, photo, tmp_path):
    code, _, err = call("restore", photo, "-o", photo, "--weights", tmp_path / "gone")
    assert code == 2 and "use --overwrite" in err  # the weights were not looked at


def test_transparency_that_the_output_cannot_hold(call, weights, tmp_path, monkeypatch):
    Image.new("RGBA", (16, 16), (9, 9, 9, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageNetwork, "restore", None)  # it must not come so far
    code, _, err = call(
        "restore", tmp_path / "a.png", "-o", tmp_path / "a.jpg", "--weights", weights / "tiny.pth"
    )
    assert code == 2 and "transparency" in err and tree(tmp_path) == ["a.png"]


@pytest.mark.parametrize("moment", ["network", "write"])
def test_interruption_leaves_nothing_behind(weights, photo, tmp_path, monkeypatch, moment):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    if moment == "network":
        monkeypatch.setattr(ImageNetwork, "restore", staticmethod(interrupt))
    else:
        monkeypatch.setattr("os.fsync", interrupt)
    argv = ["restore", photo, "-o", tmp_path / "out", "--weights", weights / "tiny.pth"]
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    assert stop.value.code == 130
    assert tree(tmp_path) == ["in/photo.png"] and not (tmp_path / "out").exists()


def test_ctrl_c_ends_the_process_quietly(weights, photo, tmp_path):
    """A real signal, while XLA computes."""
    code = """
        import os, signal, sys
        import jax, jax.numpy as jnp
        from jaxcore.cli import main
        from jaxcore.models.base import ImageNetwork
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def restore(*_, **__):
            jax.jit(lambda a: jax.lax.fori_loop(0, 60, lambda _, b: jnp.sin(b @ b), a))(
                jnp.ones((1500, 1500)))
            os.kill(os.getpid(), signal.SIGINT)
        ImageNetwork.restore = restore
        main()
    """
    argv = ["restore", photo, "-o", tmp_path / "out" / "a.png", "--weights", weights / "tiny.pth"]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, argv)], capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
    assert tree(tmp_path) == ["in/photo.png"] and not (tmp_path / "out").exists()


def test_too_little_memory_is_explained(call, weights, photo, tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(ImageNetwork, "restore", staticmethod(exhausted))
    code, _, err = call(
        "restore", photo, "-o", tmp_path / "out.png", "--weights", weights / "tiny.pth"
    )
    assert code == 2 and "use --tile" in err


def test_files_are_checked_while_others_go_on(call, weights, album, tmp_path):
    (album / "bad.png").write_bytes((album / "grey.png").read_bytes()[:60])
    broken = np.full((20, 27, 3), 0.5, np.float32)
    broken[0, 0] = np.nan
    np.save(album / "nan.npy", broken)
    out = tmp_path / "out"
    code, said, err = call("restore", album, "-o", out, "--weights", weights / "tiny.pth")
    assert code == 2
    assert said.startswith("5 restored, 2 failed  ")
    first, *rest = err.splitlines()
    assert first == "jaxcore: 2 of 7 pictures were not restored:"
    assert len(rest) == 2
    assert "bad.png" in rest[0] and "found 3 that are NaN or infinite" in rest[1]
    assert tree(out) == ["a.jpg", "deep/clear.webp", "deep/er/b.TIF", "float.npy", "grey.png"]


def test_the_console_command():
    """One run as the shell would do it; help must come without JAX."""
    code = (
        "import sys; from jaxcore.cli import main; sys.argv = ['jaxcore', '--help']\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'jax' not in sys.modules, 'help imported jax'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "restore" in done.stdout and "convert" in done.stdout
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jaxcore",
            "restore",
            "gone.png",
            "-o",
            "x.png",
            "--weights",
            "gone",
            "--tilee",
            "3",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "--tilee" in done.stderr and not done.stdout
