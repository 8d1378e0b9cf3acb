"""Clusters: hosts that schedule among each other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from virtmgr.domain.errors import NotFound
from virtmgr.domain.host import (
    Cluster,
    Convergence,
    FailoverPolicy,
    Rebalancing,
    SchedulingPolicy,
)
from virtmgr.domain.ids import new_id
from virtmgr.domain.overview import HostSize
from virtmgr.domain.scheduling.reserve import survived
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.values import Labels, Name, Value
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services import placement
from virtmgr.services.context import Context
from virtmgr.services.in_use import refuse_in_use

CpuModel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ClusterFields(Value):
    """What can be set of a cluster."""

    name: Name = Field(description="Unique. A DNS label.")
    description: str = Field("", max_length=1024, description="Free text for people.")
    policy: SchedulingPolicy = Field(
        SchedulingPolicy.BALANCED,
        description="spread: least used host first; pack: most used first, to free whole hosts; "
        "balanced: least used, CPU and memory alike.",
    )
    overcommit_vcpus: float = Field(
        4.0, gt=0, le=100, allow_inf_nan=False, description="vCPUs claimed per CPU of a host."
    )
    overcommit_memory: float = Field(
        1.0, gt=0, le=100, allow_inf_nan=False, description="Memory claimed per memory of a host."
    )
    overcommit_disk: float = Field(
        1.0, gt=0, le=100, allow_inf_nan=False, description="Disk claimed per disk of a host."
    )
    failover: FailoverPolicy = Field(
        FailoverPolicy.AUTOMATIC,
        description="automatic: highly available workloads of a lost host are started elsewhere "
        "once it cannot be running them; manual: only once an operator confirms that it is off.",
    )
    failover_limit: float = Field(
        0.34,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of its hosts that may be silent. With more, nothing is started "
        "elsewhere by itself. One host always may.",
    )
    reserve: int = Field(
        0,
        ge=0,
        le=100,
        description="Failures of hosts that there is to be room for: placements that would leave "
        "too little for highly available workloads are refused.",
    )
    ha_lease: float = Field(
        9.0,
        ge=3,
        le=300,
        allow_inf_nan=False,
        description="Seconds for which a host runs highly available workloads without reaching "
        "the control plane. It syncs three times as often.",
    )
    ha_margin: float = Field(
        2.0,
        ge=1,
        le=300,
        allow_inf_nan=False,
        description="Seconds after that lease before they are started elsewhere.",
    )
    cpu: CpuModel = Field(
        "host",
        description="What VMs that start see as their CPU. host: all that their host has; auto: "
        "the best model that all hosts of the cluster have; or a model's name. With the last two "
        "they get the newest machine type that all hosts have, too.",
    )
    migration_bandwidth: int = Field(
        0, ge=0, le=1_000_000, description="MiB a second of each live migration; 0: no limit."
    )
    migration_downtime: int = Field(
        300, ge=1, le=60_000, description="Milliseconds that a guest may stand still at its end."
    )
    migration_steps: int = Field(
        4, ge=0, le=8, description="How often that is doubled where memory is written too fast."
    )
    migration_convergence: Convergence = Field(
        Convergence.PAUSE,
        description="After that. pause: the guest stands still until all has gone over; give_up: "
        "it stays where it is.",
    )
    rebalancing: Rebalancing = Field(
        Rebalancing.MANUAL,
        description="manual: a cluster that stays out of balance is told, and 'cluster rebalance' "
        "mends it; automatic: it is mended by itself, with moves that stop nothing.",
    )
    rebalancing_threshold: float = Field(
        0.2,
        ge=0.02,
        le=1,
        allow_inf_nan=False,
        description="How far the claimed share of a host may be from the cluster's. For the "
        "policies spread and balanced.",
    )
    labels: Labels = Field(default_factory=dict, description="Key and value pairs to select by.")


def list_(context: Context, query: ListQuery) -> Page[Cluster]:
    """All clusters."""
    return context.uow.clusters.list(query)


def find(context: Context, reference: str, field: str | None = None) -> Cluster:
    """The cluster with this id or name.

    :raises NotFound: there is none.
    """
    cluster = context.uow.clusters.find(reference)
    if cluster is None:
        raise NotFound(f"cluster {reference!r} does not exist", field=field)
    return cluster


def survives(context: Context, cluster: Cluster) -> int:
    """How many further hosts may fail so that what is highly available has room on the others."""
    sums = placement.sums(context.uow, [cluster], _hosts_of(context, cluster))
    return survived(Tally(sums), cluster.id)


def _hosts_of(context: Context, cluster: Cluster) -> list[HostSize]:
    return [host for host in context.uow.hosts.sizes() if host.cluster_id == cluster.id]


def lock(context: Context, reference: str) -> Cluster:
    """The same, to be changed."""
    found = context.uow.clusters.find(reference)
    return context.for_change(context.uow.clusters, found, f"cluster {reference!r}")


def create(context: Context, fields: ClusterFields) -> Cluster:
    """A new cluster without hosts.

    :raises NameTaken: another cluster has the name.
    """
    cluster = Cluster(id=new_id(), created_at=context.now, **dict(fields))
    context.uow.clusters.add(cluster)
    context.record("cluster.created", cluster, f"cluster {cluster.name} was created")
    return cluster


def update(context: Context, cluster: Cluster, fields: ClusterFields) -> Cluster:
    """Set the fields of a locked cluster. Claims that are there stay, whatever the new ratios."""
    for name, value in fields:
        setattr(cluster, name, value)
    context.record("cluster.updated", cluster, f"cluster {cluster.name} was changed")
    context.uow.flush()
    return cluster


def delete(context: Context, reference: str) -> Cluster:
    """Delete a cluster that has no hosts.

    :raises Conflict: it has hosts; they are named.
    """
    cluster = lock(context, reference)
    hosts = context.uow.hosts.list(ListQuery(filters={"cluster": cluster.id}, limit=10)).items
    refuse_in_use(f"cluster {cluster.name!r}", host=[host.name for host in hosts])
    context.record("cluster.deleted", cluster, f"cluster {cluster.name} was deleted")
    context.uow.clusters.remove(cluster)
    context.uow.flush()
    return cluster
