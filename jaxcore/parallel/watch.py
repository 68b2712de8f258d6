"""Know within seconds that a process of the job is gone, and end with one sentence.

JAX notices a dead process by missing heartbeats, after a minute and more, and then aborts with a
stack trace of C++. Here every process holds a connection to the first one. The kernel closes it
when its process dies, whatever it died of, and probes it (TCP keep-alive) when a whole host falls
silent: a process that compiles, waits for data or is paused keeps its connections and is never
taken for dead. The first process passes on who is gone; a process that ends well says so before.

The others reach JAX's own coordination service through a relay (`jaxcore.parallel.relay`), so that
the end of the first process does not reach JAX, which would abort at once, before the sentence.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from jaxcore.errors import UserError
from jaxcore.parallel import relay

EXIT_PROCESS_GONE = 69
"""Exit code of the processes that are left when one of a job is gone (``EX_UNAVAILABLE``)."""

_HELLO = b"jaxcore "
_LOCAL = ("localhost", "127.0.0.1")
_START = 300.0  # seconds in which all processes must have come, as in JAX
_PROBES = {"TCP_KEEPIDLE": 8, "TCP_KEEPINTVL": 4, "TCP_KEEPCNT": 3}  # 20 s to a silent host's end
_SILENCE = 20_000  # ms in which data that were sent must be acknowledged
_GRACE = 1.0  # seconds for a process to end by a failure of its own that it can explain
_LAST = 2.0  # seconds more that the first process waits for the others to end before it
_NEWS = 5.0  # seconds that a failure waits for the news that explains it

_watch: "Watch | None" = None


class Watch:
    """The connections of one process of a job, served by a thread."""

    def __init__(self, address: str, index: int, count: int) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._address, self._index, self._count = address, index, count
        self._inner = 0  # port on this host where JAX's service is, or its relay
        self._others: dict[int, asyncio.StreamWriter] = {}
        self._finished: set[int] = set()  # have said that they end well
        self._complete = threading.Event()
        self._ended = False
        self.waited = False  # a failure, for news
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> str:
        """Find the others; returns the address of JAX's service for this process.

        Raises:
          UserError: they have not come in time, or the port is taken.
        """
        threading.Thread(target=self._serve, name="jaxcore-watch", daemon=True).start()
        if self._index == 0:
            self._run(self._listen())
            if not self._complete.wait(_START):
                found = ", ".join(map(str, [0, *sorted(self._others)]))
                raise UserError(
                    f"Expected {self._count} processes at {self._address} within {_START:.0f} s, "
                    f"found {found}."
                )
        else:
            self._run(self._join())
        return f"127.0.0.1:{self._inner}"

    def goodbye(self) -> None:
        """Say that this process ends well."""
        with contextlib.suppress(Exception):  # others may have left already
            self._run(self._say(f"bye {self._index}\n"), timeout=2)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _run(self, task: Any, timeout: float | None = None) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(timeout)

    def _keep(self, task: Any) -> None:
        """Run in the background; asyncio itself holds tasks weakly."""
        kept = self._loop.create_task(task)
        self._tasks.add(kept)
        kept.add_done_callback(self._tasks.discard)

    # The first process: one port for the others and for JAX.

    async def _listen(self) -> None:
        # A name of this host alone is served on it alone; others on all addresses, as JAX does.
        local = self._host in _LOCAL
        self._inner = _free_port("127.0.0.1" if local else "")
        try:
            await self._open(self._host if local else None)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"Expected a free port at {self._address}, found it in use: {error}."
                ) from error
            await self._open("127.0.0.1" if local else "0.0.0.0")  # a host without IPv6
        if self._count == 1:
            self._complete.set()

    async def _open(self, host: str | None) -> None:
        self._server = await asyncio.start_server(self._welcome, host, self._port)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = b""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            first = await asyncio.wait_for(reader.readexactly(len(_HELLO)), 10)
        if first != _HELLO:
            writer.close()
        else:
            await self._member(reader, writer)

    async def _member(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = (await _line(reader)).split()
        numbers = [int(word) for word in words if word.isdecimal()]
        if len(numbers) != 2:
            return writer.close()
        index, count = numbers
        refusal = ""
        if count != self._count:
            refusal = f"Expected {self._count} processes, found one that knows of {count}."
        elif index in self._others or not 0 < index < count:
            refusal = f"Expected one process {index}, found a second one."
        writer.write(f"{refusal or f'welcome {self._inner}'}\n".encode())
        if refusal:
            return writer.close()
        _probe(writer)
        self._others[index] = writer
        if len(self._others) == self._count - 1:
            self._complete.set()
        while line := await _line(reader):
            if line.startswith("bye"):
                self._finished.add(index)
        writer.close()
        del self._others[index]
        if index not in self._finished and not self._ended:
            self._ended = True
            await self._say(f"gone {index}\n")
            await asyncio.sleep(_GRACE)
            deadline = self._loop.time() + _LAST
            while self._others and self._loop.time() < deadline:
                await asyncio.sleep(0.02)
            self._end(index)

    async def _say(self, text: str) -> None:
        for writer in list(self._others.values()):
            with contextlib.suppress(OSError):
                writer.write(text.encode())
                await asyncio.wait_for(writer.drain(), 2)

    # The other processes.

    async def _join(self) -> None:
        deadline = self._loop.time() + _START
        while True:
            try:
                reader, writer = await asyncio.open_connection(self._host, self._port)
                break
            except OSError as error:
                if self._loop.time() > deadline:
                    raise UserError(
                        f"Expected the first process at {self._address} within {_START:.0f} s, "
                        f"found: {error}."
                    ) from error
                await asyncio.sleep(0.2)
        writer.write(_HELLO + f"{self._index} {self._count}\n".encode())
        answer = (await _line(reader)).strip()
        word, _, port = answer.partition(" ")
        if word != "welcome":
            raise UserError(answer or f"Expected a jaxcore process at {self._address}, found none.")
        _probe(writer)
        self._others[0] = writer
        self._keep(self._listen_to_first(reader))
        self._inner = await asyncio.to_thread(self._start_relay, port)

    def _start_relay(self, port: str) -> int:
        # Apart from our group of processes, so that Ctrl-C does not reach it.
        self._relay = subprocess.Popen(
            [sys.executable, "-I", "-S", relay.__file__, self._host, port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._relay.stdout is not None
        return int(self._relay.stdout.readline())

    async def _listen_to_first(self, reader: asyncio.StreamReader) -> None:
        gone = 0
        while line := await _line(reader):
            word, _, number = line.strip().partition(" ")
            if word == "bye":
                self._finished.add(0)
            elif word == "gone":
                gone = int(number)
                break
        if gone or 0 not in self._finished:
            await asyncio.sleep(_GRACE)
            self._end(gone)

    def _end(self, index: int) -> None:
        others = "the others" if self._count > 2 else "this one"
        text = (
            f"jaxcore: process {index} of {self._count} is gone, so {others} ended too; "
            "start all processes with the same command to go on from the last checkpoint.\n"
        )
        flush = threading.Thread(target=_flush, daemon=True)  # who prints may hold a lock
        flush.start()
        flush.join(1)
        if sys.stderr is not None and sys.stderr.isatty():
            text = f"\n{text}"  # below a bar of progress
        with contextlib.suppress(OSError):
            os.write(2, text.encode())
        os._exit(EXIT_PROCESS_GONE)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return free.getsockname()[1]


def _probe(writer: asyncio.StreamWriter) -> None:
    """Let the kernel find out when the other host is silent; names differ between systems."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {**_PROBES, "TCP_USER_TIMEOUT": _SILENCE}.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _line(reader: asyncio.StreamReader) -> str:
    """The next line; empty at the end of the connection, whatever ended it."""
    try:
        return (await reader.readline()).decode("ascii", "replace")
    except (OSError, ValueError):
        return ""


