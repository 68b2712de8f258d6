"""Pass bytes between JAX in its process and the service of the first process; a script of its own.

A process of its own, because JAX waits for answers of the service with Python's lock held. It keeps
the connection to JAX when that to the service ends, and ends with the process that started it.
"""

import os
import socket
import sys
import threading
from contextlib import suppress


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)


def _serve(near: socket.socket, host: str, port: int) -> None:
    try:
        far = socket.create_connection((host, port), timeout=60)
    except OSError:
        return near.close()  # JAX tries again
    far.settimeout(None)
    for one in (near, far):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_copy, args=(far, near), daemon=True).start()
    _copy(near, far)
    far.close()


def _accept(server: socket.socket, host: str, port: int) -> None:
    while True:
        near, _ = server.accept()
        threading.Thread(target=_serve, args=(near, host, port), daemon=True).start()


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(
        target=_accept, args=(listening, sys.argv[1], int(sys.argv[2])), daemon=True
    ).start()
    print(listening.getsockname()[1], flush=True)
    sys.stdin.read()  # to the end of the process that started this one
    os._exit(0)
