"""The page of ``jaxcore serve``: a server on this machine that restores one picture at a time.

It is Python's own: what it answers is the page, the names of networks, and results that it keeps in
memory, by names that cannot be guessed. It opens no file by a name from outside and connects to
nothing. Requests that another web page could make the browser send are refused: they come with
another host, or without the header that only the page itself can set.
"""

import dataclasses
import http.server
import json
import secrets
import tempfile
import threading
import time
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from jaxcore.errors import UserError, readable
from jaxcore.weights import SHIPPED, Loaded

_KEPT = 3  # results
_TILE = 512  # pixels; larger pictures are cut, so that the time can be looked at in between
_PREVIEW = "image/jpeg"
_HOSTS = ("127.0.0.1", "localhost")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is too much for one picture."""

    bytes: int
    pixels: int
    seconds: float


class _Busy(UserError):
    """Another picture is being restored."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Result:
    name: str
    files: dict[str, tuple[str, bytes]]  # before, after, download -> type and content


class Page:
    """A server, to be closed after use.

    Args:
      places: run directories and weight files to choose among.
      port: 0 takes a free one.
      limits: of a picture.

    Raises:
      UserError: nothing to choose among, a place that is not there, or the port is taken.
    """

    def __init__(self, places: Sequence[Path], port: int, limits: Limits) -> None:
        self._limits = limits
        self._choices: dict[str, str] = {str(place): str(place) for place in places}
        missing = [place for place in places if not place.exists()]
        if missing:
            raise UserError(
                f"Expected a run directory or a weight file, found nothing at {missing[0]}."
            )
        self._choices |= {own.name: f"{own.name}: {own.what}" for own in SHIPPED.values()}
        if not self._choices:
            raise UserError("Expected a run or a weight file to restore with, found none.")
        self._loaded: dict[str, Loaded] = {}
        self._results: OrderedDict[str, _Result] = OrderedDict()
        self._working = threading.Lock()
        nonce = secrets.token_urlsafe(16)
        html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        self._html = html.replace("NONCE", nonce).encode()
        self._policy = (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; "
            f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
        try:
            self._server = http.server.ThreadingHTTPServer(
                ("127.0.0.1", port), lambda *words: _Handler(self, *words)
            )
        except (OSError, OverflowError) as error:
            raise UserError(f"Expected a free port, found {port}: {error}.") from None
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    @property
    def limits(self) -> Limits:
        """Of a picture."""
        return self._limits

    def serve(self) -> None:
        """Answer until `stop` is called, or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End `serve`, from another thread."""
        self._server.shutdown()

    def models(self) -> list[dict[str, str]]:
        """What can be chosen."""
        return [{"name": name, "what": what} for name, what in self._choices.items()]

    def page(self) -> tuple[bytes, str]:
        """The page, and what it may load."""
        return self._html, self._policy

    def result(self, name: str, which: str) -> tuple[str, bytes, str] | None:
        """Type, content and name of a kept file."""
        found = self._results.get(name)
        if found is None or which not in found.files:
            return None
        return (*found.files[which], found.name)

    def restore(self, content: bytes, name: str, model: str) -> dict[str, str]:
        """Restore a picture; what the page shows of it.

        Raises:
          UserError: busy, an unknown network, or a picture that is too large or no picture.
        """
        if model not in self._choices:
            raise UserError(f"Expected a network of the list, found {model!r}.")
        if not self._working.acquire(blocking=False):
            raise _Busy("Another picture is being restored: try again when it is done.")
        try:
            start = time.monotonic()
            result, said = self._restored(content, name, model, start + self._limits.seconds)
        finally:
            self._working.release()
        token = secrets.token_urlsafe(24)
        self._results[token] = result
        while len(self._results) > _KEPT:
            self._results.popitem(last=False)
        parts = {which: f"/result/{token}/{which}" for which in result.files}
        seconds = time.monotonic() - start
        return {**parts, "name": result.name, "said": f"{said}{seconds:.1f} s"}

    def _restored(self, content: bytes, name: str, model: str, end: float) -> tuple[_Result, str]:
        from jaxcore.cli.restoring import runner
        from jaxcore.data.images import check_ending, read_image, write_image
        from jaxcore.weights import load

        given = Path(name.replace("\\", "/")).name or "picture"
        suffix = Path(given).suffix.lower()
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "in")
            source.write_bytes(content)
            try:
                picture = read_image(source, max_bytes=self._limits.pixels * 3)
            except UserError as error:
                raise UserError(str(error).replace(str(source), readable(given))) from None
            try:
                check_ending(Path(f"x{suffix}"))
            except UserError:
                suffix = ".png"
            if model not in self._loaded:
                self._loaded = {model: load(model)}  # one at a time: they take memory
            height, width = picture.pixels.shape[:2]
            multiple = self._loaded[model].network.multiple(self._loaded[model].cfg)
            tile = _TILE // multiple * multiple if max(height, width) > _TILE else None
            options = {"tile": tile, "overlap": 32, "ensemble": False, "bucket": None}
            run = runner(self._loaded[model], options, [(width, height)], several=False)
            restored = run(picture.unit(), _watched(end, self._limits.seconds))
            files = {}
            out = Path(folder, f"out{suffix}")
            write_image(out, restored, like=picture)
            files["download"] = ("application/octet-stream", out.read_bytes())
            for which, pixels in (("before", picture.unit()), ("after", restored)):
                preview = Path(folder, f"{which}.jpg")
                write_image(preview, np.clip(pixels, 0, 1))
                files[which] = (_PREVIEW, preview.read_bytes())
        notes = [*self._loaded[model].notes, *([picture.note] if picture.note else [])]
        said = "".join(f"{note}; " for note in notes) + f"{width}x{height} pixels, "
        return _Result(f"{Path(given).stem}_restored{suffix}", files), said


