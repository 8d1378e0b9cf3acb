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
from virtmgr.enrollment.pki import client_context, server_context

LOOK = 10.0  # seconds between looks at the files: one stat each

_log = structlog.get_logger()


class OwnCertificate:
    """The TLS contexts of one process. Not safe in threads: one of them calls ``take_up``."""

    def __init__(self, settings: ServerSettings) -> None:
        self._ca = settings.ca_file
        self._paths = server_certificate(settings)
        self._shown = settings.shown_certificate or self._paths
        self._stamp = self._look()
        self._contexts: list[LiveContext] = []

    def for_clients(self, sockets: type[ssl.SSLSocket] = ssl.SSLSocket) -> ssl.SSLContext:
        """To be dialled by people and programs; it may be a certificate of the operator's own."""

        def make() -> ssl.SSLContext:
            context = server_context(*self._shown)
            context.sslsocket_class = sockets
            return context

        return self._kept(make)

    def for_hosts(self, sockets: type[ssl.SSLSocket] = ssl.SSLSocket) -> ssl.SSLContext:
        """To be dialled by agents, which may show certificates of the private CA."""

        def make() -> ssl.SSLContext:
            context = server_context(*self._paths)
            context.load_verify_locations(self._ca)
            context.verify_mode = ssl.CERT_OPTIONAL
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
        try:
            for context in self._contexts:
                context.take_up()
        except OSError as error:  # key and certificate are two files: are both new?
            _log.warning("certificate.not_taken_up", error=str(error))  # looked at again
            return False
        self._stamp = stamp
        _log.info("certificate.taken_up", file=str(self._shown[0]))
        return True

    def _look(self) -> tuple[tuple[int, int], ...]:
        return tuple(_stamp(path) for path in (*self._paths, *self._shown, self._ca))

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
