"""Events that virtmgr itself causes, written in the transaction of the change they speak of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from virtmgr.domain.host import Host
from virtmgr.domain.operation import Event
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork


@dataclass(frozen=True)
class Target:
    """What an operation or event is about."""

    type: str
    id: str
    name: str
    project_id: str | None = None
    host_id: str | None = None


def host_target(host: Host) -> Target:
    return Target("host", host.id, host.name, None, host.id)


def workload_target(workload: Workload) -> Target:
    return Target("workload", workload.id, workload.name, workload.project_id, workload.host_id)


def add_event(
    uow: UnitOfWork,
    type: str,
    target: Target,
    *,
    now: datetime,
    user_id: str | None = None,
    operation_id: str | None = None,
    message: str = "",
    data: dict[str, Any] | None = None,
) -> None:
    """Append one line to the log."""
    uow.events.append(
        Event(
            at=now,
            type=type,
            target_type=target.type,
            target_id=target.id,
            target_name=target.name,
            project_id=target.project_id,
            user_id=user_id,
            operation_id=operation_id,
            host_id=target.host_id,
            message=message,
            data=data or {},
        )
    )
