"""Choosing hosts: the inventory as the scheduler sees it, and the claim that commits a choice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from virtmgr.domain.errors import NoPlacement
from virtmgr.domain.host import Cluster, Host
from virtmgr.domain.migration import AT_SOURCE
from virtmgr.domain.overview import HostSize
from virtmgr.domain.scheduling import (
    Amounts,
    ClusterView,
    Decision,
    Fleet,
    HostPort,
    HostView,
    PlacedWorkload,
    PlacementRequest,
    place,
)
from virtmgr.domain.workload import Workload
from virtmgr.ports.driver import Feature
from virtmgr.ports.unit_of_work import ListQuery, UnitOfWork
from virtmgr.services.overlays import carried_mtu, no_tunnel_reason
from virtmgr.services.references import host_port
from virtmgr.services.vlans import makes_vlans

_NOTHING = Amounts(0.0, 0, 0)


class Overtaken(Exception):
    """Another transaction changed the chosen host first: read again and decide again."""


def decide(
    uow: UnitOfWork,
    requests: Sequence[PlacementRequest],
    *,
    alone: bool = False,
    moving_from: str | None = None,
) -> tuple[Decision, ...]:
    """A host for each request, or the reasons why there is none; nothing is written.

    :param alone: let nobody else claim until the unit ends, so that ``commit`` is not overtaken.
    :param moving_from: the host that the requests' workloads, which are placed, are to leave.
    """
    image_ids = {request.image_id for request in requests if request.image_id is not None}
    with_ports = any(request.ports for request in requests)
    leaving = frozenset(request.id for request in requests) if moving_from is not None else ()
    view = fleet(
        uow, image_ids, with_ports=with_ports, alone=alone, without=moving_from, leaving=leaving
    )
    return place(view, requests)


def fleet(
    uow: UnitOfWork,
    image_ids: Collection[str] = (),
    *,
    with_ports: bool = False,
    with_ha: bool = False,
    alone: bool = False,
    without: str | None = None,
    leaving: Collection[str] = (),
    moving: bool = False,
) -> Fleet:
    """The inventory as the scheduler sees it; of images at hand, only ``image_ids``.

    A workload on its way to another host counts on both.

    :param with_ports: published ports, too; they cost a look at every workload's spec.
    :param with_ha: what highly available workloads claim, also where no cluster has a reserve.
    :param without: id of a host to leave out, and with it those that take no moved workloads.
    :param leaving: ids of workloads to leave out.
    :param moving: only hosts that take moved workloads; and what requires to be with or apart from
        others tells so.
    """
    hosts = uow.hosts.all(locked=alone)  # first: what changes after it, their versions tell
    ports = _published(uow) if with_ports else {}
    clusters = uow.clusters.list(ListQuery(limit=500)).items
    at_hand = uow.hosts.images_at_hand(image_ids)
    with_ha = with_ha or any(cluster.reserve for cluster in clusters)
    ha = uow.workloads.ha_claims() if with_ha else {}
    affinities = uow.workloads.affinities() if moving else {}
    placed = [
        PlacedWorkload(
            id=id,
            project_id=project_id,
            host_id=host_id,
            labels=labels,
            affinity=affinities.get(id, ()),
        )
        for id, project_id, host_id, labels in uow.workloads.placed()
    ]
    for workload, host_id in _on_their_way(uow):
        placed.append(
            PlacedWorkload(
                id=workload.id,
                project_id=workload.project_id,
                host_id=host_id,
                labels=workload.spec.labels,
            )
        )
        if with_ports:
            ports.setdefault(host_id, set()).update(map(host_port, workload.spec.ports))
    return Fleet(
        clusters=tuple(cluster_view(cluster) for cluster in clusters),
        hosts=tuple(
            host_view(
                host,
                at_hand.get(host.id, frozenset()),
                frozenset(ports.get(host.id, ())),
                ha.get(host.id, _NOTHING),
            )
            for host in hosts
            if (without is None and not moving) or (host.id != without and takes_moved(host))
        ),
        placed=tuple(one for one in placed if one.id not in leaving),
    )


def sums(uow: UnitOfWork, clusters: Sequence[Cluster], hosts: Sequence[HostSize]) -> Fleet:
    """The inventory as far as sums need it: what hosts have, and what is claimed there."""
    ha = uow.workloads.ha_claims()
    return Fleet(
        clusters=[cluster_view(cluster) for cluster in clusters],
        hosts=[_sized(host, ha.get(host.id, _NOTHING)) for host in hosts],
    )


def _sized(host: HostSize, ha: Amounts) -> HostView:
    return HostView(
        id=host.id,
        name=host.name,
        cluster_id=host.cluster_id,
        state=host.state,
        capacity_vcpus=host.capacity.vcpus,
        capacity_memory=host.capacity.memory,
        capacity_disk=host.capacity.disk,
        claimed_vcpus=host.claimed.vcpus,
        claimed_memory=host.claimed.memory,
        claimed_disk=host.claimed.disk,
        ha_vcpus=ha.vcpus,
        ha_memory=ha.memory,
        ha_disk=ha.disk,
    )


def _on_their_way(uow: UnitOfWork) -> Iterator[tuple[Workload, str]]:
    """Workloads that a target is claimed for and that are not its own yet, and that target."""
    for migration in uow.migrations.all_open():
        if migration.phase in AT_SOURCE and migration.target_host_id is not None:
            workload = uow.workloads.get(migration.workload_id)
            if workload is not None:
                yield workload, migration.target_host_id


def takes_moved(host: Host) -> bool:
    """Whether the host's agent can take up workloads of other hosts."""
    return any(
        Feature.MOVE in driver.get("features", ()) for driver in host.facts.get("drivers", ())
    )


