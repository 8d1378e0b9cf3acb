"""Taking in what an agent observed of workloads and volumes; the caller has locked its host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from virtmgr.domain.host import Host
from virtmgr.domain.ids import is_id
from virtmgr.domain.migration import Migration, MigrationMode
from virtmgr.domain.operation import UNFINISHED, Operation, OperationState
from virtmgr.domain.outcome import outcome
from virtmgr.domain.sync import (
    ObservedVolume,
    ObservedWorkload,
)
from virtmgr.domain.volume import VolumeState
from virtmgr.domain.workload import Usage, Workload, WorkloadStatus
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import failover_end
from virtmgr.services.container import Services
from virtmgr.services.forgetting import forget_volume, forget_workload
from virtmgr.services.live_steps import note, note_own
from virtmgr.services.migration_steps import removed, removed_at_target, taken_up
from virtmgr.services.operation_end import end
from virtmgr.services.records import Target, add_event, workload_target

MOVE = "move"
"""The verb of operations that end with their migration, not with a report of their workload."""


@dataclass(frozen=True)
class Reports:
    """What is read once for all workloads that a host reports, by their ids."""

    workloads: Mapping[str, Workload]
    operations: Mapping[str, Sequence[Operation]]  # open ones
    own: Sequence[Workload] | None  # all of the host's, by revision; None: they were not read
    forgotten: set[str] = field(default_factory=set)  # ids of those that are no more

    @classmethod
    def read(
        cls, uow: UnitOfWork, host: Host, observed: Sequence[ObservedWorkload], *, all: bool
    ) -> Reports:
        """:param all: all of the host's will be asked for."""
        own = uow.workloads.on_host(host.id) if all else None
        ids = [one.id for one in observed if is_id(one.id)]
        there = {one.id: one for one in own or ()}
        there |= uow.workloads.by_ids(id for id in ids if id not in there)
        return cls(there, uow.operations.open_for_all(ids) if ids else {}, own)

    def own_left(self) -> Sequence[Workload] | None:
        """All of the host's, after the reports were taken in; None: they were not read."""
        if self.own is None:
            return None
        return [one for one in self.own if one.id not in self.forgotten]


def note_workload(
    services: Services,
    uow: UnitOfWork,
    host: Host,
    observed: ObservedWorkload,
    move: Migration | None,
    reports: Reports,
    now: datetime,
) -> list[str]:
    """Take in one workload; ids of the operations that have come to their end by it.

    :param move: from this host or to it, if it is on its way.
    :param reports: what was read for it and the others that its host reports.
    """
    workload = reports.workloads.get(observed.id)
    if observed.gone and (workload is None or workload.host_id != host.id):
        failover_end.removed(uow, host, observed.id, now)
    if workload is None:
        return []  # the agent learns from the next full answer that it must not be here
    if workload.host_id != host.id:
        return _note_others(services, uow, host, observed, move, workload, now)
    before = workload.status
    if observed.gone:
        return _finish_delete(services, uow, workload, reports, now) if workload.deleting else []
    status, generation = _kept_usage(before, observed.status), observed.observed_generation
    if (status, generation) != (before, workload.observed_generation):  # else nothing is written
        workload.status, workload.observed_generation = status, generation
    if observed.cloned and workload.clone_of is not None:
        workload.clone_of = None
        for volume in uow.volumes.of_workload(workload.id):
            volume.copy_of = None
    if before.state is not observed.status.state:
        note_transition(uow, workload, before, observed.status, now)
    finished = _advance_operations(uow, workload, reports, now, gone=False)
    if move is not None and move.mode is MigrationMode.LIVE:
        finished += note_own(services, uow, host.id, move, workload, observed.move, now)
    elif move is not None and observed.arrived == move.id:
        finished += taken_up(services, uow, move, workload, now)
    return finished


def _note_others(
    services: Services,
    uow: UnitOfWork,
    host: Host,
    observed: ObservedWorkload,
    move: Migration | None,
    workload: Workload,
    now: datetime,
) -> list[str]:
    """Take in what a host says of a workload that is another's: it has left it, or comes to it."""
    if move is None:
        return []
    if observed.gone and move.source_host_id == host.id:
        return removed(uow, move, observed.id, now)
    if move.target_host_id != host.id:
        return []
    if observed.gone:
        return removed_at_target(uow, move, observed.id, now)
    if observed.move is None:
        return []
    return note(services, uow, host.id, move, workload, observed.move, now)


