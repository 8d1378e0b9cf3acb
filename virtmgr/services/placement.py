"""Choosing hosts: the inventory as the scheduler sees it, and the claim that commits a choice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

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
    still_take,
)
from virtmgr.domain.workload import Workload
from virtmgr.ports.driver import Feature
from virtmgr.ports.unit_of_work import ListQuery, UnitOfWork
from virtmgr.services.known_hosts import KnownHosts, brought_up_to_date, changed_ids, mark
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
    known: KnownHosts | None = None,
    alone: bool = False,
    moving_from: str | None = None,
) -> tuple[Decision, ...]:
    """A host for each request, or the reasons why there is none; nothing is written.

    :param known: what this process knows of the hosts; None: read all of them.
    :param alone: let nobody else claim until the unit ends, so that ``commit`` is not overtaken.
    :param moving_from: the host that the requests' workloads, which are placed, are to leave.
    """
    view = _hosts_now(uow, known or KnownHosts(), alone=alone)
    if moving_from is not None:
        taking = [h for h in view.hosts if h.id != moving_from and h.takes_moved]
        view = Fleet(view.clusters.values(), taking)
    reserves = any(cluster.reserve for cluster in view.clusters.values())
    leaving = frozenset(request.id for request in requests) if moving_from is not None else ()
    with_ports = any(request.ports for request in requests)
    near = {request.project_id for request in requests if _looks_at_others(request)}
    choosy = uow.workloads.with_affinity({request.project_id for request in requests})
    moving = tuple(_on_their_way(uow)) if with_ports or near or choosy else ()
    view = view.beside(
        _placed(uow, near, moving, choosy, leaving),
        at_hand=_at_hand(uow, requests),
        ports=_published(uow, moving) if with_ports else None,
        ha=uow.workloads.ha_claims() if reserves else None,
    )
    return place(view, requests, explained=True)


def fleet(
    uow: UnitOfWork, *, with_ports: bool = False, with_ha: bool = False, moving: bool = False
) -> Fleet:
    """The whole inventory as the scheduler sees it; of images at hand, nothing.

    A workload on its way to another host counts on both.

    :param with_ports: published ports, too; they cost a look at every workload's spec.
    :param with_ha: what highly available workloads claim, also where no cluster has a reserve.
    :param moving: only hosts that take moved workloads; and what requires to be with or apart from
        others tells so.
    """
    view = _hosts_now(uow, KnownHosts(), alone=False)
    if moving:
        view = Fleet(view.clusters.values(), [host for host in view.hosts if host.takes_moved])
    with_ha = with_ha or any(cluster.reserve for cluster in view.clusters.values())
    on_their_way = tuple(_on_their_way(uow))
    choosy = uow.workloads.with_affinity() if moving else ()
    return view.beside(
        _placed(uow, None, on_their_way, choosy),
        ports=_published(uow, on_their_way) if with_ports else None,
        ha=uow.workloads.ha_claims() if with_ha else None,
    )


def _hosts_now(uow: UnitOfWork, known: KnownHosts, *, alone: bool) -> Fleet:
    marks = uow.hosts.marks(locked=alone)  # first: what changes after it, the versions tell
    clusters = cluster_views(uow)
    before = known.seen
    changed = [host_view(host) for host in uow.hosts.those(changed_ids(before, marks))]
    now = brought_up_to_date(before, clusters, marks, changed)
    if now is not before:
        uow.after_commit(partial(known.keep, now))
    return now.fleet


def _looks_at_others(request: PlacementRequest) -> bool:
    """Whether it matters which workloads are where."""
    return bool(request.affinity or (request.spread_by and request.labels))


def _placed(
    uow: UnitOfWork,
    project_ids: Collection[str] | None,
    moving: Sequence[tuple[Workload, str]],
    choosy: Sequence[PlacedWorkload],
    leaving: Collection[str] = (),
) -> list[PlacedWorkload]:
    """Every workload of these projects (None: of all), those left out that are ``leaving``.

    :param choosy: workloads with affinity rules, of other projects too: they tell them.
    """
    rules = {one.id: one.affinity for one in choosy}

    def is_theirs(project_id: str) -> bool:
        return project_ids is None or project_id in project_ids

    found = [] if project_ids == set() else list(uow.workloads.placed(project_ids))
    found += [one for one in choosy if not is_theirs(one.project_id)]
    found += [
        PlacedWorkload(
            id=one.id, project_id=one.project_id, host_id=host_id, labels=one.spec.labels
        )
        for one, host_id in moving
        if is_theirs(one.project_id) or one.id in rules
    ]
    return [replace(one, affinity=rules.get(one.id, ())) for one in found if one.id not in leaving]


def _at_hand(uow: UnitOfWork, requests: Iterable[PlacementRequest]) -> dict[str, frozenset[str]]:
    """Where the images are that are asked for, by image."""
    image_ids = {request.image_id for request in requests if request.image_id is not None}
    return {image_id: uow.hosts.having_image(image_id) for image_id in image_ids}


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


def _published(uow: UnitOfWork, moving: Iterable[tuple[Workload, str]]) -> dict[str, set[HostPort]]:
    """By host the ports that its workloads publish."""
    found: dict[str, set[HostPort]] = {}
    for host_id, ports in uow.workloads.published():
        found.setdefault(host_id, set()).update(map(host_port, ports))
    for workload, host_id in moving:
        found.setdefault(host_id, set()).update(map(host_port, workload.spec.ports))
    return found


def commit(
    uow: UnitOfWork,
    requests: Iterable[PlacementRequest],
    decisions: Iterable[Decision],
    *,
    known: KnownHosts | None = None,
    moving: bool = True,
) -> Mapping[str, int]:
    """Take the claims of a batch, each host's if it is as it was read.

    :param known: what this process knows of the hosts, to be told what was claimed.
    :param moving: they are placed already and move; False: they are new, so that hosts which have
        changed since may be looked at again, by the same rules.
    :return: by host, the next revision of what is desired there.
    :raises NoPlacement: a request fits nowhere; ``detail`` explains every host.
    :raises Overtaken: a host has changed since it was read.
    """
    claims: dict[str, Amounts] = {}
    versions: dict[str, int] = {}
    decided: list[tuple[PlacementRequest, str]] = []
    for request, decision in zip(requests, decisions, strict=True):
        if decision.host_id is None or decision.host_version is None:
            raise refusal(request, decision)
        decided.append((request, decision.host_id))
        versions[decision.host_id] = decision.host_version
        claims[decision.host_id] = claims.get(decision.host_id, _NOTHING) + request.asked
    revisions = uow.hosts.claim_all(claims, versions)
    if revisions is None and not moving:
        versions |= _looked_at_again(uow, decided, versions)
        revisions = uow.hosts.claim_all(claims, versions)
    if revisions is None:
        raise Overtaken
    if known is not None:
        uow.after_commit(partial(known.claimed, claims, versions))
    return revisions


def _looked_at_again(
    uow: UnitOfWork, decided: Sequence[tuple[PlacementRequest, str]], versions: Mapping[str, int]
) -> Mapping[str, int]:
    """The versions of hosts that have changed since, and take what was decided for them all the
    same: most often somebody else has claimed something there.

    :raises Overtaken: one does not, or more has to be looked at than these hosts.
    """
    marks = uow.hosts.marks()
    changed = {id for id, version in versions.items() if mark(id, version) not in marks}
    if uow.workloads.with_affinity({request.project_id for request, _ in decided}):
        raise Overtaken  # somebody may want to be apart from them by now
    hosts = [host_view(host) for host in uow.hosts.those(changed)]
    there = Fleet(cluster_views(uow), hosts)
    if not still_take(there, [each for each in decided if each[1] in changed]):
        raise Overtaken
    return {host.id: host.version for host in hosts}


def refusal(request: PlacementRequest, decision: Decision) -> NoPlacement:
    """The error that says why no host takes the request."""
    return NoPlacement(
        f"placing workload {request.name!r}: {decision.explanation.summary}",
        hint="free capacity, relax the placement, or add a host; "
        "the explanation says what each host lacks",
        detail=decision.explanation.to_json(),
    )


def cluster_views(uow: UnitOfWork) -> list[ClusterView]:
    """Every cluster as placement looks at it."""
    return [cluster_view(one) for one in uow.clusters.list(ListQuery(limit=500)).items]


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


def host_view(host: Host) -> HostView:
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
        bridges=frozenset(host.facts.get("bridges", ())),
        overlay_mtu=carried_mtu(host),
        vlans=makes_vlans(host),
        no_tunnel=no_tunnel_reason(host),
        takes_moved=takes_moved(host),
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
