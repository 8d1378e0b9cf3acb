"""Quotas: what a project may take, and what it uses."""

from __future__ import annotations

from pydantic import Field

from virtmgr.domain.errors import NotFound
from virtmgr.domain.project import Quota
from virtmgr.domain.quota import RESOURCES
from virtmgr.domain.values import Bytes, Value
from virtmgr.services.context import Context


class QuotaFields(Value):
    """A project's limits; null is no limit."""

    limit_workloads: int | None = Field(None, ge=0, le=2**31, description="How many workloads.")
    limit_vcpus: float | None = Field(
        None, ge=0, le=2**31, description="Virtual CPUs of all workloads."
    )
    limit_memory: Bytes | None = Field(None, description="Memory of all workloads, in bytes.")
    limit_disk: Bytes | None = Field(None, description="Root disks and volumes together, in bytes.")
    limit_volumes: int | None = Field(None, ge=0, le=2**31, description="How many volumes.")
    limit_addresses: int | None = Field(None, ge=0, le=2**31, description="Addresses on networks.")


def find(context: Context) -> Quota:
    """The quota of the context's project."""
    quota = context.uow.quotas.get(context.own_project.id)
    if quota is None:
        raise NotFound(f"project {context.own_project.name!r} has no quota")
    return quota


def limits(quota: Quota) -> QuotaFields:
    """What can be set of ``quota``."""
    return QuotaFields(**{f"limit_{name}": getattr(quota, f"limit_{name}") for name in RESOURCES})


def update(context: Context, fields: QuotaFields) -> Quota:
    """Set the limits. One below what is used refuses more, but takes nothing away."""
    quota = find(context)
    context.check_version(quota.version, f"the quota of project {context.own_project.name!r}")
    for name, limit in fields:
        setattr(quota, name, limit)
    project = context.own_project
    context.record(
        "quota.updated",
        project,
        f"the quota of project {project.name} was changed",
        project_id=project.id,
        data=fields.model_dump(),
    )
    context.uow.flush()
    return quota
