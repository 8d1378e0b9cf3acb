"""What hosts and workloads have used: agents tell it, it is kept for a day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from virtmgr.domain.host import Host
from virtmgr.domain.usage_history import KEPT, TimedPoint, UsageSlice, is_kept, step_for
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.container import Services
from virtmgr.services.context import Context


@dataclass(frozen=True)
class History:
    """Points of one length, in seconds, by time; what was not measured is not there."""

    seconds: int
    points: Sequence[TimedPoint]


def note_usage_history(
    uow: UnitOfWork, host: Host, slices: Iterable[UsageSlice], now: datetime
) -> None:
    """Take in what a host tells; it is locked. What it says of others is never looked at."""
    uow.usage_history.add(host.id, [one for one in slices if is_kept(one, now)])


def of_host(context: Context, host: Host, since: datetime) -> History:
    """What the host as a whole has used."""
    seconds = step_for(since, context.now)
    points = context.uow.usage_history.points([host.id], None, seconds, since)
    return History(seconds, points)


def of_workload(context: Context, workload: Workload, since: datetime) -> History:
    """What the workload has used, on whatever host it was."""
    uow, seconds = context.uow, step_for(since, context.now)
    hosts = uow.migrations.sources_of(workload.id, since)
    hosts |= uow.failovers.lost_by(workload.id, since)
    if workload.host_id is not None:
        hosts |= {workload.host_id}
    return History(seconds, uow.usage_history.points(hosts, workload.id, seconds, since))


def forget_old(services: Services) -> None:
    """Drop what is not kept any more."""
    now = services.clock.now()
    with services.units() as uow:
        for seconds, kept in KEPT.items():
            uow.usage_history.purge(seconds, now - kept)
        uow.commit()
