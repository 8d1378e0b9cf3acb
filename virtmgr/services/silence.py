"""Hosts that do not renew their lease fall silent, and nobody knows how their workloads are."""

from __future__ import annotations

from collections.abc import Mapping

from virtmgr.domain.host import Host, HostState
from virtmgr.domain.host_states import may_fall_silent
from virtmgr.domain.leases import Seen
from virtmgr.services.container import Services
from virtmgr.services.host_reports import forget_states
from virtmgr.services.migration_steps import retreated
from virtmgr.services.records import add_event, host_target


def mark_unreachable(services: Services, seen: Mapping[str, Seen]) -> int:
    """Hosts whose lease ran out become unreachable and their workloads unknown; how many did.

    :param seen: by host, for how long its present lease has been looked at.
    """
    silent = [id for id, one in sorted(seen.items()) if one.age > one.lease.seconds]
    with services.units(read_only=True) as uow:
        silent = [id for id in silent if _has_fallen_silent(uow.hosts.get(id), seen[id])]
    if not silent:
        return 0
    now = services.clock.now()
    found = 0
    with services.units() as uow:
        for host in uow.hosts.lock_all_of(silent):
            if not _has_fallen_silent(host, seen[host.id]):
                continue  # it spoke, or was removed, since it was looked at
            host.state = HostState.UNREACHABLE
            found += 1
            add_event(
                uow,
                "host.unreachable",
                host_target(host),
                now=now,
                message=f"no sync since {host.last_seen_at:%Y-%m-%d %H:%M:%S} UTC",
            )
            forget_states(uow, host, now)
            for move in uow.migrations.open_on(host.id):
                if move.target_host_id == host.id:
                    retreated(uow, move, now)  # it removes what is left once it is back
        if found:
            uow.commit()
    if found:
        services.committed.notify()
    return found


def _has_fallen_silent(host: Host | None, seen: Seen) -> bool:
    """Whether it has not renewed the lease that was looked at, and nobody has noticed yet."""
    if host is None or host.renewals != seen.lease.renewal:
        return False
    return may_fall_silent(host.state)
