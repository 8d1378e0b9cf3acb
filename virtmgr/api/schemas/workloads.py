"""Workloads as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer
from virtmgr.api.schemas.usage_history import HistoryView
from virtmgr.api.secrets import secret_field
from virtmgr.domain.workload import Init, Kind, Usage, Workload, WorkloadSpec, WorkloadStatus
from virtmgr.ports.unit_of_work import UnitOfWork


class NicView(View):
    """A workload's port on a network."""

    index: int = Field(description="eth0 is 0.")
    network: ReferenceView
    mac: str
    addresses: list[str]


class WorkloadView(View):
    """A VM or container: what its owner asked for, and what was last observed."""

    id: str
    name: str
    project: ReferenceView
    kind: Kind
    init: Init | None
    spec: WorkloadSpec
    status: WorkloadStatus
    generation: int = Field(description="Counts changes of spec.")
    observed_generation: int = Field(description="The one that the host last converged to.")
    host: ReferenceView | None
    cluster: ReferenceView
    image: ReferenceView | None
    nics: list[NicView]
    labels: dict[str, str]
    deleting: bool
    created_at: datetime
    updated_at: datetime
    version: int


class PlacementView(View):
    """Why the workload runs where it does."""

    host: ReferenceView | None
    explanation: dict[str, Any] | None


class UsageView(View):
    """What the workload uses."""

    usage: Usage | None = Field(description="null: it does not run, or nothing was seen yet.")
    history: HistoryView | None = Field(description="null without since.")


class TicketView(View):
    """Where to open a stream: docs/api.md, Streams."""

    url: str | None = secret_field("Good for one connection; null where answered again.")
    expires_at: datetime


def presenter(uow: UnitOfWork, workloads: Sequence[Workload]) -> Callable[[Workload], WorkloadView]:
    """How to present these workloads; a fixed number of queries however many they are."""
    ports = uow.nics.ports([workload.id for workload in workloads])
    project = Referrer(uow.projects, (workload.project_id for workload in workloads))
    host = Referrer(uow.hosts, (workload.host_id for workload in workloads))
    cluster = Referrer(uow.clusters, (workload.cluster_id for workload in workloads))
    image = Referrer(uow.images, (workload.image_id for workload in workloads))
    network = Referrer(uow.networks, [port.network_id for each in ports.values() for port in each])

    def present(workload: Workload) -> WorkloadView:
        return WorkloadView.of(
            id=workload.id,
            name=workload.name,
            project=project.known(workload.project_id),
            kind=workload.kind,
            init=workload.init,
            spec=workload.spec,
            status=workload.status,
            generation=workload.generation,
            observed_generation=workload.observed_generation,
            host=host(workload.host_id),
            cluster=cluster.known(workload.cluster_id),
            image=image(workload.image_id),
            nics=[
                NicView(
                    index=port.position,
                    network=network.known(port.network_id),
                    mac=port.mac,
                    addresses=list(port.addresses),
                )
                for port in ports.get(workload.id, ())
            ],
            labels=dict(workload.spec.labels),
            deleting=workload.deleting,
            created_at=workload.created_at,
            updated_at=workload.updated_at,
            version=workload.version,
        )

    return present
