"""The steps of a migration, each one transaction: from phase to phase, with all that goes with it.

The worker takes the steps until the workload is the target's; from there on what the hosts report
does (``sync``). Every step looks first whether it is still its turn, so any of them may be tried
by two at a time, or once more after a crash.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.migration import (
    AT_SOURCE,
    AT_TARGET_TOO,
    Migration,
    MigrationMode,
    Phase,
    is_at_rest,
    is_taken_up,
    obstacle,
)
from virtmgr.domain.operation import OperationState
from virtmgr.domain.values import format_bytes
from virtmgr.domain.workload import State, Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import drain_end, overlays
from virtmgr.services.container import Services
from virtmgr.services.operation_end import end
from virtmgr.services.records import Target, add_event, workload_target


def begin_stopping(
    services: Services, uow: UnitOfWork, migration: Migration, workload: Workload, now: datetime
) -> None:
    """Let the source bring the workload to rest, unless it cannot be moved any more."""
    why = obstacle(workload)
    if why is not None:
        problem = {"code": why.code, "detail": why.message, "hint": why.hint}
        give_up(services, uow, migration, workload, now, problem)
        return
    workload.generation += 1
    migration.generation = workload.generation
    advance(uow, migration, Phase.STOPPING, now, "its host brings it to rest")
    add_event(
        uow,
        "workload.moving",
        workload_target(workload),
        now=now,
        operation_id=migration.operation_id,
        message=f"to host {host_name(uow, migration.target_host_id)}",
        data={"migration": migration.id},
    )
    news_for_source(services, uow, migration, workload)


def rested(uow: UnitOfWork, migration: Migration, workload: Workload, now: datetime) -> bool:
    """Go on to copying where the source has brought it to rest; whether it has."""
    if not is_at_rest(workload, migration):
        return False
    advance(uow, migration, Phase.COPYING, now, "its disks are copied")
    return True


def hand_over(
    services: Services, uow: UnitOfWork, migration: Migration, workload: Workload, now: datetime
) -> None:
    """The workload is the target's, with its volumes: from here on only the target may run it."""
    source, target = migration.source_host_id, migration.target_host_id
    if source is None or target is None:
        raise AssertionError("a host with an open migration was removed")
    volumes = uow.volumes.of_workload(workload.id)
    pools = uow.pools.of_host(target)
    for volume in volumes:
        volume.host_id = target
        volume.pool_id = pools[0].id if pools else None
    workload.host_id = target
    workload.placement = migration.placement
    workload.generation += 1
    workload.updated_at = now
    workload.revision = uow.hosts.next_revision(target)
    if migration.mode is MigrationMode.COLD:
        # What the source has seen says nothing about the target.
        unseen = {"started_at": None, "finished_at": None, "reason": None}
        workload.status = workload.status.model_copy(update={"state": State.PREPARING, **unseen})
    migration.generation = workload.generation
    migration.leftovers = [workload.id, *(volume.id for volume in volumes)]
    message = f"its new host takes it up ({format_bytes(migration.copied)} were copied)"
    advance(uow, migration, Phase.STARTING, now, message)
    migration.owner = migration.lease_expires_at = migration.ticket = None
    uow.after_commit(partial(services.wake_host, target))
    nics = uow.nics.of_workloads([workload.id]).get(workload.id, ())
    overlays.announce(services, uow, [nic.network_id for nic in nics], told=(source, target))
    news_for_source(services, uow, migration, workload)


def taken_up(
    services: Services, uow: UnitOfWork, migration: Migration, workload: Workload, now: datetime
) -> list[str]:
    """After a report of the target: let the source clear up once all is well there.

    Ids of the operations that are finished by it.
    """
    if migration.phase is not Phase.STARTING or not is_taken_up(workload, migration):
        return []
    if migration.source_host_id is None:  # it was removed meanwhile: nothing is left to clear up
        _end(migration, Phase.DONE, now)
    else:
        advance(uow, migration, Phase.CLEANING, now, "")
        news_for_source(services, uow, migration, workload)
    add_event(
        uow,
        "workload.moved",
        workload_target(workload),
        now=now,
        operation_id=migration.operation_id,
        message=f"from host {host_name(uow, migration.source_host_id)}",
        data={"migration": migration.id, "copied": migration.copied},
    )
    operation_id = _finish_operation(uow, migration, OperationState.SUCCEEDED, now)
    return [operation_id, *drain_end.look(uow, migration, now)]


def removed(uow: UnitOfWork, migration: Migration, id: str, now: datetime) -> list[str]:
    """The source has removed ``id``: at the end give back what it had claimed.

    Ids of the operations that are finished by it.
    """
    if migration.phase is not Phase.CLEANING or id not in migration.leftovers:
        return []
    migration.leftovers = [one for one in migration.leftovers if one != id]
    if migration.leftovers:
        if migration.source_host_id is not None:  # its volumes are next
            migration.revision = uow.hosts.next_revision(migration.source_host_id)
        return []
    _release(uow, migration, migration.source_host_id)
    _end(migration, Phase.DONE, now)
    return drain_end.look(uow, migration, now)


