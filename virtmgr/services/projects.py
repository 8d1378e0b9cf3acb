"""Projects and their quotas."""

from __future__ import annotations

from pydantic import Field

from virtmgr.domain.access import Action
from virtmgr.domain.errors import NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.project import Project, Quota
from virtmgr.domain.values import Labels, Name, Value
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services.context import Context
from virtmgr.services.in_use import refuse_in_use


class ProjectFields(Value):
    """What can be set of a project."""

    name: Name = Field(description="Unique. A DNS label.")
    description: str = Field("", max_length=1024, description="Free text for people.")
    labels: Labels = Field(default_factory=dict, description="Key and value pairs to select by.")


def list_(context: Context, query: ListQuery) -> Page[Project]:
    """The projects that the principal may see."""
    return context.uow.projects.list(query)


def create(context: Context, fields: ProjectFields) -> Project:
    """A new project, with a quota without limits.

    :raises NameTaken: another project has the name.
    """
    project = Project(
        id=new_id(),
        name=fields.name,
        description=fields.description,
        labels=dict(fields.labels),
        created_at=context.now,
    )
    context.uow.projects.add(project)
    context.uow.quotas.add(Quota(project_id=project.id))
    context.record(
        "project.created", project, f"project {project.name} was created", project_id=project.id
    )
    return project


def update(context: Context, fields: ProjectFields) -> Project:
    """Set the fields of the context's project."""
    project = lock(context)
    project.name, project.description = fields.name, fields.description
    project.labels = dict(fields.labels)
    context.record(
        "project.updated", project, f"project {project.name} was changed", project_id=project.id
    )
    context.uow.flush()
    return project


def lock(context: Context) -> Project:
    """The context's project, to be changed."""
    project = context.own_project
    return context.for_change(context.uow.projects, project, f"project {project.name!r}")


def delete(context: Context) -> Project:
    """Delete the context's project, which must be empty.

    :raises Conflict: it still has workloads, volumes or networks; they are named.
    """
    project = lock(context)
    uow, inside = context.uow, ListQuery(project_ids=frozenset({project.id}), limit=10)
    refuse_in_use(
        f"project {project.name!r}",
        workload=[workload.name for workload in uow.workloads.list(inside).items],
        volume=[volume.name for volume in uow.volumes.list(inside).items],
        network=[
            network.name
            for network in uow.networks.list(inside).items
            if network.project_id == project.id
        ],
    )
    # Without the project's id, which would hide the line from everybody who may see what is left.
    context.record("project.deleted", project, f"project {project.name} was deleted")
    uow.projects.remove(project)
    uow.flush()
    return project


def visible(context: Context, reference: str) -> Project:
    """The project that a filter names.

    :raises NotFound: there is none, or it may not be seen.
    """
    project = context.uow.projects.find(reference)
    if project is None:
        raise NotFound(f"project {reference!r} does not exist", field="project")
    context.require(Action.PROJECTS_VIEW, project.id, f"project {reference!r}")
    return project


def scope(context: Context, reference: str | None) -> frozenset[str] | None:
    """Ids of the projects that a list shows: the one that a filter names, or all visible ones."""
    if context.project is not None:
        return frozenset({context.project.id})
    return context.visible if reference is None else frozenset({visible(context, reference).id})
