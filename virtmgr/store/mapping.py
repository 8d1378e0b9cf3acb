"""Maps the domain's dataclasses onto the tables; the domain stays ignorant of both.

There are no relationships: every association is an id, so nothing is ever loaded behind a
reader's back, and lists cost one statement.
"""

from __future__ import annotations

from sqlalchemy.orm import deferred, registry

from virtmgr.domain.failover import Failover
from virtmgr.domain.fencing import FenceDevice
from virtmgr.domain.host import Cluster, Host, HostAccess, Pool
from virtmgr.domain.image import Image
from virtmgr.domain.migration import Migration
from virtmgr.domain.network import Address, Network
from virtmgr.domain.operation import Event, IdempotencyKey, Operation, StreamTicket
from virtmgr.domain.project import Project, Quota, RoleBinding, Token, User
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import Nic, Workload
from virtmgr.store import tables
from virtmgr.store.making import fill_at_once
from virtmgr.store.types import Tracked

mappers = registry(metadata=tables.metadata)

_PLAIN = {
    Project: tables.projects,
    Quota: tables.quotas,
    User: tables.users,
    RoleBinding: tables.role_bindings,
    Token: tables.tokens,
    Cluster: tables.clusters,
    Host: tables.hosts,
    HostAccess: tables.host_access,
    FenceDevice: tables.fence_devices,
    Pool: tables.pools,
    Image: tables.images,
    Volume: tables.volumes,
    Migration: tables.migrations,
    Failover: tables.failovers,
    Network: tables.networks,
    Address: tables.addresses,
    Operation: tables.operations,
    Event: tables.events,
    StreamTicket: tables.stream_tickets,
    IdempotencyKey: tables.idempotency_keys,
}
_OTHERS = {Nic: tables.nics, Workload: tables.workloads}


def map_domain() -> None:
    """Map every entity, once per process; further calls do nothing."""
    if any(mappers.mappers):
        return
    for entity, table in (_PLAIN | _OTHERS).items():
        tracked = [column.key for column in table.c if isinstance(column.type, Tracked)]
        fill_at_once(entity, tracked)
    for entity, table in _PLAIN.items():
        mappers.map_imperatively(entity, table)
    mappers.map_imperatively(Nic, tables.nics, properties={"index": tables.nics.c.position})
    # The database computes ``state`` and ``labels``; the entity has them in status and spec.
    mappers.map_imperatively(
        Workload,
        tables.workloads,
        exclude_properties={"state", "labels"},
        properties={"placement": deferred(tables.workloads.c.placement, raiseload=True)},
    )
    mappers.configure()
