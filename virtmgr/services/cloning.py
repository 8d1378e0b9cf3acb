"""Clones: new workloads with the spec of another and a copy of its disks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from virtmgr.domain.errors import Conflict
from virtmgr.domain.ids import new_id
from virtmgr.domain.states import check_at_rest
from virtmgr.domain.values import Name, Value
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import PowerState, Workload
from virtmgr.ports.driver import Feature
from virtmgr.services import features, workloads
from virtmgr.services.being_copied import refuse_while_published
from virtmgr.services.context import Context
from virtmgr.services.pinned import pinned
from virtmgr.services.references import References, resolve


class CloneFields(Value):
    """What a clone is to be."""

    name: Name = Field(description="Of the clone. A DNS label.")
    start: bool = Field(False, description="Start it; otherwise it is made and stays stopped.")
    with_volumes: bool = Field(
        False,
        description="Copy its volumes too, to new ones named VOLUME-CLONE. Without this, a "
        "workload with volumes is refused, because two cannot share one.",
    )


def clone(
    context: Context, source: Workload, fields: CloneFields, count: int = 1
) -> list[workloads.Changed]:
    """Make ``count`` clones of a stopped workload, on its host, which has its disks.

    A clone has addresses and MACs of its own. Published ports are left out: those of the source
    lead to the source.

    :raises IllegalTransition: the source is not stopped, is to be started, or an image is being
        made from it.
    :raises Unsupported: its driver cannot clone.
    :raises Conflict: it has volumes, and they are not to be copied.
    :raises QuotaExceeded: the project's quota does not hold the clones.
    :raises NoPlacement: their host does not.
    """
    _check_source(context, source, with_volumes=fields.with_volumes)
    uow = context.uow
    nics = uow.nics.of_workloads([source.id]).get(source.id, ())
    found = resolve(uow, source.project_id, pinned(source, source.spec, nics))
    spec = source.spec.model_copy(
        update={
            "nics": tuple(nic.model_copy(update={"address": "auto"}) for nic in source.spec.nics),
            "ports": (),
            "state": PowerState.RUNNING if fields.start else PowerState.STOPPED,
        }
    )
    host = uow.hosts.get(source.host_id) if source.host_id is not None else None
    like = replace(found, spec=spec, host=host)
    wanted = [
        _with_own_volumes(context, workloads.named(like, name))
        for name in workloads.names_of(fields.name, count)
    ]
    made = workloads.insert(context, wanted, source)
    _charge(context, [volume for one in wanted for volume in one.volumes])
    return made


def _check_source(context: Context, source: Workload, *, with_volumes: bool) -> None:
    refuse_while_published(context.uow, source, "clone")
    check_at_rest("clone", source.status.state, source.spec, source.deleting)
    features.require(context.uow, source, Feature.CLONE)
    if source.spec.volumes and not with_volumes:
        names = ", ".join(mount.volume for mount in source.spec.volumes)
        raise Conflict(
            f"cannot clone workload {source.name!r}: it has volumes ({names}), and two workloads "
            "cannot share a volume",
            code="volumes_not_shared",
            field="with_volumes",
            hint="have them copied with with_volumes (--with-volumes), or detach them first",
        )


def _with_own_volumes(context: Context, like: References) -> References:
    """With a new volume for each of the source's."""
    copies = [_copy(context, volume, like.spec.name) for volume in like.volumes]
    mounts = [
        mount.model_copy(update={"volume": copy.name})
        for mount, copy in zip(like.spec.volumes, copies, strict=True)
    ]
    spec = like.spec.model_copy(update={"volumes": tuple(mounts)})
    return replace(like, spec=spec, volumes=tuple(copies))


def _copy(context: Context, volume: Volume, clone: str) -> Volume:
    copy = Volume(
        id=new_id(),
        project_id=volume.project_id,
        name=copy_name(volume.name, clone),
        size=volume.size,
        host_id=volume.host_id,
        pool_id=volume.pool_id,
        labels=dict(volume.labels),
        copy_of=volume.id,
        created_at=context.now,
    )
    context.uow.volumes.add(copy)
    context.record("volume.created", copy, f"volume {copy.name} becomes a copy of {volume.name}")
    return copy


def copy_name(volume: str, clone: str) -> str:
    """The name of a clone's copy of a volume: a DNS label that begins like the volume's. Pure."""
    room = 63 - len(clone) - 1
    return f"{volume[:room].rstrip('-')}-{clone}" if room > 0 else clone


def _charge(context: Context, copies: Sequence[Volume]) -> None:
    if copies:
        size = sum(copy.size for copy in copies)
        project_id = context.own_project.id
        context.uow.quotas.charge(project_id, {"volumes": len(copies), "disk": size})