def give_up(
    services: Services,
    uow: UnitOfWork,
    migration: Migration,
    workload: Workload,
    now: datetime,
    problem: dict[str, Any],
) -> None:
    """The workload stays on its source, which brings it back to what its owner asked for."""
    if migration.phase not in AT_SOURCE:
        return
    cancelled = problem["code"] == CANCELLED
    migration.error = problem
    if migration.phase is not Phase.PLANNED:
        if migration.mode is MigrationMode.COLD:
            workload.generation += 1
        news_for_source(services, uow, migration, workload)
    target = uow.hosts.get(migration.target_host_id) if migration.target_host_id else None
    is_there = target is not None and target.state not in SILENT
    if migration.phase in AT_TARGET_TOO and is_there:
        migration.phase, migration.updated_at = Phase.RETREATING, now
        volumes = uow.volumes.of_workload(workload.id)
        migration.leftovers = [workload.id, *(volume.id for volume in volumes)]
        migration.owner = migration.lease_expires_at = migration.ticket = None
        news_for_target(services, uow, migration)
    else:
        _release(uow, migration, migration.target_host_id)
        _end(migration, Phase.FAILED, now)
    add_event(
        uow,
        "workload.move_cancelled" if cancelled else "workload.move_failed",
        workload_target(workload),
        now=now,
        operation_id=migration.operation_id,
        message=str(problem["detail"]),
        data={"migration": migration.id},
    )
    state = OperationState.CANCELLED if cancelled else OperationState.FAILED
    _finish_operation(uow, migration, state, now, problem)
    drain_end.look(uow, migration, now)


def end_taken_back(
    uow: UnitOfWork, migration: Migration, now: datetime, problem: dict[str, Any]
) -> None:
    """The target is gone for good, and the workload its source's again, with what is claimed
    there."""
    migration.error, migration.leftovers = problem, []
    _end(migration, Phase.FAILED, now)
    _finish_operation(uow, migration, OperationState.FAILED, now, problem)
    drain_end.look(uow, migration, now)


def removed_at_target(uow: UnitOfWork, migration: Migration, id: str, now: datetime) -> list[str]:
    """The target has removed ``id``, of what it had made for a workload that stayed.

    Ids of the operations that are finished by it.
    """
    if migration.phase is not Phase.RETREATING or id not in migration.leftovers:
        return []
    migration.leftovers = [one for one in migration.leftovers if one != id]
    if not migration.leftovers:
        return retreated(uow, migration, now)
    if migration.target_host_id is not None:  # its volumes are next
        migration.target_revision = uow.hosts.next_revision(migration.target_host_id)
    return []


def retreated(uow: UnitOfWork, migration: Migration, now: datetime) -> list[str]:
    """The target has removed what it had made for a workload that stayed where it was; or it fell
    silent, and is told all anew when it is back.

    Ids of the operations that are finished by it.
    """
    if migration.phase is not Phase.RETREATING:
        return []
    _release(uow, migration, migration.target_host_id)
    _end(migration, Phase.FAILED, now)
    return drain_end.look(uow, migration, now)


CANCELLED = "cancelled"
BY_REQUEST = {"code": CANCELLED, "detail": "the move was cancelled", "hint": None}


def problem_of(error: VirtmgrError) -> dict[str, Any]:
    return {"code": error.code, "detail": error.message, "hint": error.hint}


def news_for_source(
    services: Services, uow: UnitOfWork, migration: Migration, workload: Workload
) -> None:
    """What the source should have of the workload has changed."""
    if migration.source_host_id is None:
        return
    revision = uow.hosts.next_revision(migration.source_host_id)
    if workload.host_id == migration.source_host_id:
        workload.revision = revision
    migration.revision = revision
    uow.after_commit(partial(services.wake_host, migration.source_host_id))


def news_for_target(services: Services, uow: UnitOfWork, migration: Migration) -> None:
    """What the target should have of a workload that is not its own yet has changed."""
    if migration.target_host_id is None:
        return
    migration.target_revision = uow.hosts.next_revision(migration.target_host_id)
    uow.after_commit(partial(services.wake_host, migration.target_host_id))


def advance(
    uow: UnitOfWork, migration: Migration, phase: Phase, now: datetime, message: str
) -> None:
    """Go on to the next phase, and show it, in the drain that it is part of as well."""
    migration.phase, migration.updated_at = phase, now
    operation = uow.operations.get(migration.operation_id)
    if operation is not None and operation.finished_at is None:
        operation.state = OperationState.RUNNING
        operation.progress = max(operation.progress, PROGRESS[phase])
        operation.message, operation.updated_at = message, now
    drain_end.look(uow, migration, now)


PROGRESS = {
    Phase.STOPPING: 0.1,
    Phase.PREPARING: 0.1,
    Phase.COPYING: 0.2,
    Phase.MIGRATING: 0.2,
    Phase.STARTING: 0.8,
    Phase.CLEANING: 0.95,
}


def _end(migration: Migration, phase: Phase, now: datetime) -> None:
    migration.phase, migration.updated_at, migration.finished_at = phase, now, now
    migration.owner = migration.lease_expires_at = migration.ticket = None
    migration.claim_vcpus, migration.claim_memory, migration.claim_disk = 0.0, 0, 0


def _release(uow: UnitOfWork, migration: Migration, host_id: str | None) -> None:
    if host_id is not None:
        uow.hosts.release(
            host_id,
            vcpus=migration.claim_vcpus,
            memory=migration.claim_memory,
            disk=migration.claim_disk,
        )


def _finish_operation(
    uow: UnitOfWork,
    migration: Migration,
    state: OperationState,
    now: datetime,
    problem: dict[str, Any] | None = None,
) -> str:
    operation = uow.operations.get(migration.operation_id)
    if operation is not None and operation.finished_at is None:
        end(operation, state, now, str(problem["detail"]) if problem else "", problem=problem)
        target = Target(
            operation.target_type, operation.target_id, operation.target_name, operation.project_id
        )
        add_event(
            uow,
            f"operation.{state.value}",
            target,
            now=now,
            user_id=operation.user_id,
            operation_id=operation.id,
            message=f"{operation.verb}: {operation.message}".rstrip(": "),
        )
    return migration.operation_id


def host_name(uow: UnitOfWork, host_id: str | None) -> str:
    host = uow.hosts.get(host_id) if host_id is not None else None
    return host.name if host is not None else "that is gone"
