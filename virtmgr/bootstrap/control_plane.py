"""The control plane's parts, put together the same way in each of its processes."""

from __future__ import annotations

import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from virtmgr.config.settings import Endpoint, ServerSettings
from virtmgr.domain.errors import Unavailable
from virtmgr.enrollment.authority import CertificateAuthority
from virtmgr.enrollment.playbooks import AnsiblePlaybooks, scan_keys
from virtmgr.enrollment.vault import KeyFileVault
from virtmgr.images.blobs import BlobStore
from virtmgr.images.simplestreams import search_server
from virtmgr.ports.streams import Dialler
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import authorities
from virtmgr.services.container import Services, dial_nobody
from virtmgr.services.signal import Done, Signal
from virtmgr.services.wake import HostWake
from virtmgr.store.engine import make_engine
from virtmgr.store.news import News, NoRelay, Relay, relay_of
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_CLOCKS_APART = timedelta(seconds=5)


def authority(settings: ServerSettings) -> CertificateAuthority:
    return CertificateAuthority(settings.ca_file.parent, own_directory=settings.own_pki)


def build_services(
    settings: ServerSettings,
    dial: Dialler = dial_nobody,
    wake: HostWake | None = None,
    *,
    news: bool = True,
) -> Services:
    """The ports of the control plane, over the configured database and data directory.

    :param wake: where hosts wait on this process, if they do.
    :param news: whether to tell other processes what is committed here, and to hear them.
    """
    relay = relay_of(settings.database) if news else NoRelay()
    services = Services(
        committed=Signal(tell=relay.committed),
        done=Done(tell=relay.done),
        units=SqlUnitOfWorkFactory(make_engine(settings.database)),
        blobs=BlobStore(settings.shared / "images"),
        stream_url=f"wss://{called(settings, settings.stream_listen)}",
        wake_host=partial(_wake_host, relay, wake),
        dial=dial,
        vault=KeyFileVault(settings.ca_file.parent / "credentials.key"),
        scan_keys=scan_keys,
        search_images=search_server,
        authority=authority(settings),
    )
    relay.start(partial(_hear, services, wake))
    return services


def playbooks(settings: ServerSettings) -> AnsiblePlaybooks:
    """What installs hosts from here."""
    return AnsiblePlaybooks(
        directory=settings.run_directory / "install",
        wheelhouse=settings.wheelhouse or settings.data_directory / "wheelhouse",
        ca_file=settings.ca_file,
        server=f"https://{called(settings, settings.agent_listen)}",
        addresses=settings.control_plane_addresses,
    )


def _wake_host(relay: Relay, wake: HostWake | None, host_id: str) -> None:
    """Wherever it waits: here, or on the web process of another control plane."""
    if wake is not None:
        wake.wake(host_id)
    relay.wake(host_id)


def _hear(services: Services, wake: HostWake | None, news: News) -> None:
    services.done.heard(news.done)
    services.committed.heard()
    if wake is None:
        return
    for host_id in news.wake:
        wake.wake(host_id)
    if news.missed:
        wake.wake_all()


def check_database(settings: ServerSettings) -> None:
    """Refuse to run on what does not belong together.

    :raises Unavailable: the database is empty, or its schema older or newer; it belongs to another
        CA than the one at hand; the clock differs from the database's.
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
    units = SqlUnitOfWorkFactory(make_engine(settings.database))
    with closing(units), units() as uow:
        check_authority(uow, settings)
        _check_clock(uow)
        uow.commit()


def check_authority(uow: UnitOfWork, settings: ServerSettings) -> None:
    """Let a database be used with one CA only: agents of the others would be refused.

    While that is being changed it may be either of the two.

    :raises Unavailable: it is used with another one, or with one that is not here.
    """
    path = settings.ca_file
    here = authority(settings).authorities().trusted if path.exists() else ()
    known = uow.settings.get(authorities.SETTING)
    if known is None and here:
        uow.settings.set(authorities.SETTING, here[0])
    elif known is not None and known not in here:
        raise Unavailable(
            f"use the database with the certificate authority in {path.parent}: it belongs to "
            "another one" + ("" if here else ", and there is none"),
            code="other_authority",
            hint="every control plane of a database needs the same CA: share its directory "
            "(--shared-directory), or restore it from a backup",
        )


def _check_clock(uow: UnitOfWork) -> None:
    """Leases of hosts are written by one machine and read by another.

    :raises Unavailable: this machine's clock is not the database's.
    """
    off = abs(uow.leaderships.now() - datetime.now(UTC))
    if off > _CLOCKS_APART:
        raise Unavailable(
            f"run with this machine's clock: it is {off.total_seconds():.1f} seconds off the "
            "database's",
            code="clock_skew",
            hint="synchronise both by NTP, then start it again",
        )


def reachable(endpoint: Endpoint) -> Endpoint:
    """An address that others can connect to, also where all addresses are listened on."""
    if endpoint.host in ("0.0.0.0", "::"):
        return Endpoint(socket.getfqdn(), endpoint.port)
    return endpoint


def called(settings: ServerSettings, endpoint: Endpoint) -> Endpoint:
    """What clients call a listener: by the address that was given, else by its own."""
    if settings.address:
        return Endpoint(settings.address, endpoint.port)
    return reachable(endpoint)


def server_certificate(settings: ServerSettings) -> tuple[Path, Path]:
    """Certificate and key of this control plane, for every address that it is called by."""
    endpoints = (settings.listen, settings.agent_listen, settings.stream_listen)
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname()}
    names |= {reachable(endpoint).host for endpoint in endpoints}
    names |= {settings.address} - {""}
    return authority(settings).ensure_server(sorted(names))
