"""Videos: frames in and out one after the other, with the sound and the time stamps of the file.

PyAV (extra ``video``) does the files; a video is never held as a whole. Frames are RGB of 8 bits,
upright. They are encoded as H.264 (VP9 in WebM) of high quality, at the times they had; sound and
subtitles are copied as they are, packet by packet.
"""

import concurrent.futures
import contextlib
import dataclasses
import fractions
import importlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxcore.atomic import whole_file
from jaxcore.errors import UserError

#: Ending -> FFmpeg's name of the container, the encoder and its options.
VIDEO_FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    **{
        ending: (name, "libx264", {"crf": "16", "preset": "medium"})
        for ending, name in (
            (".mp4", "mp4"),
            (".m4v", "mp4"),
            (".mov", "mov"),
            (".mkv", "matroska"),
            (".avi", "avi"),
        )
    },
    ".webm": ("webm", "libvpx-vp9", {"crf": "20", "b": "0"}),
}
_AHEAD = 4  # frames that are decoded or wait to be encoded
_MAX_PIXELS = 2**27  # of one frame
_COPIED = ("audio", "subtitle")


@dataclasses.dataclass(frozen=True)
class VideoSummary:
    """What was written."""

    frames: int
    notes: tuple[str, ...] = ()  # what could not be kept


def is_video(path: str | Path) -> bool:
    """Whether a name ends like that of a video.

    >>> is_video("clip.MP4"), is_video("photo.png")
    (True, False)
    """
    return Path(path).suffix.lower() in VIDEO_FORMATS


def frame_size(source: str | Path) -> tuple[int, int]:
    """Width and height of the frames of a video.

    Raises:
      UserError: no PyAV, no such file, or no video in it.
    """
    av, source = _av(), Path(source)
    if not source.is_file():
        raise UserError(f"Expected a video, found no file {source}.")
    with _errors(source), av.open(str(source)) as container:
        if not container.streams.video:
            raise UserError(f"Expected a video, found no moving picture in {source}.")
        context = container.streams.video[0].codec_context
        return context.width, context.height