def note_usage(uow: UnitOfWork, host: Host, usages: Mapping[str, Usage]) -> None:
    """Take in what workloads use, by their ids; two statements for all of them."""
    before = uow.workloads.usages(filter(is_id, usages), host.id)
    now = {id: usages[id].since(usage) for id, usage in before.items()}
    uow.workloads.note_usages(now, host.id)


def _kept_usage(before: WorkloadStatus, after: WorkloadStatus) -> WorkloadStatus:
    if after.usage is None and after.state is before.state and before.usage is not None:
        return after.model_copy(update={"usage": before.usage})
    return after


def note_transition(
    uow: UnitOfWork,
    workload: Workload,
    before: WorkloadStatus,
    after: WorkloadStatus,
    now: datetime,
) -> None:
    data: dict[str, Any] = {"from": before.state.value, "to": after.state.value}
    if after.exit_code is not None:
        data["exit_code"] = after.exit_code
    message = after.reason.message if after.reason else ""
    add_event(
        uow,
        f"workload.{after.state.value}",
        workload_target(workload),
        now=now,
        message=message,
        data=data,
    )


def _advance_operations(
    uow: UnitOfWork, workload: Workload, reports: Reports, now: datetime, *, gone: bool
) -> list[str]:
    """Bring its operations forward; ids of those that are finished by it."""
    known = [one for one in reports.operations.get(workload.id, ()) if one.verb != MOVE]
    for operation in known:
        _advance_operation(uow, operation, workload, now, gone=gone)
    return [operation.id for operation in known if operation.finished_at is not None]


def _advance_operation(
    uow: UnitOfWork, operation: Operation, workload: Workload, now: datetime, *, gone: bool
) -> None:
    result = outcome(
        operation,
        workload.status,
        observed_generation=workload.observed_generation,
        gone=gone,
    )
    if (operation.state, operation.message) == (result.state, result.message):
        return
    operation.state = result.state
    operation.progress = result.progress
    operation.message = result.message
    operation.updated_at = now
    problem = None
    if result.reason is not None:
        problem = {
            "code": result.reason.code,
            "detail": result.reason.message,
            "hint": result.reason.hint,
        }
        operation.error = problem
    if result.state not in UNFINISHED:
        end(operation, result.state, now, result.message, problem=problem)
        add_event(
            uow,
            f"operation.{result.state.value}",
            workload_target(workload),
            now=now,
            user_id=operation.user_id,
            operation_id=operation.id,
            message=f"{operation.verb}: {result.message}".rstrip(": "),
        )


def _finish_delete(
    services: Services, uow: UnitOfWork, workload: Workload, reports: Reports, now: datetime
) -> list[str]:
    """Nothing is left on the host: give back claim, quota and addresses, and drop the row.

    Ids of the operations that are finished by it.
    """
    finished = _advance_operations(uow, workload, reports, now, gone=True)
    add_event(uow, "workload.deleted", workload_target(workload), now=now)
    forget_workload(services, uow, workload)
    reports.forgotten.add(workload.id)
    return finished


def note_volume(
    uow: UnitOfWork,
    host: Host,
    observed: ObservedVolume,
    moves: Sequence[Migration],
    now: datetime,
) -> list[str]:
    """Take in one volume; ids of the operations that are finished by it."""
    volume = uow.volumes.get(observed.id)
    if observed.gone and (volume is None or volume.host_id != host.id):
        return _note_left_volume(uow, observed.id, moves, now)
    if volume is None or volume.host_id != host.id:
        return []
    target = Target("volume", volume.id, volume.name, volume.project_id, host.id)
    if observed.gone:
        if volume.state is not VolumeState.DELETING:
            return []
        finished = list(uow.operations.open_for(volume.id))
        for operation in finished:
            end(operation, OperationState.SUCCEEDED, now)
        add_event(uow, "volume.deleted", target, now=now)
        forget_volume(uow, volume)
        return [operation.id for operation in finished]
    if volume.state is VolumeState.PENDING and observed.ready:
        volume.state = VolumeState.READY
    return []


def _note_left_volume(
    uow: UnitOfWork, volume_id: str, moves: Sequence[Migration], now: datetime
) -> list[str]:
    """A volume that went to another host with its workload is removed here."""
    left = [one for one in moves if volume_id in one.leftovers]
    steps = (removed, removed_at_target)
    return [id for move in left for step in steps for id in step(uow, move, volume_id, now)]
