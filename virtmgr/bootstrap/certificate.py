"""The control plane's own certificate: renewed by one process, taken up by all without a restart.

New connections show the new certificate; those that are open go on with the old one.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from virtmgr.api.dialling import without_names
from virtmgr.bootstrap.control_plane import server_certificate
from virtmgr.config.settings import ServerSettings
from virtmgr.enrollment.pki import client_context, server_context

LOOK = 10.0  # seconds between looks at the certificate's file: one stat each

_log = structlog.get_logger()


class OwnCertificate:
    """The TLS contexts of one process. Not safe in threads: one of them calls ``take_up``."""

    def __init__(self, settings: ServerSettings) -> None:
        self._ca = settings.ca_file
        self._paths = server_certificate(settings)
        self._stamp = _stamp(self._paths[0])
        self._contexts: list[ssl.SSLContext] = []

    def for_clients(self, *, of_hosts_too: bool = False) -> ssl.SSLContext:
        """To be dialled; ``of_hosts_too`` lets clients show certificates of the private CA."""
        context = server_context(*self._paths)
        if of_hosts_too:
            context.load_verify_locations(self._ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        return self._kept(context)

    def for_agents(self) -> ssl.SSLContext:
        """To dial agents, and recognise them by their certificates."""
        return self._kept(without_names(client_context(self._ca, *self._paths)))

    def take_up(self) -> bool:
        """Let every context show the certificate that is on disk now; whether it is a new one."""
        stamp = _stamp(self._paths[0])
        if stamp == self._stamp:
            return False
        try:
            server_context(*self._paths)  # key and certificate are two files: are both new?
            for context in self._contexts:
                context.load_cert_chain(*self._paths)
        except (OSError, ssl.SSLError) as error:
            _log.warning("certificate.not_taken_up", error=str(error))  # looked at again
            return False
        self._stamp = stamp
        _log.info("certificate.taken_up", file=str(self._paths[0]))
        return True

    def _kept(self, context: ssl.SSLContext) -> ssl.SSLContext:
        self._contexts.append(context)
        return context


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
