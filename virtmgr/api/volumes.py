"""Routes of volumes."""

from __future__ import annotations

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.filters import by_id
from virtmgr.api.merge_patch import Patch
from virtmgr.api.routing import Route, change, create, delete, read
from virtmgr.api.schemas.volumes import VolumeView, volume_presenter
from virtmgr.domain.access import Action
from virtmgr.domain.volume import Volume, VolumeState
from virtmgr.services import volumes
from virtmgr.services.context import Context
from virtmgr.services.volumes import VolumeFields


class VolumeParameters(ListParameters):
    """Filters of the list in a project."""

    state: VolumeState | None = Field(None, description="pending, ready, failed or deleting.")
    host: str | None = Field(None, max_length=128, description="Host, by name or id.")


class AllVolumeParameters(VolumeParameters):
    """Filters of the list of all that may be seen."""

    project: str | None = Field(None, max_length=128, description="Project, by name or id.")


def _answer(context: Context, volume: Volume) -> Answer[VolumeView]:
    location = f"/projects/{volume.project_id}/volumes/{volume.id}"
    return Answer(volume_presenter(context.uow)(volume), volume.version, location)


def list_all(context: Context, query: AllVolumeParameters) -> Answer[Listing[VolumeView]]:
    """List the volumes of all projects that may be seen"""
    return _list(context, query, context.visible)


def list_(context: Context, query: VolumeParameters) -> Answer[Listing[VolumeView]]:
    """List a project's volumes"""
    return _list(context, query, frozenset({context.own_project.id}))


def _list(
    context: Context, query: VolumeParameters, project_ids: frozenset[str] | None
) -> Answer[Listing[VolumeView]]:
    asked = query.query(project_ids=project_ids, **by_id(context.uow, query))
    page = volumes.list_(context, asked)
    return listing(page, volume_presenter(context.uow, page.items))


def make(context: Context, body: VolumeFields) -> Answer[VolumeView]:
    """Make a volume; its host makes it when it is first attached"""
    return _answer(context, volumes.create(context, body))


def show(context: Context, volume: str) -> Answer[VolumeView]:
    """Show a volume"""
    return _answer(context, volumes.find(context, volume))


def patch(context: Context, volume: str, patch: Patch[VolumeFields]) -> Answer[VolumeView]:
    """Change a volume's name, labels or (only to more) its size (JSON merge patch)"""
    found = volumes.lock(context, volume)
    current = VolumeFields.model_validate(found, from_attributes=True)
    return _answer(context, volumes.update(context, found, patch.apply(current)))


def remove(context: Context, volume: str) -> Answer[VolumeView]:
    """Delete a volume that is not attached"""
    return _answer(context, volumes.delete(context, volume))


_ALL = "/projects/{project}/volumes"
_ONE = _ALL + "/{volume}"

ROUTES: tuple[Route, ...] = (
    read("/volumes", list_all, Action.VOLUMES_VIEW),
    read(_ALL, list_, Action.VOLUMES_VIEW),
    create(_ALL, make, Action.VOLUMES_CREATE),
    read(_ONE, show, Action.VOLUMES_VIEW),
    change("PATCH", _ONE, patch, Action.VOLUMES_UPDATE),
    delete(_ONE, remove, Action.VOLUMES_DELETE),
)