def _watched(end: float, seconds: float) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if time.monotonic() > end and done < total:
            raise UserError(
                f"The picture takes more than {seconds:g} s: try a smaller one, or jaxcore restore."
            )

    return progress


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server_version, sys_version = "jaxcore", ""
    timeout = 60  # seconds without a byte

    def __init__(self, page: Page, *words: Any) -> None:
        self._page = page
        super().__init__(*words)

    def log_message(self, format: str, *args: Any) -> None:  # its name there
        """Nothing is printed."""

    def _answer(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _own_host(self) -> bool:
        """Whether the request was made to this machine by its own name."""
        if (self.headers.get("Host") or "").rpartition(":")[0] in _HOSTS:
            return True
        self._json(403, {"error": "Expected a request to 127.0.0.1."})
        return False

    def do_GET(self) -> None:
        """The page, the networks, a result."""
        if not self._own_host():
            return
        path = urllib.parse.urlsplit(self.path).path
        if path == "/":
            html, policy = self._page.page()
            self._answer(200, html, "text/html; charset=utf-8", Content_Security_Policy=policy)
        elif path == "/models":
            self._json(200, {"models": self._page.models(), "bytes": self._page.limits.bytes})
        else:
            parts = path.split("/")
            named = len(parts) == 4 and parts[1] == "result"
            found = self._page.result(parts[2], parts[3]) if named else None
            if found is None:
                self._json(404, {"error": "There is nothing here."})
                return
            kind, content, _ = found
            self._answer(200, content, kind)

    def do_POST(self) -> None:
        """Restore the picture that is sent."""
        if not self._own_host():
            return
        asked = urllib.parse.urlsplit(self.path)
        if asked.path != "/restore" or self.headers.get("X-Jaxcore") != "page":
            self.close_connection = True
            self._json(403, {"error": "Expected a picture from the page."})
            return
        length = self.headers.get("Content-Length", "")
        limit = self._page.limits.bytes
        if not length.isdecimal() or not 0 < int(length) <= limit:
            self.close_connection = True
            self._json(413, {"error": f"Expected a picture of at most {limit / 1e6:g} MB."})
            return
        content = self.rfile.read(int(length))
        query = urllib.parse.parse_qs(asked.query)
        name, model = (query.get(key, [""])[0] for key in ("name", "model"))
        try:
            self._json(200, self._page.restore(content, name, model))
        except _Busy as error:
            self._json(503, {"error": str(error)})
        except UserError as error:
            self._json(400, {"error": str(error)})
