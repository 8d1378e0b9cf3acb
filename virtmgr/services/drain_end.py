"""How far a drain is, and its end: told whenever one of its migrations gets further."""

from __future__ import annotations

from datetime import datetime

from virtmgr.domain.draining import standing
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.migration import Migration
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.operation_end import end
from virtmgr.services.records import add_event, host_target


def look(uow: UnitOfWork, migration: Migration, now: datetime) -> list[str]:
    """Bring the drain that ``migration`` is part of forward; its id where it ends by that."""
    operation = uow.operations.get(migration.drain_id) if migration.drain_id is not None else None
    if operation is None or operation.finished_at is not None:
        return []
    uow.flush()
    far = standing(uow.migrations.phases_of_drain(operation.id))
    operation.state, operation.updated_at = OperationState.RUNNING, now
    operation.progress = max(operation.progress, far.progress)
    operation.message = far.message
    if not far.ended:
        return []
    host = uow.hosts.lock(operation.target_id)
    if host is not None:
        conclude(uow, host, operation, now)
    return [operation.id]


def conclude(uow: UnitOfWork, host: Host, operation: Operation, now: datetime) -> None:
    """End a drain: the host is in maintenance if nothing is left on it, else cordoned."""
    left = [workload.name for workload in uow.workloads.on_host(host.id)]
    if left:
        shown = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        stay = "1 workload stays" if len(left) == 1 else f"{len(left)} workloads stay"
        message = f"{stay}: {shown}"
        problem = {
            "code": "not_drained",
            "detail": f"host {host.name!r} is not empty: {message}",
            "hint": f"see why with 'virtmgr host drain {host.name} --plan', and drain it again",
        }
        end(operation, OperationState.FAILED, now, message, problem=problem)
    else:
        end(operation, OperationState.SUCCEEDED, now, "nothing is left on it")
    made = HostState.CORDONED if left else HostState.MAINTENANCE
    host.scheduling_state = made
    if host.state is HostState.DRAINING:
        host.state = made
    add_event(
        uow,
        "host.drain_incomplete" if left else "host.drained",
        host_target(host),
        now=now,
        user_id=operation.user_id,
        operation_id=operation.id,
        message=operation.message,
    )
