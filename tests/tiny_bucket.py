"""A bucket in memory, as much of one as runs need: for fsspec, and over HTTP for TensorStore.

Files of Python go through fsspec (which would take gcsfs from the internet), arrays through the
driver of TensorStore for ``gs://``, which is told where this server is.
"""

import contextlib
import io
import json
import sys
import threading
import types
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fsspec

OBJECTS: dict[str, tuple[int, bytes]] = {}  # "bucket/name" -> generation, content
_LOCK = threading.Lock()


def put(name, content):
    with _LOCK:
        OBJECTS[name] = (OBJECTS.get(name, (0, b""))[0] + 1, bytes(content))
        return OBJECTS[name][0]


class BucketFiles(fsspec.AbstractFileSystem):
    """What gcsfs is to fsspec: no folders but those in names, whole files when they are closed."""

    protocol = ("gcs", "gs")

    @classmethod
    def _strip_protocol(cls, path):
        return path.partition("://")[2].strip("/") if "://" in path else path.strip("/")

    def ls(self, path, detail=True, **kwargs):
        path = self._strip_protocol(path)
        found = {}
        for name, (_, content) in list(OBJECTS.items()):
            if name == path:
                found[name] = {"name": name, "size": len(content), "type": "file"}
            elif name.startswith(f"{path}/"):
                first, deeper, _ = name[len(path) + 1 :].partition("/")
                kind = "directory" if deeper else "file"
                whole = f"{path}/{first}"
                found[whole] = {"name": whole, "size": len(content), "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def info(self, path, **kwargs):
        path = self._strip_protocol(path)
        if path in OBJECTS:
            return {"name": path, "size": len(OBJECTS[path][1]), "type": "file"}
        self.ls(path)
        return {"name": path, "size": 0, "type": "directory"}

    def mkdir(self, path, create_parents=True, **kwargs):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    def rm_file(self, path):
        if OBJECTS.pop(self._strip_protocol(path), None) is None:
            raise FileNotFoundError(path)

    def rmdir(self, path):
        pass

    def rm(self, path, recursive=False, maxdepth=None):
        path = self._strip_protocol(path)
        below = [name for name in list(OBJECTS) if recursive and name.startswith(f"{path}/")]
        for name in below or [path]:
            self.rm_file(name)

    def cp_file(self, path1, path2, **kwargs):
        put(self._strip_protocol(path2), OBJECTS[self._strip_protocol(path1)][1])

    def open(
        self, path, mode="rb", block_size=None, cache_options=None, compression=None, **kwargs
    ) -> Any:
        path = self._strip_protocol(path)
        assert mode in ("r", "rb", "w", "wb"), "nothing in a bucket can be appended to"
        if mode[0] == "r":
            if path not in OBJECTS:
                raise FileNotFoundError(path)
            file = io.BytesIO(OBJECTS[path][1])
        else:
            file = _Growing(path)
        return file if "b" in mode else io.TextIOWrapper(file, "utf-8")


class _Growing(io.BytesIO):
    def __init__(self, name):
        super().__init__()
        self._name = name

    def close(self):
        if not self.closed:
            put(self._name, self.getvalue())
        super().close()


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def _answer(self, code, content=b"", generation=None):
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        if generation is not None:
            self.send_header("x-goog-generation", str(generation))
        self.end_headers()
        self.wfile.write(content)

    def _asked(self):
        """Bucket, name of the object (or None), and options."""
        url = urllib.parse.urlsplit(self.path)
        options = dict(urllib.parse.parse_qsl(url.query))
        bucket, _, name = url.path.partition("/b/")[2].partition("/o")
        return bucket, urllib.parse.unquote(name.strip("/")) or options.get("name"), options

    def _unchanged(self, key, options):
        wanted = options.get("ifGenerationMatch")
        return wanted is None or int(wanted) == OBJECTS.get(key, (0, b""))[0]

    def do_GET(self):
        bucket, name, options = self._asked()
        if name is None:
            prefix = f"{bucket}/{options.get('prefix', '')}"
            names = sorted(key for key in list(OBJECTS) if key.startswith(prefix))
            items = [
                {"name": key.partition("/")[2], "generation": str(OBJECTS[key][0]), "size": "1"}
                for key in names
                if key.partition("/")[2] >= options.get("startOffset", "")
            ]
            self._answer(200, json.dumps({"items": items}).encode())
        elif (key := f"{bucket}/{name}") not in OBJECTS:
            self._answer(404)
        else:
            generation, content = OBJECTS[key]
            span = self.headers.get("Range", "").removeprefix("bytes=")
            if not span:
                self._answer(200, content, generation)
                return
            first, _, last = span.partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
            self.send_response(206)
            end = int(first) + len(part) - 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("x-goog-generation", str(generation))
            self.end_headers()
            self.wfile.write(part)

    def do_POST(self):
        bucket, name, options = self._asked()
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = f"{bucket}/{name}"
        if not self._unchanged(key, options):
            self._answer(412)
            return
        about = {"name": name, "generation": str(put(key, content)), "size": str(len(content))}
        self._answer(200, json.dumps(about).encode())

    def do_DELETE(self):
        bucket, name, _ = self._asked()
        found = OBJECTS.pop(f"{bucket}/{name}", None)
        self._answer(204 if found else 404)


@contextlib.contextmanager
def bucket(monkeypatch):
    """While it is entered, ``gs://bucket`` is the one in memory; gives its objects."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    fsspec.register_implementation("gcs", BucketFiles, clobber=True)
    # Asked by Orbax, when it deletes, whether the bucket keeps folders: it does not.
    plain = types.SimpleNamespace(hierarchical_namespace_enabled=False)
    client = types.SimpleNamespace(get_bucket=lambda _: plain)
    storage = types.SimpleNamespace(Client=lambda: client)
    cloud = types.ModuleType("google.cloud")
    cloud.__dict__["storage"] = storage
    monkeypatch.setitem(sys.modules, "google.cloud", cloud)
    monkeypatch.setitem(sys.modules, "google.cloud.storage", storage)
    OBJECTS.clear()
    try:
        yield OBJECTS
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
