"""The web process's worker: its clients are bounded, its TLS is renewed, its end is swift.

At the end what waits for news is answered at once, requests in flight are answered within
``graceful_timeout``, and connections that only wait for a next request are closed.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer

from virtmgr.api.wakes import Waiting
from virtmgr.bootstrap import serving
from virtmgr.bootstrap.forks import adopt_gevent, names_taken
from virtmgr.bootstrap.processes import die_with_parent, leave
from virtmgr.bootstrap.serving import AGENT_CONNECTIONS, BoundedWorker, check_host
from virtmgr.bootstrap.stream_relay import Asked, is_stream
from virtmgr.bootstrap.waiting_hosts import Kept, response

_BEAT = 1.0  # seconds between signs of life for the arbiter
_QUIET = 0.1  # seconds without any request, after which none is on its way
_patience: ContextVar[float] = ContextVar("patience")
"""Seconds for a request's head, of the connection that a greenlet serves."""
_listener: ContextVar[Any] = ContextVar("listener")
"""By which the connection came that a greenlet serves."""


class _Waits(Exception):
    """A request's answer is not there yet."""

    def __init__(self, waiting: Waiting) -> None:
        super().__init__()
        self.waiting = waiting


class WebWorker(BoundedWorker):
    """Serves ``virtmgr.bootstrap.web.WebServer``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ending = Event()
        self._busy = 0  # requests in flight

    def init_process(self) -> None:
        die_with_parent(self.ppid)
        super().init_process()

    def patch(self) -> None:
        """Put gevent's sockets, locks and threads in the place of Python's."""
        taken = names_taken()
        super().patch()
        adopt_gevent(taken)

    def run(self) -> None:
        servers = [
            StreamServer(
                listener,
                handle=partial(self.handle, listener),
                spawn=Pool(self._most_connections(listener)),
                ssl_context=self.app.tls(listener.getsockname()[1]),
            )
            for listener in self.sockets
            if self.app.serves(listener.getsockname()[1])
        ]
        for server in servers:
            server.start()
        while self.alive:
            self.notify()
            self._ending.wait(_BEAT)
            self.app.look_at_certificate()
        for server in servers:
            server.stop_accepting()  # close() would fail those that shake hands just now
            server.socket.close()
        self.app.let_go()
        self._answer_the_last()
        leave()

    def _most_connections(self, listener: Any) -> int:
        if self.app.is_for_operators(listener.getsockname()[1]):
            return int(self.worker_connections)
        return AGENT_CONNECTIONS

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        operators = self.app.is_for_operators(listener.getsockname()[1])
        _patience.set(serving.HEAD_SECONDS if operators else serving.AGENT_HEAD_SECONDS)
        _listener.set(listener)
        super().handle(listener, client, addr)

    def timeout_ctx(self) -> gevent.Timeout:
        return gevent.Timeout(_patience.get(), False)

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._ending.set()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        if is_stream(req.path) and self.app.is_for_operators(listener_name[1]):
            check_host(req.version, req.headers)
            self.app.streams.serve(sock, Asked(req.method, req.path, tuple(req.headers)))
            raise StopIteration  # the connection is used up
        self._busy += 1
        try:
            super().handle_request(listener_name, req, sock, addr)
        except _Waits as waits:
            self._keep(_listener.get(), sock, addr, req, waits.waiting)
            raise StopIteration from None  # whoever serves it now is done with it
        finally:
            self._busy -= 1

    def is_already_handled(self, respiter: Any) -> bool:
        if isinstance(respiter, Waiting):
            raise _Waits(respiter)
        return bool(super().is_already_handled(respiter))

    def _keep(self, listener: Any, client: Any, addr: Any, req: Any, waiting: Waiting) -> None:
        # What a client sent ahead would be lost with its parser; agents send nothing ahead.
        ahead = client.pending() or req.unreader.buf.getbuffer().nbytes
        last = req.should_close() or bool(ahead)
        Kept(client, addr, listener, waiting, last, self._go_on).begin()

    def _go_on(self, kept: Kept) -> None:
        """Answer a poll that has waited, and serve what else comes by its connection."""
        last = kept.last or not self.alive
        self._busy += 1
        try:
            kept.client.sendall(response(kept.waiting.content, last=last))
        except OSError:
            last = True
        finally:
            self._busy -= 1
        if last:
            kept.client.close()
        else:
            self.handle(kept.listener, kept.client, kept.address)

    def _answer_the_last(self) -> None:
        """Let requests in flight be answered, and those that were sent just now."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        quiet_since = time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - quiet_since < _QUIET:
            self.notify()
            gevent.sleep(_QUIET / 5)
            if self._busy:
                quiet_since = time.monotonic()
        if self._busy:
            self.log.warning("ending with %s requests unanswered", self._busy)
