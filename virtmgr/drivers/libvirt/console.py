"""The serial console: QEMU's socket, shared by all who look at it.

QEMU serves one client at a time. A hub per VM holds that one connection while anybody is attached,
sends what comes out to everybody and takes what anybody types, so that two people see the same.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from virtmgr.domain.errors import DriverError

_CHUNK = 65536
_CONNECT_TIMEOUT = 5.0


class Consoles:
    """The hubs of one driver."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hubs: dict[Path, _Hub] = {}

    def attach(self, path: Path) -> socket.socket:
        """A stream to the console that QEMU serves at ``path``; closing it detaches.

        :raises DriverError: QEMU does not answer there.
        """
        with self._lock:
            hub = self._hubs.get(path)
            client = hub.add() if hub is not None else None
            if client is None:
                hub = self._hubs[path] = _Hub(_connect(path), self._forget, path)
                client = hub.add()
            assert client is not None, "a new hub takes clients"
            return client

    def close(self) -> None:
        """Detach everybody."""
        with self._lock:
            hubs = list(self._hubs.values())
        for hub in hubs:
            hub.close()

    def _forget(self, hub: _Hub) -> None:
        with self._lock:
            if self._hubs.get(hub.path) is hub:
                del self._hubs[hub.path]


def _connect(path: Path) -> socket.socket:
    upstream = socket.socket(socket.AF_UNIX)
    upstream.settimeout(_CONNECT_TIMEOUT)
    try:
        upstream.connect(str(path))
    except OSError as error:
        upstream.close()
        raise DriverError(
            f"cannot attach to the console at {path}: {error.strerror or error}",
            hint="the VM must be running",
        ) from error
    return upstream


class _Hub:
    """Copies between QEMU and any number of clients, in one thread, until the last one leaves.

    A client that does not read loses output rather than holding up the others.
    """

    def __init__(self, upstream: socket.socket, on_end: Callable[[_Hub], None], path: Path) -> None:
        self.path = path
        self._upstream = upstream
        self._on_end = on_end
        self._lock = threading.Lock()
        self._ended = False
        self._joining: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name=f"console-{path}", daemon=True)

    def add(self) -> socket.socket | None:
        """A new client's socket; None if the hub has just ended."""
        with self._lock:
            if self._ended:
                return None
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self._joining.append(ours)
            if not self._thread.is_alive():
                self._thread.start()
            else:
                self._wake.send(b".")
            return theirs

    def close(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._upstream.shutdown(socket.SHUT_RDWR)  # QEMU's end reads as closed: the hub ends
        self._thread.join()

    def _run(self) -> None:
        clients: set[socket.socket] = set()
        with selectors.DefaultSelector() as selector:
            selector.register(self._upstream, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            try:
                while self._admit(selector, clients):
                    self._copy(selector, clients)
            except OSError:  # QEMU has gone
                with self._lock:
                    self._ended = True
        self._end(clients)

    def _admit(self, selector: selectors.BaseSelector, clients: set[socket.socket]) -> bool:
        """Take in new clients; False, and the hub has ended, once there are none."""
        with self._lock:
            for client in self._joining:
                selector.register(client, selectors.EVENT_READ)
                clients.add(client)
            self._joining.clear()
            self._ended = not clients
            return not self._ended

    def _copy(self, selector: selectors.BaseSelector, clients: set[socket.socket]) -> None:
        for key, _ in selector.select():
            source = key.fileobj
            assert isinstance(source, socket.socket)
            if source is self._woken:
                source.recv(_CHUNK)
            elif source is self._upstream:
                self._spread(_read_upstream(source), clients)
            elif not self._forward(source):
                selector.unregister(source)
                clients.discard(source)
                source.close()

    def _spread(self, data: bytes, clients: set[socket.socket]) -> None:
        for client in clients:
            try:
                client.send(data)
            except OSError:  # full or gone; if gone, reading from it will tell
                continue

    def _forward(self, client: socket.socket) -> bool:
        """Pass on what a client typed; False once it has left."""
        try:
            data = client.recv(_CHUNK)
        except ConnectionError:
            return False
        if data:
            self._upstream.sendall(data)
        return bool(data)

    def _end(self, clients: set[socket.socket]) -> None:
        self._on_end(self)
        with self._lock:
            every = [*clients, *self._joining, self._upstream, self._wake, self._woken]
        for each in every:
            each.close()


def _read_upstream(upstream: socket.socket) -> bytes:
    data = upstream.recv(_CHUNK)
    if not data:
        raise ConnectionError("QEMU closed the console")
    return data
