"""Failovers as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer
from virtmgr.domain.failover import Failover, FailoverPhase, Release
from virtmgr.ports.unit_of_work import UnitOfWork


class FailoverView(View):
    """One highly available workload of one lost host."""

    id: str
    workload: ReferenceView
    project: ReferenceView
    lost: ReferenceView | None = Field(description="The host that was lost.")
    target: ReferenceView | None = Field(description="The host that it was restarted on.")
    phase: FailoverPhase = Field(
        description="waiting; restarted: the lost host has not removed what it had; done; "
        "recovered: the host came back first, and keeps it; ended: nothing was to be restarted."
    )
    release: Release | None = Field(
        description="Why the lost host cannot be running it: self_fenced, fenced, confirmed."
    )
    code: str = Field(description="What it waits for, or why it was restarted, for programs.")
    message: str = Field(description="The same for people.")
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


def presenter(
    uow: UnitOfWork, failovers: Sequence[Failover] = ()
) -> Callable[[Failover], FailoverView]:
    """How to present failovers, with the names of hosts."""
    host = Referrer(
        uow.hosts,
        [id for failover in failovers for id in (failover.lost_host_id, failover.target_host_id)],
    )
    project = Referrer(uow.projects, (failover.project_id for failover in failovers))

    def present(failover: Failover) -> FailoverView:
        return FailoverView(
            id=failover.id,
            workload=ReferenceView(id=failover.workload_id, name=failover.workload_name),
            project=project.known(failover.project_id),
            lost=host(failover.lost_host_id),
            target=host(failover.target_host_id),
            phase=failover.phase,
            release=failover.release,
            code=failover.code,
            message=failover.message,
            created_at=failover.created_at,
            updated_at=failover.updated_at,
            finished_at=failover.finished_at,
        )

    return present
