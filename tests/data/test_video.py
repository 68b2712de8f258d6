"""Videos: every frame once, at its time, with the sound as it was."""

import numpy as np
import pytest

from jaxcore.data.video import convert_video, frame_size, is_video
from jaxcore.errors import UserError
from tests.clips import read_clip, write_clip


@pytest.fixture
def clip(tmp_path):
    """Two seconds with sound, whose frames come at uneven times."""
    write_clip(tmp_path / "clip.mp4", frames=50)
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_frames_times_and_sound_are_kept(clip, tmp_path, ending):
    seen, steps = [], []

    def function(frame):
        seen.append(frame)
        return frame

    out = tmp_path / f"out.{ending}"
    found = convert_video(clip, out, function, progress=lambda *step: steps.append(step))
    assert found.frames == 50 and found.notes == ()
    assert steps == [(i + 1, 50) for i in range(50)]
    before, after = read_clip(clip), read_clip(out)
    # A container without times below zero has the lead of the sound before everything.
    first = after.times[0] - before.times[0]
    np.testing.assert_allclose(np.array(after.times) - first, before.times, atol=1.5e-3)
    assert after.sound == before.sound and len(before.sound) > 50
    assert abs(after.sound_start - first - before.sound_start) < 2e-3
    for one, two, three in zip(before.frames, seen, after.frames, strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.abs(one.astype(int) - three).mean() < 3  # of 255: encoded again


def test_the_function_decides_what_is_seen(clip, tmp_path):
    convert_video(clip, tmp_path / "out.mp4", lambda frame: np.full_like(frame, 200))
    assert np.abs(np.stack(read_clip(tmp_path / "out.mp4").frames).astype(int) - 200).max() < 4


def test_colours_are_those_of_the_file_whatever_it_says(tmp_path):
    write_clip(tmp_path / "hd.mp4", frames=4, colour=(200, 40, 90), matrix=1, sound=False)
    seen = []
    convert_video(tmp_path / "hd.mp4", tmp_path / "b.mp4", lambda f: (seen.append(f), f)[1])
    assert np.abs(seen[0].astype(int) - (200, 40, 90)).max() < 4
    again = []
    convert_video(tmp_path / "b.mp4", tmp_path / "c.mp4", lambda f: (again.append(f), f)[1])
    assert np.abs(again[0].astype(int) - seen[0]).max() < 4


def test_odd_sizes_and_few_frames_are_held(tmp_path):
    write_clip(tmp_path / "a.mkv", frames=2, size=(48, 64), sound=False)
    assert frame_size(tmp_path / "a.mkv") == (64, 48)
    convert_video(tmp_path / "a.mkv", tmp_path / "b.mp4", lambda frame: frame)
    many = []

    def function(frame):
        many.append(1)
        return frame

    assert convert_video(tmp_path / "a.mkv", tmp_path / "c.webm", function).frames == 2
    assert read_clip(tmp_path / "c.webm").times[1] == pytest.approx(0.045, abs=2e-3)


def test_what_is_no_video_or_damaged_leaves_nothing(clip, tmp_path):
    out = tmp_path / "out.mp4"

    def same(frame):
        return frame

    (tmp_path / "text.mp4").write_text("no video")
    for source, message in (("text.mp4", "whole video, found"), ("gone.mp4", "found no file")):
        with pytest.raises(UserError, match=message):
            convert_video(tmp_path / source, out, same)
        with pytest.raises(UserError, match=message):
            frame_size(tmp_path / source)
    raw = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="whole video, found"):
        convert_video(tmp_path / "cut.mp4", out, same)
    with pytest.raises(UserError, match=r"a video ending in \.mp4"):
        convert_video(clip, tmp_path / "out.gif", same)

    def fails(frame):
        raise UserError("Expected another frame.")

    with pytest.raises(UserError, match="another frame"):
        convert_video(clip, out, fails)
    with pytest.raises(KeyboardInterrupt):
        convert_video(clip, out, lambda frame: (_ for _ in ()).throw(KeyboardInterrupt))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "cut.mp4", "text.mp4"]
    convert_video(clip, out, same)
    with pytest.raises(UserError, match="exists"):
        convert_video(clip, out, same)


def test_names_of_videos():
    assert is_video("a.MOV") and not is_video("a.png")