def convert_video(
    source: str | Path,
    out: str | Path,
    function: Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w 3"]],
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VideoSummary:
    """Write a video whose frames are a function of those of another.

    Decoding and encoding go on in other threads while the function works.

    Args:
      source: a file that FFmpeg reads.
      out: the new file; it appears whole or not at all. Its ending chooses the container.
      function: frame -> frame of the same size.
      overwrite: replace a file that exists.
      progress: called with (frames done, about how many in all; 0 where the file does not tell).

    Raises:
      UserError: no PyAV, no such file, no video in it, damaged, or an ending without a container.
    """
    av = _av()
    source, out = Path(source), Path(out)
    if not is_video(out):
        raise UserError(
            f"Expected a video ending in {', '.join(VIDEO_FORMATS)}, found {out.name!r}."
        )
    if not source.is_file():
        raise UserError(f"Expected a video, found no file {source}.")
    with whole_file(out, overwrite=overwrite) as temporary, _errors(source):
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise UserError(f"Expected a video, found no moving picture in {source}.")
            writer = _Writer(av, container, temporary, out.suffix.lower())
            try:
                frames = _run(container, writer, function, progress)
            finally:
                writer.close()
        if not frames:
            raise UserError(f"Expected a video, found no frame in {source}.")
    return VideoSummary(frames, tuple(writer.notes))


def _av() -> Any:
    try:
        av: Any = importlib.import_module("av")
    except ImportError:
        raise UserError(
            "Expected PyAV to read videos, found none: install jaxcore[video]."
        ) from None
    av.logging.set_level(av.logging.PANIC)  # its own lines help nobody; errors are raised
    return av


@contextlib.contextmanager
def _errors(source: Path) -> Iterator[None]:
    """A damaged file in one sentence."""
    av = _av()
    try:
        yield
    except av.error.FFmpegError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Expected a whole video, found {source}: {reason}.") from None


@dataclasses.dataclass(frozen=True, eq=False)
class _Frame:
    pixels: np.ndarray
    pts: int | None
    time_base: fractions.Fraction | None


def _run(
    container: Any,
    writer: "_Writer",
    function: Callable[[np.ndarray], np.ndarray],
    progress: Callable[[int, int], None] | None,
) -> int:
    video = container.streams.video[0]
    video.thread_type = "AUTO"
    total = video.frames or round(
        float((container.duration or 0) / 1e6 * (video.average_rate or 0))
    )
    done = 0
    with concurrent.futures.ThreadPoolExecutor(1) as encoder:
        waiting: deque[concurrent.futures.Future[None]] = deque()
        for item in _ahead(_items(container, writer.copied)):
            if isinstance(item, _Frame):
                pixels = function(item.pixels)
                waiting.append(
                    encoder.submit(writer.frame, dataclasses.replace(item, pixels=pixels))
                )
                done += 1
                if progress is not None:
                    progress(done, max(total, done) if total else 0)
            else:
                waiting.append(encoder.submit(writer.packet, item))
            while len(waiting) > _AHEAD or (waiting and waiting[0].done()):
                waiting.popleft().result()
        for future in waiting:
            future.result()
    return done


def _items(container: Any, copied: dict[int, Any]) -> Iterator[Any]:
    """Frames, and the packets of the streams that are copied, as the file has them."""
    video = container.streams.video[0]
    streams = [video, *(container.streams[index] for index in copied)]
    for packet in container.demux(*streams):
        if packet.stream.index != video.index:
            if packet.dts is not None:  # the last one of a stream only says that it is over
                yield packet
            continue
        for frame in packet.decode():
            if frame.width * frame.height > _MAX_PIXELS:
                raise UserError(
                    f"Expected frames of at most {_MAX_PIXELS:,} pixels, found "
                    f"{frame.width}x{frame.height}."
                )
            space, width_of_range = _colours(video.codec_context)
            plain = frame.reformat(
                format="rgb24", src_colorspace=space, src_color_range=width_of_range
            )
            pixels = plain.to_ndarray()
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            yield _Frame(np.ascontiguousarray(np.rot90(pixels, turns)), frame.pts, frame.time_base)


_ITU601, _LIMITED, _FULL = 5, 1, 2  # numbers of FFmpeg
_KNOWN_SPACES = (1, 4, 5, 6, 7, 9)


def _colours(context: Any) -> tuple[int, int]:
    """Matrix and range of the colours of a video, the same to read and to write them.

    Where a file says nothing, one matrix for both gives the numbers back that players will read by
    whichever they take.
    """
    space = context.colorspace if context.colorspace in _KNOWN_SPACES else _ITU601
    return space, _FULL if context.color_range == _FULL else _LIMITED


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, made in another thread a few ahead."""
    made: queue.Queue[Any] = queue.Queue(_AHEAD)
    stop, end = threading.Event(), object()

    def put(item: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                made.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


class _Writer:
    """The file that grows."""

    def __init__(self, av: Any, container: Any, path: Path, ending: str) -> None:
        name, self._encoder, self._options = VIDEO_FORMATS[ending]
        self._av, self._source = av, container.streams.video[0]
        options = {"movflags": "+faststart"} if name in ("mp4", "mov") else {}
        self._out = av.open(str(path), "w", format=name, options=options)
        self._out.metadata.update(container.metadata)
        self._video: Any = None
        self.notes: list[str] = []
        # The moving picture comes first; its size is that of the first frame, which may be turned.
        rate = self._source.average_rate or self._source.guessed_rate or 25
        self._video = self._out.add_stream(self._encoder, rate=rate, options=self._options)
        self.copied: dict[int, Any] = {}
        for stream in container.streams:
            if stream.type in _COPIED:
                try:
                    self.copied[stream.index] = self._out.add_stream_from_template(stream)
                except (av.error.FFmpegError, ValueError):
                    self.notes.append(f"{stream.type} that {ending} cannot hold was left out")
        self._begun, self._early = False, list[Any]()

    def _begin(self, frame: _Frame) -> None:
        height, width = frame.pixels.shape[:2]
        context, even = self._video.codec_context, not (height % 2 or width % 2)
        context.width, context.height = width, height
        context.pix_fmt = "yuv420p" if even else "yuv444p"
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(context, name, getattr(self._source.codec_context, name))
        if frame.time_base is not None:
            context.time_base = frame.time_base
            self._video.time_base = frame.time_base
        self._begun = True

    def frame(self, frame: _Frame) -> None:
        """Encode a frame at its time."""
        if not self._begun:
            self._begin(frame)
            for packet in self._early:
                self.packet(packet)
        space, width_of_range = _colours(self._source.codec_context)
        made = self._av.VideoFrame.from_ndarray(frame.pixels, format="rgb24").reformat(
            format=self._video.codec_context.pix_fmt,
            dst_colorspace=space,
            dst_color_range=width_of_range,
        )
        made.pts, made.time_base = frame.pts, frame.time_base
        self._out.mux(self._video.encode(made))

    def packet(self, packet: Any) -> None:
        """Copy a packet; none is written before the size of the frames is known."""
        if not self._begun:
            self._early.append(packet)
            return
        packet.stream = self.copied[packet.stream.index]
        self._out.mux(packet)

    def close(self) -> None:
        """End the file."""
        with self._out:
            if self._begun:
                self._out.mux(self._video.encode(None))
