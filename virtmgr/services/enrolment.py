"""How a host joins with its one-time token, and how it renews its certificate."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from virtmgr.domain.errors import Unauthenticated
from virtmgr.domain.host import Host
from virtmgr.domain.machine import MAY_REPLACE, Machine, check_machine
from virtmgr.ports.certificates import Authority, Certificate
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.container import Services
from virtmgr.services.records import add_event, host_target

_JOINING: Final = "joining_host"
"""The setting that whoever joins writes first, so that they come one after the other."""


def join(
    services: Services,
    authority: Authority,
    token: str,
    signing_request: str,
    machine: Machine,
    peer: str,
) -> tuple[Host, Certificate]:
    """Enrol the host that a join token was given for; the token is used up.

    One that was enrolled before stays the same host; its earlier certificates are refused from
    here on. A token that is refused to a machine is not used up.

    :param peer: the address that the host calls from, which its certificate names.
    :raises Unauthenticated: the token is unknown, used or too old.
    :raises Forbidden: it is for another machine, or the machine is another host already.
    """
    now = services.clock.now()
    with services.units() as uow:
        host = _invited(uow, token, now)
        replaces = bool(host.facts.get(MAY_REPLACE))
        found = uow.hosts.on_machine(machine.id)
        check_machine(host, machine, found, may_replace=replaces)
        issued = authority.issue_host(
            signing_request.encode(), host.id, _addresses(host.name, peer)
        )
        host.facts = _facts(host, machine)
        host.machine_id = machine.id or host.machine_id
        again = host.certificate_serial is not None
        host.certificate_serial = issued.serial
        host.previous_certificate_serial = None
        host.certificate_expires_at = issued.expires_at
        host.certificate_issuer = issued.issuer
        host.trusted_authorities = None  # its agent is about to say it
        host.join_token_hash = host.join_token_expires_at = None
        target = host_target(host)
        message = f"{machine} from {peer}"
        if again:
            message += ", again: earlier certificates are refused"
        add_event(uow, "host.joined", target, now=now, message=message)
        uow.commit()
    services.committed.notify()
    return host, issued


def _invited(uow: UnitOfWork, token: str, now: datetime) -> Host:
    """The host that a join token is for, locked; nobody else joins before the unit ends, so that
    of two copies of a machine one sees the other.

    :raises Unauthenticated: the token is unknown, used or too old.
    """
    secret_hash = hashlib.sha256(token.encode()).hexdigest()
    host = uow.hosts.by_join_token(secret_hash)
    if host is not None:
        uow.settings.set(_JOINING, host.id)
        host = uow.hosts.lock(host.id)
    expires_at = None if host is None else host.join_token_expires_at
    if host is None or host.join_token_hash != secret_hash or not expires_at or expires_at < now:
        raise Unauthenticated(
            "the join token is unknown, used or too old",
            code="join_token_refused",
            hint="make a new one with 'virtmgr host token NAME'",
        )
    return host


def renew(
    services: Services,
    authority: Authority,
    host_id: str,
    serial: str,
    signing_request: str,
    peer: str,
) -> Certificate:
    """A fresh certificate. The one that it was asked for with stays good until the new one is first
    used: lost answers lock nobody out, however many.

    :param serial: of the certificate that the agent came with.
    :raises Unauthenticated: the host is gone, or has a newer certificate.
    """
    now = services.clock.now()
    with services.units() as uow:
        host = check_certificate(uow.hosts.lock(host_id), serial)
        issued = authority.issue_host(
            signing_request.encode(), host.id, _addresses(host.name, peer)
        )
        host.previous_certificate_serial = serial
        host.certificate_serial = issued.serial
        host.certificate_expires_at = issued.expires_at
        host.certificate_issuer = issued.issuer
        target = host_target(host)
        add_event(uow, "host.certificate_renewed", target, now=now)
        uow.commit()
    return issued


def authenticate(services: Services, host_id: str, serial: str) -> Host:
    """The host whose certificate has ``serial`` (hexadecimal).

    :raises Unauthenticated: the host is gone, or has a newer certificate.
    """
    with services.units(read_only=True) as uow:
        host = check_certificate(uow.hosts.get(host_id), serial)
    if _supersedes(host, serial):
        with services.units() as uow:
            host = admit(uow.hosts.lock(host_id), serial)
            uow.commit()
    return host


def admit(host: Host | None, serial: str) -> Host:
    """``host``, if the certificate is its own; the one before is not good any more then.

    :raises Unauthenticated: the host is gone, or has a newer certificate.
    """
    host = check_certificate(host, serial)
    if _supersedes(host, serial):
        host.previous_certificate_serial = None
    return host


def check_certificate(host: Host | None, serial: str) -> Host:
    """``host``, if the certificate with ``serial`` (hexadecimal) is its own.

    :raises Unauthenticated: the host is gone, or has a newer certificate.
    """
    if host is None or serial not in (host.certificate_serial, host.previous_certificate_serial):
        raise Unauthenticated(
            "this certificate does not belong to a host of this control plane (any more)",
            code="certificate_refused",
            hint="enrol the host again with a new join token",
        )
    return host


def _supersedes(host: Host, serial: str) -> bool:
    """Whether the certificate's first use ends the one before."""
    return serial == host.certificate_serial and host.previous_certificate_serial is not None


def _facts(host: Host, machine: Machine) -> dict[str, Any]:
    """What is known of a host that joins: the agent says all else when it syncs."""
    kept = {name: value for name, value in host.facts.items() if name != MAY_REPLACE}
    if machine.id:
        kept |= {"machine_id": machine.id, "hostname": machine.hostname}
    return kept


def _addresses(name: str, peer: str) -> Sequence[str]:
    address = ipaddress.ip_address(peer)
    loopback = ("127.0.0.1", "::1") if address.is_loopback else ()
    return tuple(dict.fromkeys((name, str(address), *loopback)))
