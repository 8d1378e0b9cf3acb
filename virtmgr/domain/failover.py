"""Restarting highly available workloads of a lost host elsewhere: what may be, and why. Pure.

A workload may be restarted elsewhere only when its host cannot be running it any more. There are
three reasons for that (``Release``): the host's power was cut, an operator says that it is off, or
its lease ended so long ago that its watchdog has stopped the workload. Everything else waits, and
says what for. docs/ha.md has the argument why there are never two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from virtmgr.domain.host import FailoverPolicy
from virtmgr.domain.workload import PowerState


class FailoverPhase(StrEnum):
    """Where a failover is."""

    WAITING = "waiting"  # its host is silent; it is not released, or there is no room
    RESTARTED = "restarted"  # it is another host's; the lost one has not said that it removed it
    DONE = "done"
    RECOVERED = "recovered"  # its host came back first, and keeps it
    ENDED = "ended"  # there was nothing to restart any more


class Release(StrEnum):
    """Why a lost host cannot be running a workload any more."""

    SELF_FENCED = "self_fenced"
    FENCED = "fenced"
    CONFIRMED = "confirmed"


_BY: Final[Mapping[FailoverPhase, tuple[tuple[FailoverPhase, str], ...]]] = {
    FailoverPhase.WAITING: (
        (FailoverPhase.RESTARTED, "released, and there is room"),
        (FailoverPhase.RECOVERED, "its host speaks again"),
        (FailoverPhase.ENDED, "stopped, deleted, or not highly available any more"),
    ),
    FailoverPhase.RESTARTED: (
        (FailoverPhase.DONE, "the lost host has removed what it had, or is forgotten"),
    ),
}


def mermaid() -> str:
    """The diagram in docs/, in Mermaid's language (https://mermaid.js.org/syntax/stateDiagram)."""
    lines = ["stateDiagram-v2", f"    [*] --> {FailoverPhase.WAITING}: its host is lost"]
    for phase, following in _BY.items():
        lines += [f"    {phase} --> {after}: {why}" for after, why in following]
    lines += [
        f"    {phase} --> [*]"
        for phase in (FailoverPhase.DONE, FailoverPhase.RECOVERED, FailoverPhase.ENDED)
    ]
    return "\n".join(lines) + "\n"


@dataclass(kw_only=True)
class Failover:
    """One highly available workload of one lost host.

    ``claim_*`` is what is still claimed on the lost host once the workload is another's. ``code``
    and ``message`` say what it waits for, or why it was restarted.
    """

    id: str
    workload_id: str
    workload_name: str
    project_id: str
    lost_host_id: str | None
    target_host_id: str | None = None
    phase: FailoverPhase = FailoverPhase.WAITING
    release: Release | None = None
    code: str = ""
    message: str = ""
    claim_vcpus: float = 0.0
    claim_memory: int = 0
    claim_disk: int = 0
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


LEAVING: Final = "leaving"
"""The code of a verdict on a workload that was on its way elsewhere, alive, when its host was lost:
the migration is to be given up, since nobody is left who could say how it ended."""


@dataclass(frozen=True, kw_only=True)
class LostHost:
    """A host that does not renew its lease.

    ``unrenewed`` is for how many seconds one watcher has seen its present lease, by the watcher's
    own steady clock: at least so long ago its last sync was sent.
    """

    id: str
    name: str
    unrenewed: float
    lease: float  # seconds, that its last sync was granted
    self_fencing: bool
    known_off: Release | None = None
    without_volumes: bool = False  # an operator: they start elsewhere without what is on it


@dataclass(frozen=True, kw_only=True)
class Protected:
    """A highly available workload of a lost host."""

    id: str
    name: str
    host_id: str
    priority: int = 0
    created_at: datetime
    wanted: PowerState = PowerState.RUNNING
    deleting: bool = False
    known_to_host: bool = True  # its host has acted on a spec that says it is highly available
    local_volumes: tuple[str, ...] = ()
    moving: bool = False
    leaving: bool = False  # by a live migration of which the lost host says how it ends
    being_cloned: bool = False
    pinned: bool = False


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A cluster's, and how many of its hosts there are and are silent."""

    failover: FailoverPolicy = FailoverPolicy.AUTOMATIC
    limit: float = 0.34
    margin: float = 2.0  # seconds
    hosts: int = 1
    silent: int = 1

    @property
    def is_mass_outage(self) -> bool:
        """Whether more hosts are silent than a failure of hosts explains. One always may be."""
        return self.silent > max(1, int(self.limit * self.hosts))


