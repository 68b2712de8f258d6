"""``jaxcore restore`` on folders: overlap, going on, comparisons, memory, grey networks."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcore import memory, registry
from jaxcore.cli import restoring
from jaxcore.cli.restoring import Job, chosen_bucket, chosen_tile, restore_many
from jaxcore.convert import write_safetensors
from jaxcore.data import images
from jaxcore.data.images import read_image, read_rgb
from jaxcore.errors import UserError
from jaxcore.models.base import ImageNetwork
from jaxcore.weights import describe
from tests import tiny_network


def write(path, seed=0, height=16, width=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        write(tmp_path / "in" / f"{i}.png", i)
    return tmp_path / "in"


@pytest.fixture
def inverted(monkeypatch):
    """The network is replaced by one minus the picture."""
    calls = []

    def restore(self, params, pixels, cfg, **options):
        calls.append(options)
        return 1 - pixels

    monkeypatch.setattr(ImageNetwork, "restore", restore)
    return calls


def test_pictures_are_read_and_written_while_the_network_works(folder, tmp_path, monkeypatch):
    """Reading the next and writing the last picture are waited for inside the network."""
    jobs = [Job(path, tmp_path / "out" / path.name) for path in sorted(folder.iterdir())]
    read = {job.source: threading.Event() for job in jobs}
    begun = {job.output: threading.Event() for job in jobs}
    later = {job.output: threading.Event() for job in jobs}  # the next is in the network
    real_read, real_write = images.read_image, images.write_image

    def reading(path):
        read[path].set()
        return real_read(path)

    def writing(path, *args, **kwargs):
        begun[path].set()
        place = [job.output for job in jobs].index(path)
        assert place == len(jobs) - 1 or later[path].wait(30)
        return real_write(path, *args, **kwargs)

    monkeypatch.setattr(images, "read_image", reading)
    monkeypatch.setattr(images, "write_image", writing)
    done = iter(range(len(jobs)))

    def network(pixels, progress):
        place = next(done)
        if place + 1 < len(jobs):
            assert read[jobs[place + 1].source].wait(30)  # no one waits for the network
        if place:
            assert begun[jobs[place - 1].output].wait(30)
            later[jobs[place - 1].output].set()
        return pixels

    summary = restore_many(jobs, network, overwrite=False)
    assert (summary.restored, summary.failures, summary.pixels) == (6, [], 6 * 16 * 24)
    for job in jobs:
        np.testing.assert_array_equal(read_rgb(job.source), read_rgb(job.output))


def test_few_pictures_are_held_at_once(folder, tmp_path, monkeypatch):
    for i in range(6, 30):
        write(folder / f"{i:02}.png", i)
    jobs = [Job(path, tmp_path / "out" / path.name) for path in sorted(folder.iterdir())]
    real, held, lock, most = images.read_image, [0], threading.Lock(), [0]

    def reading(path):
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        return real(path)

    def network(pixels, progress):
        with lock:
            held[0] -= 1
        return pixels

    monkeypatch.setattr(images, "read_image", reading)
    assert restore_many(jobs, network, overwrite=False).restored == 30
    assert most[0] < 8


def test_a_broken_off_folder_goes_on(call, weights, folder, tmp_path, inverted):
    out = tmp_path / "out"
    argv = ["restore", folder, "-o", out, "--weights", weights / "tiny.pth"]
    write(out / "1.png", 9)
    before = (out / "1.png").read_bytes()
    code, _, err = call(*argv)
    assert code == 2 and "use --overwrite or --skip-existing" in err and not inverted
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:80])
    code, said, err = call(*argv, "--skip-existing")
    assert code == 2 and "1 of 5 pictures were not restored" in err and "3.png" in err
    assert said.startswith("4 restored, 1 skipped (there already), 1 failed  ")
    assert " images/s, " in said
    assert (out / "1.png").read_bytes() == before
    write(folder / "3.png", 3)
    code, said, err = call(*argv, "--skip-existing")
    assert (code, err) == (0, "") and said.startswith("1 restored, 5 skipped (there already)  ")
    code, said, err = call(*argv, "--skip-existing")
    assert (code, err) == (0, "") and said == "0 restored, 6 skipped (there already)\n"
    code, _, err = call(*argv, "--skip-existing", "--overwrite")
    assert code == 2 and "found both" in err


def test_degraded_and_restored_side_by_side(call, weights, folder, tmp_path, inverted):
    tail = ["--weights", weights / "tiny.pth", "--compare"]
    code, _, err = call("restore", folder / "0.png", "-o", tmp_path / "a.jpg", *tail)
    assert (code, err) == (0, "")
    before = read_rgb(folder / "0.png")
    both = read_rgb(tmp_path / "a.compare.png")
    np.testing.assert_array_equal(both[:, :24], before)
    np.testing.assert_array_equal(both[:, -24:], 255 - before)
    assert (both[:, 24:-24] == 255).all()
    code, _, err = call("restore", folder / "0.png", "-o", tmp_path / "a.png", *tail)
    assert code == 2 and "a.compare.png exists" in err
    code, _, err = call("restore", folder, "-o", tmp_path / "all", *tail)
    assert (code, err) == (0, "") and len(list((tmp_path / "all").glob("*.compare.png"))) == 6


def test_the_sizes_of_a_folder_choose_the_padding():
    assert chosen_bucket([(24, 16)], None, 8) == 64
    many = [(100 * i, 70 * i) for i in range(1, 40)]
    side = chosen_bucket(many, None, 8)
    assert len({(-(-w // side), -(-h // side)) for w, h in many}) <= 8
    assert chosen_bucket(many, 64, 8) == 64  # all but the first are cut into tiles
    assert chosen_bucket([], None, 24) % 24 == 0


def test_pictures_too_large_for_the_memory_are_cut(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 10**9)

    def need(side):
        return 400 * side**2  # bytes

    assert chosen_tile([(500, 700)], need, 8) == (None, "")
    tile, said = chosen_tile([(6000, 4000), (50, 60)], need, 8)
    assert tile is not None and 400 * tile**2 <= 5e8 < 400 * (2 * tile) ** 2 and tile % 8 == 0
    assert "9.6 GB as a whole, and 1.0 GB are free" in said
    monkeypatch.setattr(memory, "free_memory", lambda: None)  # a device that does not tell
    assert chosen_tile([(6000, 4000)], need, 8) == (None, "")


def test_what_is_chosen_is_said_and_can_be_switched_off(
    call, weights, folder, tmp_path, inverted, monkeypatch
):
    monkeypatch.setattr(memory, "free_memory", lambda: 2 * 10**6)
    monkeypatch.setattr(restoring, "_SMALL", 100)
    argv = ["restore", folder / "0.png", "-o", tmp_path / "a.png", "--weights"]
    write(folder / "0.png", 0, 200, 300)
    code, said, err = call(*argv, weights / "tiny.pth")
    assert (code, err) == (0, "") and said.startswith("in tiles of 64 pixels: the largest")
    assert inverted[-1]["tile"] == 64
    code, said, _ = call(*argv, weights / "tiny.pth", "--overwrite", "--tile", 0)
    assert code == 0 and len(said.splitlines()) == 1 and inverted[-1]["tile"] is None


def test_a_network_for_grey_pictures(call, folder, tmp_path):
    cfg = dataclasses.replace(tiny_network.NETWORK.tiny(), channels=1)
    network = tiny_network.NETWORK
    registry.register(network)
    params = network.init(jax.random.key(0), cfg)
    path = tmp_path / "grey.safetensors"
    write_safetensors(path, network.to_torch(params, cfg), describe(network, cfg))
    grey = read_rgb(folder / "0.png")[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    for name, source in (("a.png", folder / "0.png"), ("b.png", tmp_path / "grey.png")):
        code, _, err = call("restore", source, "-o", tmp_path / name, "--weights", path)
        assert (code, err) == (0, "")
    colour, alone = read_rgb(tmp_path / "a.png"), read_image(tmp_path / "b.png")
    assert alone.grey
    for channel in range(3):
        planes = read_image(folder / "0.png").unit()[..., channel : channel + 1]
        values = np.clip(network.restore(params, planes, cfg), 0, 1)[..., 0]
        assert np.abs(colour[..., channel] / 255 - values).max() <= 0.5 / 255 + 1e-5
    np.testing.assert_array_equal(alone.pixels[..., 0], colour[..., 0])


def test_memory_that_is_free_and_that_is_needed():
    free = memory.free_memory()
    assert free is None or free > 0
    small = jax.ShapeDtypeStruct((8, 8), np.float32)
    once = memory.working_bytes(lambda x: x @ x, small)
    looped = memory.working_bytes(
        lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=5)[0], small
    )
    assert once == 8 * 8 * 4 and once <= looped <= 4 * once
    joined = memory.working_bytes(lambda x: jnp.exp(2 * (x @ x) + 1) @ x, small)
    assert joined == 2 * once  # two products; what is between them takes nothing


def test_a_failure_of_the_network_names_its_picture(folder, tmp_path):
    jobs = [Job(path, tmp_path / "out" / path.name) for path in sorted(folder.iterdir())]

    def network(pixels, progress):
        raise UserError("Expected another picture.")

    summary = restore_many(jobs, network, overwrite=False)
    assert summary.restored == 0 and len(summary.failures) == 6
    assert summary.failures[0].startswith(str(jobs[0].source))


def test_what_is_left_out_of_a_folder_is_named(call, weights, folder, tmp_path, inverted):
    for name in ("clip.mp4", "IMG_1.HEIC", "Thumbs.db", ".DS_Store", "._0.png"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "Пруд 1.png").write_bytes((folder / "0.png").read_bytes())
    argv = ["restore", folder, "-o", tmp_path / "out", "--weights", weights / "tiny.pth"]
    code, said, err = call(*argv)
    assert (code, err) == (0, "")
    first, last = said.splitlines()
    assert "left out" in first and "clip.mp4" in first and "IMG_1.HEIC" in first
    assert "Thumbs" not in first and last.startswith("7 restored  ")
    assert (tmp_path / "out" / "Пруд 1.png").exists()
    code, _, err = call(*argv[:1], folder / "IMG_1.HEIC", "-o", tmp_path / "a.png", *argv[4:])
    assert code == 2 and "found HEIC, which has to be converted first, in" in err
    code, _, err = call("restore", folder, "-o", folder, *argv[4:], "--overwrite")
    assert (code, err) == (0, "")  # in place, where that is asked for


def test_two_processes_may_share_a_folder(folder, tmp_path):
    """What another one has restored meanwhile is left alone, and is no failure."""
    jobs = [Job(path, tmp_path / "out" / path.name) for path in sorted(folder.iterdir())]

    def network(pixels, progress):
        write(jobs[-1].output, 9)  # by the other one, after the jobs were planned
        write(jobs[0].output, 9)
        return pixels

    summary = restore_many(jobs, network, overwrite=False, skip_existing=True)
    assert (summary.restored, summary.skipped, summary.failures) == (4, 2, [])
    np.testing.assert_array_equal(
        read_rgb(jobs[0].output), np.random.default_rng(9).integers(0, 256, (16, 24, 3), np.uint8)
    )
    summary = restore_many(jobs, network, overwrite=False)
    assert summary.restored == 0 and "exists" in summary.failures[0]
