"""Projects and quotas as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from virtmgr.api.answers import View
from virtmgr.domain.project import Project
from virtmgr.ports.unit_of_work import ListQuery, UnitOfWork


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


class ListedProjectView(ProjectView):
    """A project with what it may take and uses."""

    quota: QuotaView


def project_presenter(
    uow: UnitOfWork, projects: Sequence[Project]
) -> Callable[[Project], ListedProjectView]:
    """How to present these projects with their quotas; one query however many they are."""
    ids = frozenset(project.id for project in projects)
    query = ListQuery(sort="project", limit=len(ids) or 1, project_ids=ids)
    quotas = {quota.project_id: quota for quota in uow.quotas.list(query).items}

    def present(project: Project) -> ListedProjectView:
        # What comes from the inventory is checked already; forms choose among hundreds of these.
        quota = QuotaView.model_construct(**_attributes(QuotaView, quotas[project.id]))
        own = _attributes(ProjectView, project)
        return ListedProjectView.model_construct(**own, quota=quota)

    return present


def _attributes(view: type[View], entity: object) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in view.model_fields}