def start(address: str, index: int, count: int) -> str:
    """Watch over the processes of a job from now on.

    An exception that nobody catches ends a process of a job at once, when it has been printed:
    Python would otherwise wait for the others, which wait for this one.

    Args:
      address: host:port of the first process.
      index: of this process.
      count: of all.

    Returns:
      Where this process finds JAX's coordination service; the first one must start it there.

    Raises:
      UserError: the others have not come in time, or the port is taken.
    """
    import atexit

    global _watch
    watch = Watch(address, index, count)
    inner = watch.start()
    _watch, before = watch, sys.excepthook

    def end(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        if not isinstance(error, KeyboardInterrupt | UserError):
            _await_news()
        before(kind, error, where)
        if not hasattr(sys, "ps1"):  # an interactive session goes on
            _flush()
            os._exit(130 if isinstance(error, KeyboardInterrupt) else 1)

    sys.excepthook = end
    atexit.register(watch.goodbye)
    if os.name == "posix":
        _abort_later()
    return inner


def _abort_later() -> None:
    """Let an abort wait for the news that explains it.

    Gloo, which computes together on processors, aborts when processes that have lost one of them
    go on differently. No Python can run there: the handler is the C library's own ``sleep``, which
    takes the signal's number for seconds, 6. After that the abort goes on.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal.restype = ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def service_address(address: str, inner: str) -> str:
    """Where JAX's service listens in the first process, which finds it at ``inner`` itself.

    >>> service_address("localhost:1", "127.0.0.1:2"), service_address("host:1", "127.0.0.1:2")
    ('127.0.0.1:2', '[::]:2')
    """
    local = address.rpartition(":")[0] in _LOCAL
    return inner if local else f"[::]:{inner.rpartition(':')[2]}"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """A failure in it that a lost process has caused ends with the sentence about that instead.

    Whatever computes together with others fails when one is gone, at the same moment as the news
    comes: so the failure waits a little for it.

    >>> with explained():  # of a single process: as if it were not there
    ...     pass
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError):
            _await_news()
        raise


def _await_news() -> None:
    """Once: after that it is clear that the failure is this process's own."""
    if _watch is not None and not _watch.waited:
        time.sleep(_NEWS)
        _watch.waited = True
