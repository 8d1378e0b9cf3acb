"""What a host should run, with every reference resolved, as the sync protocol carries it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

from virtmgr.domain.cpu import HOST, resolved
from virtmgr.domain.host import Cluster, Convergence
from virtmgr.domain.live_migration import cpu_models, machine_types
from virtmgr.domain.machine_type import newest_common
from virtmgr.domain.migration import AT_TARGET_TOO, Migration, Phase
from virtmgr.domain.moving import at_its_host, at_target, left_behind
from virtmgr.domain.network import (
    Network,
    NetworkType,
    bridge_name,
    gateway,
    is_routed,
    prefix_length,
)
from virtmgr.domain.sync import (
    CloneSource,
    DesiredImage,
    DesiredNetwork,
    DesiredNic,
    DesiredVolume,
    DesiredWorkload,
    MigrationLimits,
    NetworkName,
)
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import HaSpec, Kind, Workload, WorkloadSpec
from virtmgr.ports.unit_of_work import NetworkMember, Port, UnitOfWork


def desired_of_host(
    uow: UnitOfWork,
    host_id: str,
    own: Sequence[Workload],
    after_revision: int,
    moves: Sequence[Migration],
    networks: Sequence[Network],
) -> list[DesiredWorkload]:
    """What changed after this revision of what the host should have, also of workloads that are
    on their way from it or to it.

    :param own: the host's workloads that changed.
    :param moves: the open migrations from the host or to it.
    :param networks: of the host, as far as they were read.
    """
    by_workload = {migration.workload_id: migration for migration in moves}
    wishes = desired_workloads(uow, own, networks)
    found = [_at_its_host(uow, wish, by_workload.get(wish.id)) for wish in wishes]
    left = [one for one in moves if _is_left(one, host_id) and one.revision > after_revision]
    found += [left_behind(wish, by_workload[wish.id]) for wish in _wishes_of(uow, left)]
    coming = [
        one for one in moves if _is_coming(one, host_id) and one.target_revision > after_revision
    ]
    found += [at_target(wish, by_workload[wish.id]) for wish in _wishes_of(uow, coming)]
    return found


def _wishes_of(uow: UnitOfWork, moves: Sequence[Migration]) -> list[DesiredWorkload]:
    there = uow.workloads.by_ids(one.workload_id for one in moves)
    return desired_workloads(
        uow, [there[one.workload_id] for one in moves if one.workload_id in there]
    )


def _at_its_host(
    uow: UnitOfWork, wish: DesiredWorkload, migration: Migration | None
) -> DesiredWorkload:
    if migration is None or migration.phase is not Phase.MIGRATING:
        return at_its_host(wish, migration)
    target = uow.hosts.get(migration.target_host_id or "")
    source = uow.hosts.get(migration.source_host_id or "")
    cluster = uow.clusters.get(source.cluster_id) if source is not None else None
    url = str(target.facts.get("stream_url", "")) if target is not None else ""
    return at_its_host(wish, migration, url, limits_of(cluster) if cluster is not None else None)


def limits_of(cluster: Cluster) -> MigrationLimits:
    """What a live migration in the cluster may take."""
    return MigrationLimits(
        bandwidth=cluster.migration_bandwidth,
        downtime=cluster.migration_downtime,
        steps=cluster.migration_steps,
        pause=cluster.migration_convergence is Convergence.PAUSE,
    )


def _is_coming(migration: Migration, host_id: str) -> bool:
    """Whether this host has something of a workload that is the source's yet, and is its target."""
    gone = migration.phase is Phase.RETREATING and migration.workload_id not in migration.leftovers
    return migration.target_host_id == host_id and migration.phase in AT_TARGET_TOO and not gone


def _is_left(migration: Migration, host_id: str) -> bool:
    """Whether the workload is another host's already, and this one still has it."""
    cleaning = migration.phase in (Phase.STARTING, Phase.CLEANING)
    at_source = cleaning and migration.source_host_id == host_id
    return at_source and migration.workload_id in migration.leftovers


def leftover_volumes(migrations: Iterable[Migration], host_id: str) -> list[str]:
    """Volumes that went away with workloads and are to be removed from this host.

    The workload goes first, so that nothing uses them any more.
    """
    return [
        id
        for migration in migrations
        if _clears_up(migration) == host_id and migration.workload_id not in migration.leftovers
        for id in migration.leftovers
    ]


