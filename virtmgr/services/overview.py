"""How the whole installation is: a number of statements that does not grow with what there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from virtmgr.domain.failover import FailoverPhase
from virtmgr.domain.host import Cluster, HostState
from virtmgr.domain.operation import OperationState
from virtmgr.domain.overview import (
    Alert,
    HostSize,
    Severity,
    Totals,
    Watch,
    WorkloadCount,
    by_state,
    sum_of,
    totals,
)
from virtmgr.domain.scheduling.capacity import overcommit_of
from virtmgr.domain.scheduling.reserve import survived
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.workload import State
from virtmgr.ports.unit_of_work import ListQuery, Repository, UnitOfWork
from virtmgr.services import placement
from virtmgr.services.context import Context

EXPIRES_SOON: Final = timedelta(days=14)
"""Agents renew their certificates long before; one that is so near its end has a reason."""
LATELY: Final = timedelta(days=1)
NEARLY_FULL: Final = 0.85  # of a pool
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


def watched(now: datetime) -> tuple[Watch, ...]:
    """What is looked for, each with the filters of the list that shows it."""
    return (
        Watch(
            code="hosts_silent",
            severity=Severity.CRITICAL,
            noun="hosts",
            filters={"state": (HostState.UNREACHABLE, HostState.FENCED)},
            one="a host does not answer",
            many="{count} hosts do not answer",
            hint="look at its power, network and agent; what is highly available starts elsewhere "
            "by itself once the host cannot be running it",
        ),
        Watch(
            code="failovers_waiting",
            severity=Severity.CRITICAL,
            noun="failovers",
            filters={"phase": (FailoverPhase.WAITING,)},
            one="a highly available workload of a lost host waits",
            many="{count} highly available workloads of lost hosts wait",
            hint="each says what it waits for: room, or that its host is known to be off",
        ),
        Watch(
            code="workloads_failed",
            severity=Severity.CRITICAL,
            noun="workloads",
            filters={"state": (State.FAILED,)},
            one="a workload failed",
            many="{count} workloads failed",
            hint="each says why; start it again when that is mended",
        ),
        Watch(
            code="installations_failed",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"state": (HostState.INSTALL_FAILED,)},
            one="the installation of a host failed",
            many="the installations of {count} hosts failed",
            hint="its last operation names the task that failed; mend that, then retry",
        ),
        Watch(
            code="hosts_lacking",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"state": (HostState.PROBING,)},
            one="a host lacks what workloads need",
            many="{count} hosts lack what workloads need",
            hint="the host's page says what; it becomes ready by itself",
        ),
        Watch(
            code="drains_incomplete",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"drain_incomplete": True},
            one="a host could not be drained of everything",
            many="{count} hosts could not be drained of everything",
            hint="look at the plan of a further drain: it says what stays and why",
        ),
        Watch(
            code="certificates_expire",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"certificate_before": now + EXPIRES_SOON},
            one="the certificate of a host ends within two weeks",
            many="the certificates of {count} hosts end within two weeks",
            hint="agents renew them by themselves; renew it by ssh where that does not happen",
        ),
        Watch(
            code="pools_nearly_full",
            severity=Severity.WARNING,
            noun="pools",
            filters={"fullness": NEARLY_FULL},
            one="a pool is nearly full",
            many="{count} pools are nearly full",
            hint="prune images that nothing needs, move workloads away, or add disk",
        ),
        Watch(
            code="operations_failed",
            severity=Severity.WARNING,
            noun="operations",
            filters={"state": (OperationState.FAILED,), "since": now - LATELY},
            one="an operation failed within the last day",
            many="{count} operations failed within the last day",
            hint="each says what was attempted and why it failed",
        ),
    )


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


def _name_of(item: Any) -> str:
    for attribute in ("name", "workload_name", "target_name"):
        if hasattr(item, attribute):
            return str(getattr(item, attribute))
    return str(item.id)
