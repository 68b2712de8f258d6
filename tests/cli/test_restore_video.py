"""``jaxcore restore`` of a video."""

import numpy as np

from jaxcore.models.base import ImageNetwork
from tests.clips import read_clip, write_clip


def test_a_command_restores_a_clip_of_two_seconds(call, weights, tmp_path, monkeypatch):
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=50)
    monkeypatch.setattr(ImageNetwork, "restore", lambda self, params, x, cfg, **_: 1 - x)
    out = tmp_path / "out.mp4"
    argv = ["restore", clip, "-o", out, "--weights", weights / "tiny.pth"]
    code, said, err = call(*argv)
    assert (code, err) == (0, "") and said.startswith(f"50 frames -> {out}")
    before, after = read_clip(clip), read_clip(out)
    assert after.sound == before.sound
    assert np.abs(255 - before.frames[7].astype(int) - after.frames[7]).mean() < 4
    code, _, err = call(*argv)
    assert code == 2 and "exists" in err
    code, said, _ = call(*argv, "--skip-existing")
    assert code == 0 and "1 skipped" in said
    for wrong, message in (
        (["restore", clip, "-o", tmp_path / "out.png"], "a video ending in .mp4"),
        (["restore", clip, clip, "-o", out], "one video at a time"),
        (["restore", clip, "-o", tmp_path / "b.mp4", "--compare"], "no --compare for a video"),
        (["restore", tmp_path, "-o", tmp_path / "b.mp4"], "Expected a video for the video"),
    ):
        code, _, err = call(*wrong, "--weights", weights / "tiny.pth")
        assert code == 2 and message in err and len(err.splitlines()) == 1
