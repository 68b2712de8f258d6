"""Small clips with sound, written and read by PyAV."""

from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

_MILLISECONDS = Fraction(1, 1000)


class Clip(NamedTuple):
    times: list[float]  # seconds
    frames: list[np.ndarray]
    sound: list[bytes]  # packets
    sound_start: float  # seconds


def write_clip(path, *, frames, size=(48, 64), colour=None, matrix=None, sound=True):
    """Frames at uneven times, 25 a second; 1 as ``matrix`` says and uses that of HD."""
    height, width = size
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"crf": "4"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.time_base = video.codec_context.time_base = _MILLISECONDS
        if matrix is not None:
            video.codec_context.colorspace = matrix
        audio = out.add_stream("aac", rate=44100) if sound else None
        for i in range(frames):
            y, x = np.mgrid[:height, :width]
            pixels = np.stack([(x + 2 * i) % 256, (2 * y) % 256, np.full_like(x, 128)], -1)
            if colour is not None:
                pixels = np.broadcast_to(colour, pixels.shape)
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels, np.uint8), format="rgb24"
            ).reformat(format="yuv420p", dst_colorspace=matrix or 5)
            frame.pts, frame.time_base = 40 * i + 5 * (i % 3), _MILLISECONDS
            out.mux(video.encode(frame))
        if audio is not None:
            wave = (0.3 * np.sin(np.arange(44100 * frames // 25) / 30)).astype(np.float32)
            for start in range(0, len(wave) - 1023, 1024):
                part = av.AudioFrame.from_ndarray(
                    wave[None, start : start + 1024], format="fltp", layout="mono"
                )
                part.rate, part.pts, part.time_base = 44100, start, Fraction(1, 44100)
                out.mux(audio.encode(part))
            out.mux(audio.encode(None))
        out.mux(video.encode(None))


def read_clip(path):
    with av.open(str(path)) as container:
        space = container.streams.video[0].codec_context.colorspace
        found = [
            (
                float(frame.pts * frame.time_base),
                frame.reformat(
                    format="rgb24", src_colorspace=space if space == 1 else 5
                ).to_ndarray(),
            )
            for frame in container.decode(video=0)
        ]
    sound, start = [], 0.0
    with av.open(str(path)) as container:
        if container.streams.audio:
            packets = [p for p in container.demux(audio=0) if p.dts is not None]
            sound = [bytes(packet) for packet in packets]
            start = float(packets[0].pts * packets[0].time_base)
    return Clip([time for time, _ in found], [frame for _, frame in found], sound, start)
