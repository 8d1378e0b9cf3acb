"""What a workload's spec refers to by name, found in the inventory and checked for fit."""

from __future__ import annotations

from dataclasses import dataclass

from virtmgr.domain.errors import Conflict, InvalidRequest, NotFound
from virtmgr.domain.host import Cluster, Host
from virtmgr.domain.image import Image, ImageState, ImageType
from virtmgr.domain.network import Network, NetworkType
from virtmgr.domain.scheduling import HostPort, PlacementRequest
from virtmgr.domain.volume import Volume, VolumeState
from virtmgr.domain.workload import Init, Kind, Port, WorkloadSpec
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.desired import device_name
from virtmgr.services.ipam import find_network
from virtmgr.services.overlays import needed_mtu
from virtmgr.services.vlans import needs_vlans

_TYPES_OF_KIND = {
    Kind.VM: (ImageType.DISK, ImageType.KERNEL, ImageType.ISO),
    Kind.CONTAINER: (ImageType.CONTAINER,),
}


@dataclass(frozen=True)
class References:
    """The rows that a spec refers to; ``spec`` has ``init`` filled in from the image.

    ``host`` is the only one where it may run, None: any.
    """

    spec: WorkloadSpec
    cluster: Cluster
    host: Host | None
    image: Image | None
    cdrom: Image | None
    networks: tuple[Network, ...]  # as spec.nics
    volumes: tuple[Volume, ...]  # as spec.volumes

    @property
    def image_type(self) -> ImageType | None:
        return self.image.type if self.image else None


def resolve(uow: UnitOfWork, project_id: str, spec: WorkloadSpec) -> References:
    """Find everything that ``spec`` refers to.

    :raises NotFound: something is not there; the field is named.
    :raises InvalidRequest: it is there but does not fit the workload's kind.
    :raises Conflict: it is there but not usable now.
    """
    image = _image(uow, spec, spec.image, "image", _TYPES_OF_KIND[spec.kind])
    cdrom = _image(uow, spec, spec.cdrom, "cdrom", (ImageType.ISO,))
    if spec.kind is Kind.CONTAINER and image is not None and image.manifest is not None:
        spec = _with_init(spec, image)
    return References(
        spec=spec,
        cluster=_cluster(uow, spec),
        host=_host(uow, spec),
        image=image,
        cdrom=cdrom,
        networks=tuple(
            find_network(uow, project_id, nic.network, f"nics.{index}.network")
            for index, nic in enumerate(spec.nics)
        ),
        volumes=tuple(
            find_volume(uow, project_id, mount.volume, f"volumes.{index}.volume")
            for index, mount in enumerate(spec.volumes)
        ),
    )


def find_volume(uow: UnitOfWork, project_id: str, reference: str, field: str) -> Volume:
    """The project's volume that ``reference`` names.

    :raises NotFound: there is none.
    :raises Conflict: it is being deleted or could not be made.
    """
    volume = uow.volumes.find(project_id, reference)
    if volume is None:
        raise NotFound(
            f"there is no volume {reference!r} in this project",
            code="volume_not_found",
            field=field,
            hint=f"make it with 'virtmgr volume create {reference}', or see 'virtmgr volume list'",
        )
    if volume.state in (VolumeState.DELETING, VolumeState.FAILED):
        raise Conflict(
            f"volume {volume.name!r} is {volume.state.value}",
            code="volume_not_usable",
            field=field,
            hint=volume.failure or "use another volume",
        )
    return volume


def placement_request(
    project_id: str, workload_id: str, references: References
) -> PlacementRequest:
    """What the scheduler is asked for one workload of this spec."""
    spec = references.spec
    require = dict(spec.placement.require)
    manifest = references.image.manifest if references.image else None
    architecture = require.pop("arch", None) or (manifest.architecture if manifest else None)
    return PlacementRequest(
        id=workload_id,
        name=spec.name,
        project_id=project_id,
        cluster_id=references.cluster.id,
        kind=spec.kind,
        init=spec.init,
        vcpus=spec.resources.vcpus,
        memory=spec.resources.memory,
        disk=spec.root_disk_size(references.image_type),
        labels=spec.labels,
        architecture=architecture,
        require=require,
        prefer=spec.placement.prefer,
        host_id=references.host.id if references.host else None,
        spread_by=spec.placement.spread_by,
        affinity=spec.placement.affinity,
        image_id=references.image.id if references.image else None,
        bridges=frozenset(
            device_name(network)
            for network in references.networks
            if network.type is NetworkType.BRIDGE
        ),
        overlay_mtu=needed_mtu(references.networks),
        vlans=needs_vlans(references.networks),
        volume_host_ids=frozenset(
            volume.host_id for volume in references.volumes if volume.host_id is not None
        ),
        ports=frozenset(host_port(port) for port in spec.ports),
        ha=spec.ha.enabled,
    )


def host_port(port: Port) -> HostPort:
    """What a published port takes of its host."""
    return HostPort(port.protocol, port.host, port.address)


def _with_init(spec: WorkloadSpec, image: Image) -> WorkloadSpec:
    if spec.init is not None:
        return spec
    config = image.manifest.config if image.manifest else None
    filled = spec.model_copy(update={"init": Init(config.init if config else "app")})
    misfits = filled.misfits()
    if misfits:
        field, why = misfits[0]
        raise InvalidRequest(
            f"image {image.name!r} makes this a {filled.init} container: {field} {why}",
            field=field,
            hint="leave the field out, or set init",
        )
    return filled


def _image(
    uow: UnitOfWork,
    spec: WorkloadSpec,
    reference: str | None,
    field: str,
    types: tuple[ImageType, ...],
) -> Image | None:
    if reference is None:
        return None
    image = uow.images.find(reference)
    if image is None:
        raise NotFound(
            f"there is no image {reference!r}",
            code="image_not_found",
            field=field,
            hint="see 'virtmgr image list', or import it with 'virtmgr image import'",
        )
    if image.state is not ImageState.READY or image.type is None:
        raise Conflict(
            f"image {image.name!r} is {image.state.value}",
            code="image_not_ready",
            field=field,
            hint=image.failure or "wait for its import to finish: 'virtmgr operations list'",
        )
    if image.type not in types:
        raise InvalidRequest(
            f"image {image.name!r} is a {image.type.value} image and cannot be used as "
            f"{field} of a {spec.kind.value}",
            code="image_does_not_fit",
            field=field,
            hint="it needs one of type " + " or ".join(type.value for type in types),
        )
    return image


def _cluster(uow: UnitOfWork, spec: WorkloadSpec) -> Cluster:
    cluster = uow.clusters.find(spec.placement.cluster)
    if cluster is None:
        raise NotFound(
            f"there is no cluster {spec.placement.cluster!r}",
            code="cluster_not_found",
            field="placement.cluster",
            hint="see 'virtmgr cluster list'",
        )
    return cluster


def _host(uow: UnitOfWork, spec: WorkloadSpec) -> Host | None:
    if spec.placement.host is None:
        return None
    host = uow.hosts.find(spec.placement.host)
    if host is None:
        raise NotFound(
            f"there is no host {spec.placement.host!r}",
            code="host_not_found",
            field="placement.host",
            hint="see 'virtmgr host list'",
        )
    return host