@dataclass(frozen=True)
class Verdict:
    """What becomes of one workload: released and why, or what it waits for.

    ``release`` None: it waits; ``code`` and ``message`` say for what. ``ended``: it needs no
    restart at all.
    """

    workload: Protected
    release: Release | None
    code: str
    message: str
    ended: bool = False


def order(workloads: Iterable[Protected]) -> list[Protected]:
    """As they are to be restarted: the greater priority first, then the older one."""
    return sorted(workloads, key=lambda one: (-one.priority, one.created_at, one.id))


def judge(host: LostHost, policy: Policy, workloads: Sequence[Protected]) -> list[Verdict]:
    """What may be restarted elsewhere of a lost host, in order, and what not yet, and why."""
    return [_judge(host, policy, one) for one in order(workloads)]


def _judge(host: LostHost, policy: Policy, workload: Protected) -> Verdict:
    if workload.deleting or workload.wanted is PowerState.STOPPED:
        why = "it is being deleted" if workload.deleting else "its owner wants it stopped"
        return Verdict(workload, None, "not_wanted", why, ended=True)
    obstacle = _obstacle(host, workload)
    if obstacle is not None:
        return Verdict(workload, None, *obstacle)
    release, code, message = released(host, policy, known_to_host=workload.known_to_host)
    if workload.leaving and release is not None:
        why = "was lost while it was moved; what has come to its new one is removed first"
        return Verdict(workload, None, LEAVING, f"host {host.name} {why}")
    return Verdict(workload, release, code, message)


def released(
    host: LostHost, policy: Policy, *, known_to_host: bool = True
) -> tuple[Release | None, str, str]:
    """Whether the host cannot be running a workload any more, and the reason either way."""
    if host.known_off is Release.CONFIRMED:
        return Release.CONFIRMED, "confirmed", f"an operator confirmed that host {host.name} is off"
    if host.known_off is Release.FENCED:
        return Release.FENCED, "fenced", f"the power of host {host.name} was cut"
    if policy.failover is FailoverPolicy.MANUAL:
        return _waits("manual", host, "its cluster's failover is manual")
    if policy.is_mass_outage:
        return _waits(
            "mass_outage",
            host,
            f"{policy.silent} of {policy.hosts} hosts of its cluster are silent, more than may "
            "fail at a time: the network or the control plane is more likely at fault",
        )
    if not host.self_fencing:
        return _waits("not_self_fencing", host, f"host {host.name} does not fence itself")
    if not known_to_host:
        return _waits(
            "not_known_to_host",
            host,
            f"host {host.name} had not said that it knows it to be highly available",
        )
    left = host.lease + policy.margin - host.unrenewed
    if left > 0:
        return None, "lease", f"host {host.name} may be running it until its lease has ended"
    return (
        Release.SELF_FENCED,
        "self_fenced",
        f"host {host.name} has not renewed its lease of {host.lease:g} s for "
        f"{host.unrenewed:.1f} s, and its watchdog stopped it",
    )


def _waits(code: str, host: LostHost, why: str) -> tuple[None, str, str]:
    return (
        None,
        code,
        f"{why}; once host {host.name} is off for certain: 'virtmgr host confirm-off {host.name}'",
    )


def _obstacle(host: LostHost, workload: Protected) -> tuple[str, str] | None:
    """Why it cannot run elsewhere, whatever is known of its host."""
    if workload.moving and not workload.leaving:
        return "moving", "it is on its way to another host"
    if workload.being_cloned:
        return "being_cloned", "the copy that it starts from is not made, and is on its host"
    if workload.pinned:
        return "pinned", f"it may only run on host {host.name}"
    if workload.local_volumes and not (host.without_volumes and host.known_off is not None):
        names = ", ".join(workload.local_volumes)
        return (
            "local_volumes",
            f"its volumes are on host {host.name}: {names}; if it is to start elsewhere without "
            f"them: 'virtmgr host confirm-off {host.name} --without-volumes'",
        )
    return None
