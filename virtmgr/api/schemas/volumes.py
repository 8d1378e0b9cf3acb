"""Volumes as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer
from virtmgr.domain.volume import Volume, VolumeState
from virtmgr.ports.unit_of_work import UnitOfWork


class VolumeView(View):
    """A disk that outlives workloads."""

    id: str
    name: str
    project: ReferenceView
    size: int = Field(description="Bytes.")
    state: VolumeState = Field(description="pending until its host has made it.")
    failure: str | None
    host: ReferenceView | None = Field(description="null: not bound to one yet.")
    pool: ReferenceView | None
    workload: ReferenceView | None = Field(description="What it is attached to.")
    labels: dict[str, str]
    created_at: datetime
    version: int


def volume_presenter(
    uow: UnitOfWork, volumes: Sequence[Volume] = ()
) -> Callable[[Volume], VolumeView]:
    """How to present volumes."""
    project = Referrer(uow.projects, (volume.project_id for volume in volumes))
    host = Referrer(uow.hosts, (volume.host_id for volume in volumes))
    pool = Referrer(uow.pools, (volume.pool_id for volume in volumes))
    workload = Referrer(uow.workloads, (volume.workload_id for volume in volumes))

    def present(volume: Volume) -> VolumeView:
        return VolumeView(
            id=volume.id,
            name=volume.name,
            project=project.known(volume.project_id),
            size=volume.size,
            state=volume.state,
            failure=volume.failure,
            host=host(volume.host_id),
            pool=pool(volume.pool_id),
            workload=workload(volume.workload_id),
            labels=volume.labels,
            created_at=volume.created_at,
            version=volume.version,
        )

    return present
