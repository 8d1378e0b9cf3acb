"""Routes of projects and their quotas. The simplest example of how routes are written."""

from __future__ import annotations

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.merge_patch import Patch
from virtmgr.api.routing import Route, change, create, delete, read
from virtmgr.api.schemas.projects import (
    ListedProjectView,
    ProjectView,
    QuotaView,
    project_presenter,
)
from virtmgr.domain.access import Action
from virtmgr.domain.project import Project
from virtmgr.services import projects, quotas
from virtmgr.services.context import Context
from virtmgr.services.projects import ProjectFields
from virtmgr.services.quotas import QuotaFields

present = ProjectView.model_validate


def _answer(project: Project) -> Answer[ProjectView]:
    return Answer(present(project), project.version, f"/projects/{project.id}")


def list_(context: Context, query: ListParameters) -> Answer[Listing[ListedProjectView]]:
    """List projects with their quotas"""
    page = projects.list_(context, query.query(project_ids=context.visible))
    return listing(page, project_presenter(context.uow, page.items))


def make(context: Context, body: ProjectFields) -> Answer[ProjectView]:
    """Make a project"""
    return _answer(projects.create(context, body))


def show(context: Context) -> Answer[ProjectView]:
    """Show a project"""
    return _answer(context.own_project)


def patch(context: Context, patch: Patch[ProjectFields]) -> Answer[ProjectView]:
    """Change a project (JSON merge patch)"""
    current = ProjectFields.model_validate(projects.lock(context), from_attributes=True)
    return _answer(projects.update(context, patch.apply(current)))


def remove(context: Context) -> Answer[ProjectView]:
    """Delete an empty project"""
    return _answer(projects.delete(context))


def show_quota(context: Context) -> Answer[QuotaView]:
    """Show what a project may take and what it uses"""
    quota = quotas.find(context)
    return Answer(QuotaView.model_validate(quota), quota.version)


def patch_quota(context: Context, patch: Patch[QuotaFields]) -> Answer[QuotaView]:
    """Change a project's limits (JSON merge patch); null is no limit"""
    wanted = patch.apply(quotas.limits(quotas.find(context)))
    quota = quotas.update(context, wanted)
    return Answer(QuotaView.model_validate(quota), quota.version)


_ONE = "/projects/{project}"

ROUTES: tuple[Route, ...] = (
    read("/projects", list_, Action.PROJECTS_VIEW),
    create("/projects", make, Action.PROJECTS_CREATE),
    read(_ONE, show, Action.PROJECTS_VIEW),
    change("PATCH", _ONE, patch, Action.PROJECTS_UPDATE),
    delete(_ONE, remove, Action.PROJECTS_DELETE),
    read(_ONE + "/quota", show_quota, Action.QUOTAS_VIEW),
    change("PATCH", _ONE + "/quota", patch_quota, Action.QUOTAS_UPDATE),
)
