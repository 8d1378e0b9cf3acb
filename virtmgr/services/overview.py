"""How the whole installation is: a number of statements that does not grow with what there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from virtmgr.domain.host import Cluster, HostState
from virtmgr.domain.overview import (
    Alert,
    HostSize,
    Severity,
    Totals,
    WorkloadCount,
    by_state,
    sum_of,
    totals,
)
from virtmgr.domain.rebalancing.rounds import is_told
from virtmgr.domain.scheduling.capacity import overcommit_of
from virtmgr.domain.scheduling.reserve import survived
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.watches import watched
from virtmgr.ports.unit_of_work import ListQuery, Repository, UnitOfWork
from virtmgr.services import placement
from virtmgr.services.context import Context

_NAMED: Final = 3  # of each alert


@dataclass(frozen=True)
class ClusterPart:
    """One cluster: its hosts, and how many further ones may fail, by sums."""

    cluster: Cluster
    hosts: Mapping[HostState, int]
    totals: Totals
    survives: int


@dataclass(frozen=True)
class Overview:
    """The whole installation, as far as the asker may see it."""

    hosts: Mapping[HostState, int]
    workloads: Sequence[WorkloadCount]
    totals: Totals
    clusters: Sequence[ClusterPart]
    alerts: Sequence[Alert]


def show(context: Context) -> Overview:
    """How it is now."""
    uow = context.uow
    hosts = uow.hosts.sizes()
    parts = _parts(uow, hosts)
    return Overview(
        hosts=by_state(hosts),
        workloads=uow.workloads.counts(context.visible),
        totals=sum_of(part.totals for part in parts),
        clusters=parts,
        alerts=sorted(_alerts(context, parts), key=_gravest_first),
    )


def _parts(uow: UnitOfWork, hosts: Sequence[HostSize]) -> list[ClusterPart]:
    clusters = uow.clusters.list(ListQuery(limit=500)).items
    tally = Tally(placement.sums(uow, clusters, hosts))
    inside: defaultdict[str, list[HostSize]] = defaultdict(list)
    for host in hosts:
        inside[host.cluster_id].append(host)
    return [
        ClusterPart(
            cluster,
            by_state(inside[cluster.id]),
            totals(inside[cluster.id], overcommit_of(cluster)),
            survived(tally, cluster.id),
        )
        for cluster in clusters
    ]


def _alerts(context: Context, parts: Sequence[ClusterPart]) -> Iterator[Alert]:
    """What needs a person; each is found by the list that shows it."""
    uow = context.uow
    repositories: Mapping[str, Repository[Any]] = {
        "hosts": uow.hosts,
        "pools": uow.pools,
        "workloads": uow.workloads,
        "operations": uow.operations,
        "failovers": uow.failovers,
    }
    for watch in watched(context.now):
        found = repositories[watch.noun].list(
            ListQuery(
                filters=watch.filters,
                limit=_NAMED,
                count=True,
                sort="-created_at",
                project_ids=context.visible,
            )
        )
        if found.total:
            yield watch.alert(found.total, [_name_of(item) for item in found.items])
    yield from _reserves(parts)
    yield from _imbalances(parts)


def _gravest_first(alert: Alert) -> bool:
    return alert.severity is not Severity.CRITICAL


def _reserves(parts: Sequence[ClusterPart]) -> Iterator[Alert]:
    for part in parts:
        silent = sum(
            part.hosts.get(state, 0) for state in (HostState.UNREACHABLE, HostState.FENCED)
        )
        wanted = max(0, part.cluster.reserve - silent)
        if part.survives < wanted:
            failure = "a host" if wanted == 1 else f"{wanted} hosts"
            yield Alert(
                code="reserve_not_kept",
                severity=Severity.WARNING,
                message=f"cluster {part.cluster.name} has no room for the failure of {failure}",
                hint="add a host, move or stop something, or lower the cluster's reserve",
                count=1,
                noun="clusters",
                filters={"q": part.cluster.name},
                names=(part.cluster.name,),
            )


def _imbalances(parts: Sequence[ClusterPart]) -> Iterator[Alert]:
    for cluster in (part.cluster for part in parts):
        rounds, moves = cluster.imbalance_rounds, cluster.proposed_moves
        if is_told(rounds, moves):
            yield Alert(
                code="out_of_balance",
                severity=Severity.WARNING,
                message=f"cluster {cluster.name} has been out of balance for {rounds} rounds",
                hint=f"{moves} {'move' if moves == 1 else 'moves'} would help: see "
                f"'virtmgr cluster rebalance {cluster.name} --plan'",
                count=1,
                noun="clusters",
                filters={"q": cluster.name},
                names=(cluster.name,),
            )


def _name_of(item: Any) -> str:
    for attribute in ("name", "workload_name", "target_name"):
        if hasattr(item, attribute):
            return str(getattr(item, attribute))
    return str(item.id)
