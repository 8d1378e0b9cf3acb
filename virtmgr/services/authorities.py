"""The private CA, and its change while hosts run (``domain/authority.py`` decides).

Which CAs there are lies with their keys, in the directory that all control planes share; the
database has what hosts say of them, and when the change got where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from virtmgr.domain.authority import (
    Authorities,
    Dependence,
    HostTrust,
    Phase,
    check_retire,
    check_rotate,
    holding_up,
    may_replace,
)
from virtmgr.domain.errors import Unavailable
from virtmgr.domain.host import Host
from virtmgr.domain.host_states import SILENT
from virtmgr.ports.certificates import Authority, AuthorityCertificate
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.container import Services
from virtmgr.services.context import Context
from virtmgr.services.records import Target, add_event

SETTING: Final = "ca_fingerprint"
"""The CA that the database belongs to."""
_SINCE: Final = "ca_phase_since"  # PHASE TIME


@dataclass(frozen=True)
class Shown:
    """Where the change of the CA is."""

    authorities: Authorities
    certificates: Sequence[AuthorityCertificate]
    pem: str
    since: datetime | None  # when the present phase began; None while it is steady
    waits_for: Sequence[Dependence]


def show(context: Context) -> Shown:
    """Which CAs are trusted, and which hosts a change of them waits for."""
    authority = _authority(context.services)
    present = authority.authorities()
    since = _since(context.uow, present.phase)
    return Shown(
        present,
        authority.certificates(),
        authority.certificate().decode(),
        since if present.phase is not Phase.STEADY else None,
        holding_up(present, _trusts(context.uow)),
    )


def rotate(context: Context, *, dry_run: bool) -> Shown:
    """Make the next CA and let it be made known; it issues once every host that speaks trusts it.

    :raises Conflict: the CA is being changed already.
    """
    authority = _authority(context.services)
    present = authority.authorities()
    begun = present.phase is Phase.SPREADING and _since(context.uow, present.phase) is None
    if not begun:  # by a try whose transaction did not come to its end
        check_rotate(present)
    if not dry_run:
        authority.rotate()
        present = authority.authorities()
    _note_since(context.uow, present.phase, context.now)
    message = "the next CA is made, and is being made known to every host"
    context.record("ca.rotation_begun", _target(present), message)
    return show(context)


def retire(context: Context, *, force: bool) -> Shown:
    """Let the CA of before be trusted no more.

    :param force: although hosts depend on it: they are cut off.
    :raises Conflict: there is none, or hosts depend on it.
    """
    authority = _authority(context.services)
    present = authority.authorities()
    since = _since(context.uow, present.phase) or context.now
    age = context.now - since
    left = check_retire(present, _trusts(context.uow), age, force=force)
    # First the database, which two CAs may use until then, then the CA of before goes.
    context.uow.settings.set(SETTING, present.issuing)
    message = "the CA of before is trusted no more"
    if left:
        message += "; cut off are " + ", ".join(each.name for each in left)
    context.record("ca.retired", _target(present), message)
    context.uow.after_commit(authority.retire)
    return Shown(
        authorities=Authorities(Phase.STEADY, present.issuing),
        certificates=authority.certificates()[:1],
        pem=_first(authority.certificate().decode()),
        since=None,
        waits_for=(),
    )


def advance(services: Services) -> bool:
    """Let the next CA issue once it may; whether it issues from now on.

    To be called again and again by the leader: another one may do it at the same time.
    """
    authority = _authority(services)
    present = authority.authorities()
    if present.phase is Phase.STEADY:
        return False
    now = services.clock.now()
    with services.units() as uow:
        since = _since(uow, present.phase)
        if since is None:  # a crash between the two
            _note_since(uow, present.phase, now)
            uow.commit()
            return False
        if not may_replace(present, _trusts(uow), now - since):
            return False
        authority.replace()
        present = authority.authorities()
        _note_since(uow, present.phase, now)
        message = "every host that speaks trusts the next CA: it issues from now on"
        add_event(uow, "ca.replaced", _target(present), now=now, message=message)
        uow.after_commit(services.committed.notify)
        uow.commit()
    return True


def news_for(services: Services, trusted: Sequence[str] | None) -> str:
    """What a host's agent should trust, as PEM; empty: what it trusts, or it knows of no change.

    :param trusted: what it trusts, as it has said.
    """
    authority = services.authority
    if authority is None or trusted is None:
        return ""
    if tuple(trusted) == authority.authorities().trusted:
        return ""
    return authority.certificate().decode()


def _first(pem: str) -> str:
    """The first of some certificates."""
    certificate, end, _ = pem.partition("-----END CERTIFICATE-----\n")
    return certificate + end


def _authority(services: Services) -> Authority:
    if services.authority is None:
        raise Unavailable("this process has nothing to do with certificates")
    return services.authority


def _trusts(uow: UnitOfWork) -> list[HostTrust]:
    """Of every host that has joined."""
    return [_trust(host) for host in uow.hosts.all() if host.certificate_serial is not None]


def _trust(host: Host) -> HostTrust:
    return HostTrust(
        name=host.name,
        silent=host.last_seen_at is None or host.state in SILENT,
        trusted=None if host.trusted_authorities is None else tuple(host.trusted_authorities),
        issuer=host.certificate_issuer,
        unused=host.previous_certificate_serial is not None,
    )


def _since(uow: UnitOfWork, phase: Phase) -> datetime | None:
    """When the present phase began; None: nobody has noted it."""
    noted, _, time = (uow.settings.get(_SINCE) or "").partition(" ")
    return datetime.fromisoformat(time) if noted == phase.value else None


def _note_since(uow: UnitOfWork, phase: Phase, now: datetime) -> None:
    uow.settings.set(_SINCE, f"{phase.value} {now.isoformat()}")


def _target(authorities: Authorities) -> Target:
    return Target("ca", authorities.trusted[-1], "ca")
