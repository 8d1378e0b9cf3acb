"""Volumes: disks of a project that outlive workloads."""

from __future__ import annotations

from functools import partial

from pydantic import Field

from virtmgr.domain.errors import Conflict, InvalidRequest, NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.values import Bytes, Labels, Name, Value, format_bytes
from virtmgr.domain.volume import Volume, VolumeState
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services.context import Context
from virtmgr.services.forgetting import forget_volume
from virtmgr.services.in_use import refuse_in_use
from virtmgr.services.placement import Overtaken

_SMALLEST = 1024**2


class VolumeFields(Value):
    """A volume as its owner wants it."""

    name: Name = Field(description="Unique in the project. A DNS label.")
    size: Bytes = Field(description="Size, at least 1 MiB. It can grow while it is not attached.")
    labels: Labels = Field(default_factory=dict, description="Key and value pairs to select by.")


def list_(context: Context, query: ListQuery) -> Page[Volume]:
    """Volumes of the projects that may be seen."""
    return context.uow.volumes.list(query)


def find(context: Context, reference: str) -> Volume:
    """A volume of the context's project.

    :raises NotFound: there is none.
    """
    volume = context.uow.volumes.find(context.own_project.id, reference)
    if volume is None:
        raise NotFound(f"there is no volume {reference!r} in this project")
    return volume


def lock(context: Context, reference: str) -> Volume:
    """The same, to be changed, its host locked before it.

    :raises placement.Overtaken: it was bound to a host meanwhile; try again in a new unit.
    """
    found = find(context, reference)
    host_id = found.host_id
    context.lock_hosts(host_id)
    locked = context.for_change(context.uow.volumes, found, f"volume {reference!r}")
    if locked.host_id != host_id:
        raise Overtaken(locked.host_id)
    return locked


def create(context: Context, fields: VolumeFields) -> Volume:
    """A new volume, charged to the project's quota. Its host makes it when it is first attached.

    :raises QuotaExceeded: the quota does not hold it.
    """
    _check_size(fields.size)
    project = context.own_project
    context.uow.quotas.charge(project.id, {"volumes": 1, "disk": fields.size})
    volume = Volume(
        id=new_id(),
        project_id=project.id,
        name=fields.name,
        size=fields.size,
        labels=dict(fields.labels),
        created_at=context.now,
    )
    context.uow.volumes.add(volume)
    context.record("volume.created", volume, f"volume {volume.name} was created")
    return volume


def _check_size(size: int) -> None:
    if size < _SMALLEST:
        raise InvalidRequest("a volume has at least 1 MiB", field="size")


def update(context: Context, volume: Volume, fields: VolumeFields) -> Volume:
    """Set the fields of a locked volume.

    :raises InvalidRequest: it would shrink.
    :raises Conflict: it would grow while it is attached.
    :raises QuotaExceeded: the quota does not hold what it grows by.
    """
    if fields.size != volume.size:
        _grow(context, volume, fields.size)
    if fields.name != volume.name and volume.workload_id is not None:
        raise Conflict(
            f"volume {volume.name!r} is attached, and its workload may know it by its name",
            code="volume_in_use",
            field="name",
            hint="detach it first",
        )
    volume.name, volume.labels = fields.name, dict(fields.labels)
    context.record("volume.updated", volume, f"volume {volume.name} was changed")
    context.uow.flush()
    return volume


def _grow(context: Context, volume: Volume, size: int) -> None:
    if size < volume.size:
        raise InvalidRequest(
            f"volume {volume.name!r} has {format_bytes(volume.size)} and cannot shrink",
            code="volume_shrinks",
            field="size",
            hint="make a smaller volume and copy what you need",
        )
    if volume.workload_id is not None:
        raise Conflict(
            f"volume {volume.name!r} is attached, and grows only while it is not",
            code="volume_in_use",
            field="size",
            hint="detach it first",
        )
    context.uow.quotas.charge(volume.project_id, {"disk": size - volume.size})
    volume.size = size


def delete(context: Context, reference: str) -> Volume:
    """Delete a volume that is not attached.

    One that no host has made yet is gone at once; otherwise it is ``deleting``, and still counts
    in the quota, until its host has removed the file.

    :raises Conflict: it is attached; the workload is named.
    """
    volume = lock(context, reference)
    if volume.workload_id is not None:
        workload = context.uow.workloads.get(volume.workload_id)
        name = workload.name if workload else volume.workload_id
        refuse_in_use(f"volume {volume.name!r}", workload=[name])
    if volume.state is VolumeState.DELETING:
        return volume
    if volume.host_id is None:
        context.record("volume.deleted", volume, f"volume {volume.name} was deleted")
        forget_volume(context.uow, volume)
    else:
        _ask_host_to_remove(context, volume, volume.host_id)
    context.uow.flush()
    return volume


def _ask_host_to_remove(context: Context, volume: Volume, host_id: str) -> None:
    volume.state = VolumeState.DELETING
    volume.revision = context.uow.hosts.next_revision(host_id)
    context.record(
        "volume.delete_requested",
        volume,
        f"volume {volume.name} is being removed from its host",
        host_id=host_id,
    )
    context.uow.after_commit(partial(context.services.wake_host, host_id))
