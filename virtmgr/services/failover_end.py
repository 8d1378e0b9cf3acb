"""The end of failovers: a lost host speaks again, or what it was about is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from virtmgr.domain.failover import Failover, FailoverPhase
from virtmgr.domain.host import Host
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.desired import desired_workloads
from virtmgr.services.records import Target, add_event


def recovered(uow: UnitOfWork, host: Host, now: datetime) -> None:
    """The host speaks before its workloads were released: it keeps them."""
    for row in uow.failovers.waiting_on(host.id):
        message = f"host {host.name} came back, and keeps it"
        _end(row, FailoverPhase.RECOVERED, now, message)
        _tell(uow, row, "workload.failover_recovered", message, host, now)


def left_behind(uow: UnitOfWork, leftovers: Sequence[Failover]) -> list[DesiredWorkload]:
    """What a host that was lost still has of workloads that were restarted elsewhere: it is to go.

    Of those that were deleted since, nothing can be said; what a full answer leaves out goes too.
    """
    ids = [one.workload_id for one in leftovers]
    there = uow.workloads.by_ids(ids)
    return [
        wish.model_copy(update={"deleting": True, "nics": ()})
        for wish in desired_workloads(uow, [there[id] for id in ids if id in there])
    ]


def removed(uow: UnitOfWork, host: Host, workload_id: str, now: datetime) -> None:
    """The host has nothing left of it: give back what was still claimed there."""
    for row in uow.failovers.left_on(host.id):
        if row.workload_id == workload_id:
            _removed(uow, row, host, now)


def absent(uow: UnitOfWork, host: Host, present: set[str], now: datetime) -> None:
    """The host said all that it has."""
    for row in uow.failovers.left_on(host.id):
        if row.workload_id not in present:
            _removed(uow, row, host, now)


def release(uow: UnitOfWork, row: Failover) -> None:
    """Give back what is still claimed on the lost host."""
    if row.lost_host_id is not None:
        uow.hosts.release(
            row.lost_host_id, vcpus=row.claim_vcpus, memory=row.claim_memory, disk=row.claim_disk
        )
    row.claim_vcpus, row.claim_memory, row.claim_disk = 0.0, 0, 0


def workload_forgotten(uow: UnitOfWork, workload: Workload) -> None:
    """It is deleted where it was restarted; lost hosts may still have something of it."""
    for row in uow.failovers.open_of(workload.id):
        if row.phase is FailoverPhase.RESTARTED:
            release(uow, row)


def host_forgotten(uow: UnitOfWork, host: Host, now: datetime) -> None:
    """The lost host is removed from the inventory; its claims go with it."""
    for row in uow.failovers.left_on(host.id):
        row.claim_vcpus, row.claim_memory, row.claim_disk = 0.0, 0, 0
        _end(row, FailoverPhase.DONE, now, f"host {host.name} was removed")
    for row in uow.failovers.waiting_on(host.id):
        _end(row, FailoverPhase.ENDED, now, f"host {host.name} was removed, and it with it")


def _removed(uow: UnitOfWork, row: Failover, host: Host, now: datetime) -> None:
    release(uow, row)
    message = f"host {host.name} has removed what it had of it"
    _end(row, FailoverPhase.DONE, now, message)
    _tell(uow, row, "workload.failover_done", message, host, now)


def _end(row: Failover, phase: FailoverPhase, now: datetime, message: str) -> None:
    row.phase, row.message = phase, message
    row.updated_at = row.finished_at = now


def _tell(
    uow: UnitOfWork, row: Failover, type: str, message: str, host: Host, now: datetime
) -> None:
    target = Target("workload", row.workload_id, row.workload_name, row.project_id, host.id)
    add_event(uow, type, target, now=now, message=message, data={"failover": row.id})
