"""The control plane's parts, put together the same way in each of its processes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from virtmgr.config.settings import Endpoint, ServerSettings
from virtmgr.domain.errors import Unavailable
from virtmgr.enrollment.pki import CertificateAuthority
from virtmgr.enrollment.playbooks import AnsiblePlaybooks, scan_keys
from virtmgr.enrollment.vault import KeyFileVault
from virtmgr.images.blobs import BlobStore
from virtmgr.ports.streams import Dialler
from virtmgr.services.container import Services, dial_nobody, wake_nobody
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


def authority(settings: ServerSettings) -> CertificateAuthority:
    return CertificateAuthority(settings.data_directory / "pki")


def build_services(
    settings: ServerSettings,
    wake_host: Callable[[str], None] = wake_nobody,
    dial: Dialler = dial_nobody,
) -> Services:
    """The ports of the control plane, over the configured database and data directory."""
    return Services(
        units=SqlUnitOfWorkFactory(make_engine(settings.database)),
        blobs=BlobStore(settings.data_directory / "images"),
        stream_url=f"wss://{reachable(settings.stream_listen)}",
        wake_host=wake_host,
        dial=dial,
        vault=KeyFileVault(settings.data_directory / "pki" / "credentials.key"),
        scan_keys=scan_keys,
    )


def playbooks(settings: ServerSettings) -> AnsiblePlaybooks:
    """What installs hosts from here."""
    return AnsiblePlaybooks(
        directory=settings.run_directory / "install",
        wheelhouse=settings.wheelhouse or settings.data_directory / "wheelhouse",
        ca_file=settings.ca_file,
        server=f"https://{reachable(settings.agent_listen)}",
    )


def check_database(settings: ServerSettings) -> None:
    """Refuse to run on another schema than this version's.

    :raises Unavailable: the database is empty, older or newer.
    """
    from virtmgr.store.migrate import current_revision, head_revision

    present, wanted = current_revision(settings.database), head_revision()
    if present != wanted:
        raise Unavailable(
            f"the database's schema is at revision {present or 'none'}, this version needs "
            f"{wanted}",
            code="schema_mismatch",
            hint="run 'virtmgr init' for a new database, or 'virtmgr db upgrade'",
        )


def reachable(endpoint: Endpoint) -> Endpoint:
    """An address that others can connect to, also where all addresses are listened on."""
    if endpoint.host in ("0.0.0.0", "::"):
        return Endpoint(socket.getfqdn(), endpoint.port)
    return endpoint


def server_certificate(settings: ServerSettings) -> tuple[Path, Path]:
    """Certificate and key of the control plane, for every address that it listens on."""
    endpoints = (settings.listen, settings.agent_listen, settings.stream_listen)
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname()}
    names |= {reachable(endpoint).host for endpoint in endpoints}
    return authority(settings).ensure_server(sorted(names))
