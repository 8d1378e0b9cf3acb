"""Migrations, and what a drain plans, as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer, WhyNotView, why_not_view
from virtmgr.domain.migration import Migration, MigrationMode, Phase
from virtmgr.domain.workload import PowerState
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.migrations import Proposal


class MigrationView(View):
    """A workload on its way from one host to another."""

    id: str
    workload: ReferenceView
    project: ReferenceView
    source: ReferenceView | None = Field(description="The host that it leaves.")
    target: ReferenceView | None = Field(description="The host that it goes to.")
    mode: MigrationMode = Field(
        description="live: it runs on meanwhile; cold: stopped, copied, started."
    )
    phase: Phase = Field(
        description="planned, stopping, copying, preparing, migrating: it is the source's; "
        "starting, cleaning: it is the target's; done; retreating, failed: it is on the source, "
        "as before."
    )
    operation_id: str
    drain_id: str | None = Field(description="The operation of the drain that it is part of.")
    rebalance_id: str | None = Field(
        description="The operation of the rebalancing that it is part of."
    )
    copied: int = Field(description="Bytes that have gone so far.")
    error: dict[str, Any] | None = Field(description="Why it failed.")
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class ProposalView(View):
    """Where one workload would go, or why it cannot."""

    workload: ReferenceView
    project: ReferenceView
    target: ReferenceView | None
    mode: MigrationMode
    data: int = Field(description="Bytes to copy, about.")
    downtime: float = Field(description="Seconds that it is expected to be down.")
    stop_timeout: int = Field(description="Seconds that its stop may take beyond that.")
    not_live: list[WhyNotView] = Field(description="Why it cannot be moved while it runs.")
    why_not: WhyNotView | None


def presenter(
    uow: UnitOfWork, migrations: Sequence[Migration] = ()
) -> Callable[[Migration], MigrationView]:
    """How to present migrations, with the names of workloads and hosts."""
    workload = Referrer(uow.workloads, (migration.workload_id for migration in migrations))
    host = Referrer(
        uow.hosts,
        [
            id
            for migration in migrations
            for id in (migration.source_host_id, migration.target_host_id)
        ],
    )
    project = Referrer(uow.projects, (migration.project_id for migration in migrations))

    def present(migration: Migration) -> MigrationView:
        return MigrationView(
            id=migration.id,
            workload=workload.known(migration.workload_id),
            project=project.known(migration.project_id),
            source=host(migration.source_host_id),
            target=host(migration.target_host_id),
            mode=migration.mode,
            phase=migration.phase,
            operation_id=migration.operation_id,
            drain_id=migration.drain_id,
            rebalance_id=migration.rebalance_id,
            copied=migration.copied,
            error=migration.error,
            created_at=migration.created_at,
            updated_at=migration.updated_at,
            finished_at=migration.finished_at,
        )

    return present


def proposal_presenter(uow: UnitOfWork) -> Callable[[Proposal], ProposalView]:
    """How to present what is planned."""
    host, project = Referrer(uow.hosts), Referrer(uow.projects)

    def present(proposal: Proposal) -> ProposalView:
        workload, why = proposal.workload, proposal.why_not
        stopped = workload.spec.state is PowerState.STOPPED
        live = proposal.mode is MigrationMode.LIVE
        return ProposalView(
            workload=ReferenceView(id=workload.id, name=workload.name),
            project=project.known(workload.project_id),
            target=host(proposal.target_id),
            mode=proposal.mode,
            data=proposal.downtime.data,
            downtime=proposal.downtime.seconds,
            stop_timeout=0 if stopped or live else workload.spec.stop_timeout,
            not_live=[why_not_view(reason) for reason in proposal.not_live],
            why_not=why_not_view(why) if why else None,
        )

    return present
