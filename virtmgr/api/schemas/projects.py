"""Projects and quotas as the API shows them."""

from __future__ import annotations

from datetime import datetime

from virtmgr.api.answers import View


class ProjectView(View):
    """A tenant: owns workloads, volumes and networks."""

    id: str
    name: str
    description: str
    labels: dict[str, str]
    created_at: datetime
    version: int


class QuotaView(View):
    """What a project may take (null: no limit) and what it uses; memory and disk in bytes."""

    project_id: str
    limit_workloads: int | None
    limit_vcpus: float | None
    limit_memory: int | None
    limit_disk: int | None
    limit_volumes: int | None
    limit_addresses: int | None
    used_workloads: int
    used_vcpus: float
    used_memory: int
    used_disk: int
    used_volumes: int
    used_addresses: int
    version: int