def _clears_up(migration: Migration) -> str | None:
    """The host that removes what it has, if it is its turn."""
    if migration.phase is Phase.RETREATING:
        return migration.target_host_id
    return migration.source_host_id if migration.phase is Phase.CLEANING else None


def desired_workloads(
    uow: UnitOfWork, workloads: Sequence[Workload], networks: Sequence[Network] = ()
) -> list[DesiredWorkload]:
    """``workloads`` as their host needs them; a fixed number of queries however many.

    :param networks: some that they may be on, and were read: they are not read again.
    """
    if not workloads:  # so it is at most syncs
        return []
    ids = [workload.id for workload in workloads]
    nics = uow.nics.ports(ids)
    on = {network.id: network for network in networks}
    on |= uow.networks.by_ids(
        nic.network_id for some in nics.values() for nic in some if nic.network_id not in on
    )
    images = _images(uow, workloads)
    projects = uow.projects.called(each.project_id for each in workloads)
    volumes = uow.volumes.of_workloads(each.id for each in workloads if each.spec.volumes)
    hardware_on = cache(partial(_hardware, uow))
    found = []
    for workload in workloads:
        is_vm = workload.kind is Kind.VM and workload.host_id is not None
        hardware = hardware_on(workload.host_id) if is_vm and workload.host_id is not None else None
        found.append(
            DesiredWorkload(
                id=workload.id,
                project=projects.get(workload.project_id, ""),
                name=workload.name,
                kind=workload.kind,
                init=workload.init,
                generation=workload.generation,
                revision=workload.revision,
                spec=_as_known(workload.spec),
                state=workload.spec.state,
                deleting=workload.deleting,
                force_stop=workload.force_stop,
                restart_nonce=workload.restart_nonce,
                image=images.get(workload.image_id or ""),
                cdrom=images.get(workload.cdrom_image_id or ""),
                nics=tuple(_nic(nic, on.get(nic.network_id)) for nic in nics.get(workload.id, ())),
                volumes=_mounts(workload, volumes.get(workload.id, ())),
                clone_of=_clone_source(uow, workload.clone_of),
                **(hardware or {}),  # not every agent knows these fields
            )
        )
    return found


def _hardware(uow: UnitOfWork, host_id: str) -> Mapping[str, str]:
    """What a VM that is started on the host now gets that all hosts of its cluster have; what is
    left out is as the host has it."""
    host = uow.hosts.get(host_id)
    cluster = uow.clusters.get(host.cluster_id) if host is not None else None
    if host is None or cluster is None or cluster.cpu == HOST or not cpu_models(host):
        return {}
    hosts = [one for one in uow.hosts.all() if one.cluster_id == cluster.id]
    cpu = resolved(cluster.cpu, map(cpu_models, hosts))
    machine = newest_common(map(machine_types, hosts)) if machine_types(host) else None
    found = {"cpu": cpu, "machine": machine}
    return {name: value for name, value in found.items() if value is not None}


_NEWER: Final = {"ha": HaSpec()}
"""Fields of specs that agents of a release before refuse, and what they are where not used."""


def _as_known(spec: WorkloadSpec) -> WorkloadSpec:
    """The spec without fields that nobody has set to anything and older agents do not know."""
    unused = {name for name, value in _NEWER.items() if getattr(spec, name) == value}
    if not unused & spec.model_fields_set:
        return spec
    known = spec.model_copy()
    known.model_fields_set.difference_update(unused)
    return known


def desired_networks(
    uow: UnitOfWork, host_id: str, networks: Sequence[Network]
) -> list[DesiredNetwork]:
    """Every network that the host's workloads are on, with the names its DNS answers.

    Those of an overlay say where they are, if that is on another host. No other network reaches
    from the host to another one by virtmgr's doing, so of these a host hears of its own only: all
    of a fleet's names would be sent to every host otherwise.

    :param networks: all that the host's workloads are on.
    """
    overlays = {each.id for each in networks if each.type is NetworkType.OVERLAY}
    tunnels = uow.hosts.tunnels() if overlays else {}
    names: dict[str, list[NetworkName]] = {network.id: [] for network in networks}
    members = [*uow.networks.names(overlays), *uow.networks.names(set(names) - overlays, host_id)]
    for member in members:
        elsewhere = member.network_id in overlays and member.host_id not in (None, host_id)
        tunnel = tunnels.get(member.host_id or "") if elsewhere else None
        names[member.network_id].append(_name(member, tunnel))
    return [_network(each, names[each.id], tunnels.get(host_id)) for each in networks]


