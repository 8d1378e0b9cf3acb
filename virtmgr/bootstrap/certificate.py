"""What the control plane shows and trusts: changed by one process, taken up by all.

Nothing is restarted: new connections show the new certificate, and those that are open go on with
the old one.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from virtmgr.api.dialling import without_names
from virtmgr.bootstrap.control_plane import server_certificate
from virtmgr.bootstrap.live_context import LiveContext
from virtmgr.config.settings import ServerSettings
from virtmgr.domain.errors import Unavailable
from virtmgr.enrollment.pki import check_given, client_context, server_context

LOOK = 10.0  # seconds between looks at the files: one stat each

_log = structlog.get_logger()


class OwnCertificate:
    """The TLS contexts of one process. Not safe in threads: one of them calls ``take_up``."""

    def __init__(self, settings: ServerSettings) -> None:
        self._ca = settings.ca_file
        self._paths = server_certificate(settings)
        self._given = settings.given_certificate
        self._stamp = self._warned = self._look()
        self._contexts: list[LiveContext] = []

    def for_clients(self, sockets: type[ssl.SSLSocket] = ssl.SSLSocket) -> ssl.SSLContext:
        """To be dialled by people and programs; it may be a certificate of the operator's own.

        One that is not usable keeps nobody from running, agents least of all: they are shown
        another one. ``virtmgr serve`` refuses it.
        """
        shown = self._paths
        if self._given is not None:
            try:
                check_given(*self._given)
                shown = self._given
            except Unavailable as error:
                _log.error("certificate.not_usable", error=error.message, hint=error.hint)

        def make() -> ssl.SSLContext:
            nonlocal shown
            if self._contexts and self._given is not None:
                check_given(*self._given)
                shown = self._given
            context = server_context(*shown)
            context.sslsocket_class = sockets
            return context

        return self._kept(make)

    def for_hosts(self, sockets: type[ssl.SSLSocket] = ssl.SSLSocket) -> ssl.SSLContext:
        """To be dialled by agents, which may show certificates of the private CA."""

        def make() -> ssl.SSLContext:
            context = server_context(*self._paths)
            context.load_verify_locations(self._ca)
            context.verify_mode = ssl.CERT_OPTIONAL
            context.num_tickets = 0  # agents do not resume sessions; a quarter of a handshake
            context.sslsocket_class = sockets
            return context

        return self._kept(make)

    def for_agents(self) -> ssl.SSLContext:
        """To dial agents, and recognise them by their certificates."""
        return self._kept(lambda: without_names(client_context(self._ca, *self._paths)))

    def take_up(self) -> bool:
        """Let every context be of the files as they are now; whether they are new."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        failed: Exception | None = None
        for context in self._contexts:
            try:
                context.take_up()
            except (OSError, Unavailable) as error:  # key and certificate are two files
                failed = error
        if failed is not None:  # looked at again
            if stamp != self._warned:
                _log.warning("certificate.not_taken_up", error=str(failed))
            self._warned = stamp
            return False
        self._stamp = stamp
        _log.info("certificate.taken_up")
        return True

    def _look(self) -> tuple[tuple[int, int], ...]:
        return tuple(_stamp(path) for path in (*self._paths, *(self._given or ()), self._ca))

    def _kept(self, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = LiveContext(make)
        self._contexts.append(context)
        return context


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
