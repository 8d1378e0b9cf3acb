"""libvirt's lifecycle events, handed on outside its event thread.

A callback that calls libvirt would block the thread that has to deliver the answer, so events go
through a queue to a thread of our own.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

_log = logging.getLogger(__name__)

Handler = Callable[[str], None]


class Events:
    """Calls ``handler`` with the UUID of each domain whose state may have changed.

    Threads that wait for a domain are woken after it.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._count = 0
        self._thread = threading.Thread(target=self._run, name="libvirt-dispatch", daemon=True)
        self._thread.start()

    def register(self, connection: Any) -> list[int]:
        """Listen to every domain of ``connection``; the ids of the registrations."""
        return [
            connection.domainEventRegisterAny(None, event, self._on_event, event)
            for event in (
                libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
                libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
            )
        ]

    def put(self, uuid: str) -> None:
        """Behave as if libvirt had told of a change."""
        self._queue.put(uuid)

    def wait_until(self, done: Callable[[], bool], timeout: float, poll: float = 2.0) -> bool:
        """Wait for ``done()``, asked after each event and every ``poll`` seconds besides.

        The poll is for events that are lost with a connection. False after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                seen = self._count
            if done():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._changed:
                if self._count == seen:
                    self._changed.wait(min(left, poll))

    def close(self) -> None:
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _on_event(self, _connection: Any, domain: Any, *details: Any) -> None:
        """Called by libvirt's event thread; the last of ``details`` is the kind of event."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()
        lifecycle = details[-1] == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        if lifecycle and details[0] != libvirt.VIR_DOMAIN_EVENT_DEFINED:
            self._queue.put(domain.UUIDString())

    def _run(self) -> None:
        while (uuid := self._queue.get()) is not None:
            try:
                self._handler(uuid)
            except Exception:  # noqa: BLE001  one bad callback must not end all watching
                _log.exception("handling a change of domain %s failed", uuid)
