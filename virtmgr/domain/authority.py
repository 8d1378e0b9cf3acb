"""Changing the private CA while hosts run, without a moment in which somebody trusts nobody. Pure.

    steady ── rotate ──► spreading ── hosts trust the next ──► replacing ── retire ──► steady

While it spreads, the CA of before issues, and the next one is made known. While it replaces, the
next one issues, and the one before is still trusted: hosts that were silent until now are shown the
next one by a certificate that the one before has signed for it (RFC 4210, 4.4: "new with old").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from virtmgr.domain.errors import Conflict

SETTLING: Final = timedelta(seconds=30)
"""Every process of every control plane looks at its files more than once in this time."""


class Phase(StrEnum):
    """Where the change of the CA is."""

    STEADY = "steady"  # there is one CA
    SPREADING = "spreading"  # the next one is trusted, the one before issues
    REPLACING = "replacing"  # the next one issues, the one before is still trusted


@dataclass(frozen=True)
class Authorities:
    """The CAs of a control plane, by their fingerprints: SHA-256 in hexadecimal.

    ``other`` is the next one while it spreads, and the one before while it is replaced.
    """

    phase: Phase
    issuing: str
    other: str | None = None

    @property
    def trusted(self) -> tuple[str, ...]:
        """What everybody is to trust; the first one issues."""
        return (self.issuing, self.other) if self.other is not None else (self.issuing,)


@dataclass(frozen=True)
class HostTrust:
    """What is known of the certificate and the trust of a host that has joined."""

    name: str
    silent: bool
    trusted: tuple[str, ...] | None = None  # as its agent has said; None: it has not
    issuer: str | None = None  # of its newest certificate; None: some CA of before
    unused: bool = False  # the newest was not seen yet: it may still have the one before


@dataclass(frozen=True)
class Dependence:
    """A host that a change of the CA waits for, and why."""

    name: str
    reason: str


def holding_up(authorities: Authorities, hosts: Iterable[HostTrust]) -> tuple[Dependence, ...]:
    """The hosts that the present phase waits for; a silent one holds up only the end."""
    if authorities.phase is Phase.STEADY:
        return ()
    if authorities.phase is Phase.SPREADING:
        found = ((host, _distrust(authorities.other, host)) for host in hosts if not host.silent)
    else:
        found = ((host, _dependence(authorities.issuing, host)) for host in hosts)
    return tuple(Dependence(host.name, reason) for host, reason in found if reason)


def may_replace(authorities: Authorities, hosts: Iterable[HostTrust], age: timedelta) -> bool:
    """Whether the next CA may issue: all control planes and all hosts that speak trust it.

    :param age: how long it has been spreading.
    """
    spreads = authorities.phase is Phase.SPREADING and age >= SETTLING
    return spreads and not holding_up(authorities, hosts)


def check_rotate(authorities: Authorities) -> None:
    """
    :raises Conflict: the CA is being changed already.
    """
    if authorities.phase is not Phase.STEADY:
        raise Conflict(
            f"make a next CA: the present one is being changed already ({authorities.phase})",
            code="rotation_under_way",
            hint="'virtmgr ca show' says what it waits for; 'virtmgr ca retire' ends it",
        )


def check_retire(
    authorities: Authorities, hosts: Iterable[HostTrust], age: timedelta, *, force: bool
) -> tuple[Dependence, ...]:
    """The hosts that depend on the CA that shall go, which ``force`` gives up.

    :param age: how long the next one has been issuing.
    :raises Conflict: there is nothing to retire yet, or hosts depend on it.
    """
    if authorities.phase is not Phase.REPLACING:
        spreads = authorities.phase is Phase.SPREADING
        raise Conflict(
            "retire the CA of before: "
            + ("it still issues, the next one is being made known" if spreads else "there is none"),
            code="nothing_to_retire",
            hint="'virtmgr ca show' says what it waits for"
            if spreads
            else "'virtmgr ca rotate' begins a change of the CA",
        )
    left = holding_up(authorities, hosts)
    if left and not force:
        named = "; ".join(f"{each.name}: {each.reason}" for each in left)
        raise Conflict(
            f"retire the CA of before: {len(left)} hosts depend on it: {named}",
            code="still_depended_on",
            hint="bring them back, or remove them; with --force they are cut off until 'virtmgr "
            "host renew-certificates' or a new join token ('virtmgr host token NAME --again')",
            detail={"hosts": [each.name for each in left]},
        )
    if age < SETTLING:
        raise Conflict(
            "retire the CA of before: control planes may not have taken up the next one yet",
            code="too_early",
            hint=f"try again in {int((SETTLING - age).total_seconds()) + 1} seconds",
        )
    return left


def _distrust(wanted: str | None, host: HostTrust) -> str | None:
    """Why a host does not trust a CA; None: it does."""
    if host.trusted is None:
        return "its agent has not said which CAs it trusts: is it of an older version?"
    if wanted not in host.trusted:
        return "it does not trust the next CA yet"
    return None


def _dependence(issuing: str, host: HostTrust) -> str | None:
    """Why a host needs the CA of before; None: it does not."""
    silent = "it is silent and " if host.silent else "it "
    if distrust := _distrust(issuing, host):
        return silent + "does not trust the next CA" if host.silent else distrust
    if host.issuer != issuing:
        return silent + "has a certificate of the CA of before"
    if host.unused:
        return silent + "has not used its new certificate yet"
    return None