def _published(uow: UnitOfWork) -> dict[str, set[HostPort]]:
    found: dict[str, set[HostPort]] = {}
    for host_id, ports in uow.workloads.published():
        found.setdefault(host_id, set()).update(host_port(port) for port in ports)
    return found


def commit(
    uow: UnitOfWork, requests: Iterable[PlacementRequest], decisions: Iterable[Decision]
) -> None:
    """Take the claims of a batch: one optimistic update per host.

    :raises NoPlacement: a request fits nowhere; ``detail`` explains every host.
    :raises Overtaken: a host has changed since it was read.
    """
    claims: dict[str, list[float]] = {}
    versions: dict[str, int] = {}
    for request, decision in zip(requests, decisions, strict=True):
        if decision.host_id is None or decision.host_version is None:
            raise refusal(request, decision)
        versions[decision.host_id] = decision.host_version
        claim = claims.setdefault(decision.host_id, [0.0, 0, 0])
        claim[0] += request.vcpus
        claim[1] += request.memory
        claim[2] += request.disk
    for host_id in sorted(claims):
        vcpus, memory, disk = claims[host_id]
        if not uow.hosts.claim(
            host_id, versions[host_id], vcpus=vcpus, memory=int(memory), disk=int(disk)
        ):
            raise Overtaken(host_id)


def refusal(request: PlacementRequest, decision: Decision) -> NoPlacement:
    """The error that says why no host takes the request."""
    return NoPlacement(
        f"placing workload {request.name!r}: {decision.explanation.summary}",
        hint="free capacity, relax the placement, or add a host; "
        "the explanation says what each host lacks",
        detail=decision.explanation.to_json(),
    )


def cluster_view(cluster: Cluster) -> ClusterView:
    return ClusterView(
        id=cluster.id,
        name=cluster.name,
        policy=cluster.policy,
        overcommit_vcpus=cluster.overcommit_vcpus,
        overcommit_memory=cluster.overcommit_memory,
        overcommit_disk=cluster.overcommit_disk,
        reserve=cluster.reserve,
    )


def host_view(
    host: Host,
    image_ids: frozenset[str],
    ports: frozenset[HostPort] = frozenset(),
    ha: Amounts = _NOTHING,
) -> HostView:
    """The parts of a host that placement looks at."""
    return HostView(
        id=host.id,
        name=host.name,
        cluster_id=host.cluster_id,
        state=host.state,
        labels=host.labels,
        architecture=host.architecture,
        capacity_vcpus=host.capacity_vcpus,
        capacity_memory=host.capacity_memory,
        capacity_disk=host.capacity_disk,
        claimed_vcpus=host.claimed_vcpus,
        claimed_memory=host.claimed_memory,
        claimed_disk=host.claimed_disk,
        version=host.version,
        kinds=_kinds(host),
        image_ids=image_ids,
        bridges=frozenset(host.facts.get("bridges", ())),
        overlay_mtu=carried_mtu(host),
        vlans=makes_vlans(host),
        no_tunnel=no_tunnel_reason(host),
        ports=ports,
        ha_vcpus=ha.vcpus,
        ha_memory=ha.memory,
        ha_disk=ha.disk,
    )


def _kinds(host: Host) -> frozenset[str]:
    """What the host's healthy drivers run: ``vm``, ``container:app``, ``container:system``."""
    found = set()
    for driver in host.facts.get("drivers", ()):
        if not driver.get("healthy"):
            continue
        for kind in driver.get("kinds", ()):
            inits = driver.get("inits", ()) if kind == "container" else ()
            found.update({f"{kind}:{init}" for init in inits} or {kind})
    return frozenset(found)
