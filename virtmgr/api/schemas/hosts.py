"""Hosts and pools as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer
from virtmgr.api.secrets import secret_field
from virtmgr.domain.host import Cluster, Host, HostState, Pool
from virtmgr.domain.machine import MAY_REPLACE
from virtmgr.domain.readiness import missing
from virtmgr.domain.ssh import HostKey
from virtmgr.domain.workload import Reason
from virtmgr.ports.unit_of_work import UnitOfWork

_OF_OURS = (MAY_REPLACE,)  # among the facts, and not from the agent


class CapacityView(View):
    """An amount of what hosts offer."""

    vcpus: float
    memory: int = Field(description="Bytes.")
    disk: int = Field(description="Bytes.")


class FileSystemView(View):
    """A file system of a host that no pool is on."""

    path: str
    capacity: int = Field(description="Bytes.")
    used: int = Field(description="Bytes, with what is kept for root.")


class HostView(View):
    """An enrolled machine."""

    id: str
    name: str
    cluster: ReferenceView
    state: HostState
    scheduling_state: HostState = Field(
        description="What an operator made of it: ready, cordoned, draining or maintenance. "
        "A host that was silent is that again."
    )
    lacks: list[Reason] = Field(
        description="What keeps a host that is probing from being scheduled on; without any it "
        "becomes ready by itself."
    )
    cordoned: bool = Field(description="It takes nothing new.")
    labels: dict[str, str]
    architecture: str
    capacity: CapacityView = Field(description="What the machine has.")
    claimed: CapacityView = Field(description="What its workloads claim.")
    free: CapacityView = Field(description="What may still be claimed, overcommit included.")
    facts: dict[str, Any] = Field(description="What the agent found out at its start.")
    file_systems: list[FileSystemView] | None = Field(
        description="Its own, which no pool is on; null: its agent has not said."
    )
    certificate_expires_at: datetime | None
    lease_expires_at: datetime | None
    last_seen_at: datetime | None
    created_at: datetime
    version: int = Field(description="Counts claims too.")


class ShownHostView(HostView):
    """A host with its images."""

    images: list[ReferenceView] = Field(description="Those that it has at hand, by name.")


class NewHostView(HostView):
    """A host to enrol, with its join token."""

    join_token: str | None = secret_field("For 'virtmgr agent', once: shown this once.")
    join_token_expires_at: datetime


class PoolView(View):
    """Where a host keeps disks."""

    id: str
    name: str
    host: ReferenceView
    type: str
    path: str
    capacity: int = Field(description="Bytes.")
    used: int = Field(description="Bytes.")
    shared: bool
    created_at: datetime


class ScannedKeyView(View):
    """A key that an ssh server showed."""

    type: str = Field(description="Such as ssh-ed25519.")
    fingerprint: str = Field(description="SHA256:…, as ssh shows it.")


class ScannedView(View):
    """What an ssh server showed. Who answered is not known until its key is compared."""

    address: str
    port: int
    keys: list[ScannedKeyView] = Field(description="The one to prefer first.")


def present_keys(address: str, port: int, keys: Sequence[HostKey]) -> ScannedView:
    """The keys as the API shows them."""
    shown = [ScannedKeyView(type=key.type, fingerprint=key.fingerprint) for key in keys]
    return ScannedView(address=address, port=port, keys=shown)


def host_presenter(uow: UnitOfWork, hosts: Sequence[Host] = ()) -> Callable[[Host], HostView]:
    """How to present hosts."""
    clusters = dict(uow.clusters.by_ids(host.cluster_id for host in hosts))

    def present(host: Host) -> HostView:
        cluster = clusters.get(host.cluster_id) or uow.clusters.get(host.cluster_id)
        assert cluster is not None  # a foreign key says so
        return HostView(
            id=host.id,
            name=host.name,
            cluster=ReferenceView(id=cluster.id, name=cluster.name),
            state=host.state,
            scheduling_state=host.scheduling_state,
            lacks=_lacks(host),
            cordoned=host.scheduling_state is not HostState.READY,
            labels=host.labels,
            architecture=host.architecture,
            capacity=CapacityView(
                vcpus=host.capacity_vcpus, memory=host.capacity_memory, disk=host.capacity_disk
            ),
            claimed=CapacityView(
                vcpus=host.claimed_vcpus, memory=host.claimed_memory, disk=host.claimed_disk
            ),
            free=_free(cluster, host),
            facts={name: host.facts[name] for name in host.facts if name not in _OF_OURS},
            file_systems=None
            if host.file_systems is None
            else [FileSystemView.model_validate(one) for one in host.file_systems],
            certificate_expires_at=host.certificate_expires_at,
            lease_expires_at=host.lease_expires_at,
            last_seen_at=host.last_seen_at,
            created_at=host.created_at,
            version=host.version,
        )

    return present


def _lacks(host: Host) -> list[Reason]:
    return list(missing(host.facts)) if host.state is HostState.PROBING else []


def _free(cluster: Cluster, host: Host) -> CapacityView:
    vcpus = host.capacity_vcpus * cluster.overcommit_vcpus
    memory = int(host.capacity_memory * cluster.overcommit_memory)
    disk = int(host.capacity_disk * cluster.overcommit_disk)
    return CapacityView(
        vcpus=max(0.0, round(vcpus - host.claimed_vcpus, 3)),
        memory=max(0, memory - host.claimed_memory),
        disk=max(0, disk - host.claimed_disk),
    )


def pool_presenter(uow: UnitOfWork, pools: Sequence[Pool] = ()) -> Callable[[Pool], PoolView]:
    """How to present pools."""
    host = Referrer(uow.hosts, (pool.host_id for pool in pools))

    def present(pool: Pool) -> PoolView:
        return PoolView(
            id=pool.id,
            name=pool.name,
            host=host.known(pool.host_id),
            type=pool.type,
            path=pool.path,
            capacity=pool.capacity,
            used=pool.used,
            shared=pool.shared,
            created_at=pool.created_at,
        )

    return present