def _name(member: NetworkMember, tunnel: str | None) -> NetworkName:
    v4, v6 = _split(member.addresses)
    # What is not set is not sent: agents that know of no overlays refuse what they do not know.
    where = {} if tunnel is None else {"tunnel": tunnel}
    return NetworkName(
        name=member.name,
        mac=member.mac,
        ipv4=v4,
        ipv6=v6,
        asks_dhcp=member.kind is Kind.VM,
        **where,
    )


def device_name(network: Network) -> str:
    """The bridge that a network's ports join on a host."""
    if network.type is NetworkType.BRIDGE and network.bridge is not None:
        return network.bridge
    return bridge_name(network.id)


def _mounts(workload: Workload, volumes: Iterable[Volume]) -> tuple[DesiredVolume, ...]:
    known = {reference: volume for volume in volumes for reference in (volume.id, volume.name)}
    found = []
    for mount in workload.spec.volumes:
        volume = known.get(mount.volume)
        if volume is not None:
            found.append(
                DesiredVolume(
                    id=volume.id,
                    name=volume.name,
                    size=volume.size,
                    path=mount.path,
                    read_only=mount.read_only,
                    copy_of=volume.copy_of,
                )
            )
    return tuple(found)


def _clone_source(uow: UnitOfWork, workload_id: str | None) -> CloneSource | None:
    source = uow.workloads.get(workload_id) if workload_id is not None else None
    return None if source is None else CloneSource(id=source.id, name=source.name)


def _images(uow: UnitOfWork, workloads: Iterable[Workload]) -> Mapping[str, DesiredImage]:
    """Those that are made of what the workloads start from, by id."""
    named = {id for each in workloads for id in (each.image_id, each.cdrom_image_id)}
    return {
        image.id: DesiredImage(id=image.id, name=image.name, manifest=image.manifest.for_host())
        for image in uow.images.by_ids(id for id in named if id is not None).values()
        if image.manifest is not None
    }


def _nic(nic: Port, network: Network | None) -> DesiredNic:
    v4, v6 = _split(nic.addresses)
    ipv4, ipv6 = (network.ipv4, network.ipv6) if network else (None, None)
    gateways = [gateway(cidr) for cidr in (ipv4, ipv6) if cidr]
    routed = network is not None and is_routed(network.type)
    return DesiredNic(
        id=nic.id,
        index=nic.position,
        network_id=nic.network_id,
        mac=nic.mac,
        ipv4=_with_prefix(v4, ipv4),
        ipv6=_with_prefix(v6, ipv6),
        gateway4=gateway(ipv4) if ipv4 else None,
        gateway6=gateway(ipv6) if ipv6 else None,
        dns=tuple(gateways) if routed else (),
        dns_domain=f"{network.name}.{network.dns_domain}" if network else "",
        dhcp=routed,
        mtu=network.mtu if network else 1500,
    )


def _with_prefix(address: str | None, cidr: str | None) -> str | None:
    if address is None or cidr is None:
        return None
    return f"{address}/{prefix_length(cidr)}"


def _split(addresses: Iterable[str]) -> tuple[str | None, str | None]:
    """The first IPv4 and the first IPv6 address."""
    v4 = v6 = None
    for address in addresses:
        if ":" in address:
            v6 = v6 or address
        else:
            v4 = v4 or address
    return v4, v6


def _network(network: Network, names: Iterable[NetworkName], tunnel: str | None) -> DesiredNetwork:
    is_overlay = network.type is NetworkType.OVERLAY
    # What is not set is not sent: agents that know of no VLANs refuse what they do not know.
    more: dict[str, Any] = {"vni": network.vni, "tunnel": tunnel} if is_overlay else {}
    if network.type is NetworkType.VLAN:
        more = {"interface": network.interface, "vlan": network.vlan}
    return DesiredNetwork(
        id=network.id,
        name=network.name,
        type=network.type,
        bridge=device_name(network),
        ipv4=network.ipv4,
        ipv6=network.ipv6,
        gateway4=gateway(network.ipv4) if network.ipv4 else None,
        gateway6=gateway(network.ipv6) if network.ipv6 else None,
        dns_domain=f"{network.name}.{network.dns_domain}",
        mtu=network.mtu,
        names=tuple(sorted(names, key=lambda entry: entry.name)),
        **more,
    )
