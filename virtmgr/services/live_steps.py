"""The steps of a live migration, each one transaction.

A worker lets the target prepare. From then on what the two hosts report decides: the source says
whether the workload has left it, and until it has said so nobody else runs it.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from virtmgr.domain.live_migration import after_report
from virtmgr.domain.migration import LIVE_AT_ONCE, Migration, MigrationMode, Phase, obstacle
from virtmgr.domain.operation import OperationState
from virtmgr.domain.sync import ObservedMove
from virtmgr.domain.values import format_bytes
from virtmgr.domain.workload import Reason, Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import overlays
from virtmgr.services.container import Services
from virtmgr.services.migration_steps import (
    BY_REQUEST,
    advance,
    give_up,
    hand_over,
    news_for_source,
    news_for_target,
    taken_up,
)

_LOST = {
    "code": "move_broke",
    "detail": "the workload could not be moved while it ran",
    "hint": "it runs on where it was; move it again, or with --cold",
}


def is_busy(uow: UnitOfWork, migration: Migration) -> bool:
    """Whether as many leave its source already as may at a time."""
    under_way = (Phase.PREPARING, Phase.MIGRATING)
    others = [
        one
        for one in uow.migrations.open_on(migration.source_host_id or "")
        if one.source_host_id == migration.source_host_id and one.phase in under_way
    ]
    return len(others) >= LIVE_AT_ONCE


def begin_preparing(
    services: Services, uow: UnitOfWork, migration: Migration, workload: Workload, now: datetime
) -> None:
    """Let the target make what the workload comes to, unless it cannot be moved any more."""
    why = obstacle(workload, MigrationMode.LIVE)
    if why is not None:
        give_up(services, uow, migration, workload, now, _problem(why))
        return
    migration.ticket = secrets.token_urlsafe(32)
    advance(uow, migration, Phase.PREPARING, now, "its new host prepares")
    news_for_target(services, uow, migration)
    nics = uow.nics.of_workloads([workload.id]).get(workload.id, ())
    overlays.announce(services, uow, [nic.network_id for nic in nics])


def note(
    services: Services,
    uow: UnitOfWork,
    host_id: str,
    migration: Migration,
    workload: Workload,
    said: ObservedMove,
    now: datetime,
) -> list[str]:
    """Take in what one of its hosts says of a migration.

    Ids of the operations that are finished by it.
    """
    # Locked, and fresh then: the other host may be reporting at the same time.
    if said.id != migration.id or uow.migrations.lock(migration.id) is None:
        return []
    by_source = host_id == migration.source_host_id
    if by_source:
        migration.copied = max(migration.copied, said.copied)
    cancelling = migration.cancelling
    after = after_report(migration.phase, said, by_source=by_source, cancelling=cancelling)
    if after is Phase.MIGRATING:
        advance(uow, migration, after, now, "its disks and memory go over")
        migration.owner = migration.lease_expires_at = None
        news_for_source(services, uow, migration, workload)
    elif after is Phase.STARTING:
        hand_over(services, uow, migration, workload, now)
    elif after is Phase.RETREATING:
        problem = dict(BY_REQUEST) if cancelling else _problem(said.reason)
        give_up(services, uow, migration, workload, now, problem)
        return [migration.operation_id]
    elif by_source and migration.phase is Phase.MIGRATING:
        _show_progress(uow, migration, said, now)
    return []


def _show_progress(
    uow: UnitOfWork, migration: Migration, said: ObservedMove, now: datetime
) -> None:
    operation = uow.operations.get(migration.operation_id)
    if operation is None or operation.finished_at is not None or said.progress is None:
        return
    operation.state = OperationState.RUNNING
    operation.progress = max(operation.progress, 0.2 + 0.6 * min(1.0, said.progress))
    copied = f"{format_bytes(said.copied)} have gone"
    operation.message = f"{copied}, {said.message}" if said.message else copied
    operation.updated_at = now


def note_own(
    services: Services,
    uow: UnitOfWork,
    host_id: str,
    migration: Migration,
    workload: Workload,
    said: ObservedMove | None,
    now: datetime,
) -> list[str]:
    """After a report of the host that the workload belongs to.

    Ids of the operations that are finished by it.
    """
    finished: list[str] = []
    if said is not None:
        finished += note(services, uow, host_id, migration, workload, said, now)
    if migration.phase is Phase.STARTING and host_id == migration.target_host_id:
        finished += taken_up(services, uow, migration, workload, now)
    return finished


def _problem(why: Reason | None) -> dict[str, Any]:
    if why is None:
        return dict(_LOST)
    return {"code": why.code, "detail": why.message, "hint": why.hint or _LOST["hint"]}
