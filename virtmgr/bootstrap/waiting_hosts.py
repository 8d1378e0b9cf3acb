"""Connections of hosts that wait for news, with no greenlet for each.

Every host waits nearly all the time. A greenlet that waits keeps its stack, and what gunicorn and
the application had made of the request: as much again as OpenSSL keeps of the connection itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import gevent

from virtmgr.api.wakes import MEDIA_TYPE, Waiting
from virtmgr.bootstrap.serving import BoundedSocket


@dataclass(slots=True, eq=False)
class Kept:
    """A connection whose poll waits.

    ``go_on`` is called in a greenlet of its own once the answer is there, or its time is over.
    ``last``: the client wants the connection to end with the answer.
    """

    client: BoundedSocket
    address: Any  # as ``accept`` gave it
    listener: Any  # that it came by
    waiting: Waiting
    last: bool
    go_on: Callable[[Kept], None]
    timer: Any = None  # of gevent's loop

    def begin(self) -> None:
        """Keep the connection until there is an answer."""
        self.client.kept = True
        self.waiting.start_response = None  # it holds all of the request
        self.timer = gevent.get_hub().loop.timer(self.waiting.timeout)
        if self.waiting.signal.watch(self.waiting.seen, self._end):
            self.timer.start(self._end)
        else:
            self._end()

    def _end(self) -> None:
        """Once: news and the end of its time may come together."""
        timer, self.timer = self.timer, None
        if timer is None:
            return
        timer.stop()
        timer.close()
        self.waiting.signal.unwatch(self._end)
        gevent.spawn(self._go_on)

    def _go_on(self) -> None:
        # Not before: the greenlet that began this may still be on its way to close the connection.
        self.client.kept = False
        self.go_on(self)


def response(content: bytes, *, last: bool) -> bytes:
    """A whole answer (RFC 9112, 6.2), after which the connection is kept unless it is the last."""
    head = (
        f"HTTP/1.1 {HTTPStatus.OK.value} {HTTPStatus.OK.phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Connection: {'close' if last else 'keep-alive'}",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(content)}",
    )
    return "\r\n".join([*head, "", ""]).encode() + content
