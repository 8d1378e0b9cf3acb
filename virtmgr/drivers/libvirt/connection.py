"""One connection to libvirtd that comes back by itself.

libvirt-python needs its event loop registered before the first connection, once per process, and
calls back from the thread that runs it. Nothing here calls libvirt from that thread: callbacks
only set events and fill queues.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import libvirt

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.libvirt.errors import translate

_KEEPALIVE_SECONDS = 5
_KEEPALIVE_COUNT = 3
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 10.0

Setup = Callable[[Any], list[int]]
"""Called with a new ``virConnect``, before anybody else may use it; registers callbacks.

Answers their ids: a connection with callbacks left stays open.
"""


@cache
def ensure_event_loop() -> None:
    """Run libvirt's event loop in a daemon thread, once per process."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised as well
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt-events", daemon=True).start()


class _Link:
    """One open connection and whether it has died."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.dead = False
        self.callbacks: list[int] = []


class Connection:
    """A connection to ``uri``, opened when first needed and again when it was lost.

    ``watch`` adds a thread that reopens a lost connection at once, then with a delay that grows
    to ten seconds; without it a lost connection is reopened by the next ``get``.
    """

    def __init__(self, uri: str, setup: Setup) -> None:
        self.uri = uri
        self._setup = setup
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._look = threading.Event()  # something happened that the watcher should look at
        self._closed = False
        self._watcher: threading.Thread | None = None

    def get(self) -> Any:
        """The live ``virConnect``.

        :raises DriverError: code ``libvirt_unavailable``, libvirtd does not answer.
        """
        return self._get_link().connection

    def watch(self, on_connect: Callable[[], None]) -> None:
        """Keep the connection open from now on; ``on_connect`` follows each time it was opened."""
        if self._watcher is None:
            self._watcher = threading.Thread(
                target=self._keep, args=(on_connect,), name="libvirt-watch", daemon=True
            )
            self._watcher.start()

    def close(self) -> None:
        """Close for good, and stop watching."""
        self._closed = True
        self._look.set()
        if self._watcher is not None:
            self._watcher.join()
        with self._lock:
            self._discard()

    def _get_link(self) -> _Link:
        with self._lock:
            if self._closed:
                raise DriverError(f"cannot use libvirt at {self.uri}: the driver is closed")
            if self._link is not None and self._link.dead:
                self._discard()
            if self._link is None:
                try:
                    self._link = self._open()
                except libvirt.libvirtError as error:
                    raise translate(f"reach libvirt at {self.uri}", error) from error
            return self._link

    def _open(self) -> _Link:
        ensure_event_loop()
        connection = libvirt.open(self.uri)
        link = _Link(connection)
        try:
            connection.registerCloseCallback(self._on_close, link)
            connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
            link.callbacks = self._setup(connection)
        except libvirt.libvirtError:
            _close(link)
            raise
        return link

    def _on_close(self, _connection: Any, _reason: int, link: _Link) -> None:
        """Called by libvirt's event thread."""
        link.dead = True
        self._look.set()

    def _discard(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            _close(link)

    def _keep(self, on_connect: Callable[[], None]) -> None:
        known: _Link | None = None
        delay = _FIRST_DELAY
        while not self._closed:
            self._look.clear()
            try:
                link = self._get_link()
            except DriverError:
                self._look.wait(delay)
                delay = min(delay * 2, _LONGEST_DELAY)
                continue
            delay = _FIRST_DELAY
            if link is not known:
                known = link
                on_connect()
            if not link.dead:
                self._look.wait()


def _close(link: _Link) -> None:
    try:
        link.connection.unregisterCloseCallback()
        for callback in link.callbacks:
            link.connection.domainEventDeregisterAny(callback)
        link.connection.close()
    except libvirt.libvirtError:  # it was lost: nothing is left to close
        return
