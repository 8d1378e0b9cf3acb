"""Clusters, hosts and their pools."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Insert,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from virtmgr.domain.errors import NotFound
from virtmgr.domain.failover import FailoverPhase
from virtmgr.domain.host import Cluster, Host, HostAccess, HostState, Pool
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.ids import is_id
from virtmgr.domain.leases import USUAL, HostLease
from virtmgr.domain.operation import OperationState
from virtmgr.domain.overview import HostSize
from virtmgr.domain.scheduling import Amounts
from virtmgr.domain.volume import VolumeState
from virtmgr.ports.unit_of_work import Duties, Heartbeat, Renewal
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlNamedRepository, SqlRepository, among

_clusters = tables.clusters.c
_hosts = tables.hosts.c
_pools = tables.pools.c
_at_hand = tables.host_images.c
_workloads = tables.workloads.c
_operations = tables.operations.c

_last_drain = (
    select(_operations.state)
    .where(_operations.target_id == cast(_hosts.id, String(64)), _operations.verb == "drain")
    .order_by(_operations.created_at.desc(), _operations.id.desc())
    .limit(1)
    .scalar_subquery()
)
_DRAIN_INCOMPLETE = and_(
    _hosts.scheduling_state == HostState.CORDONED, _last_drain == OperationState.FAILED
)


_FULLNESS = cast(_pools.used, Float) / func.nullif(_pools.capacity, 0)


class SqlClusters(SqlNamedRepository[Cluster]):
    entity = Cluster
    table = tables.clusters
    listing = Listing(
        tie=_clusters.id,
        filters={"name": _clusters.name, "id": _clusters.id, "policy": _clusters.policy},
        sorts={"name": _clusters.name, "created_at": _clusters.created_at},
        text=_clusters.name,
        labels=_clusters.labels,
    )


class SqlHosts(SqlNamedRepository[Host]):
    entity = Host
    table = tables.hosts
    listing = Listing(
        tie=_hosts.id,
        filters={
            "name": _hosts.name,
            "id": _hosts.id,
            "state": _hosts.state,
            "cluster": _hosts.cluster_id,
            "architecture": _hosts.architecture,
            "drain_incomplete": case((_DRAIN_INCOMPLETE, True), else_=False),
        },
        conditions={
            "certificate_before": lambda at: _hosts.certificate_expires_at <= at,
            "fullness": lambda share: share <= _hosts.fullness,
        },
        sorts={
            "name": _hosts.name,
            "created_at": _hosts.created_at,
            "state": _hosts.state,
            "capacity_vcpus": _hosts.capacity_vcpus,
            "capacity_memory": _hosts.capacity_memory,
            "claimed_vcpus": _hosts.claimed_vcpus,
            "claimed_memory": _hosts.claimed_memory,
            "claimed_disk": _hosts.claimed_disk,
        },
        text=_hosts.name,
        is_lower=True,
        labels=_hosts.labels,
    )

    def all(self, *, locked: bool = False) -> Sequence[Host]:
        if not locked:
            return self._many(order=[_hosts.id])
        # In the order of ids, as claims are taken: two units never wait for each other.
        statement = select(Host).order_by(_hosts.id).with_for_update(key_share=True)
        return self._session.scalars(statement.execution_options(populate_existing=True)).all()

    def marks(self, *, locked: bool = False) -> frozenset[str]:
        self._session.flush()
        if locked:  # in the order of ids, as claims are taken: two units never wait for each other
            mine = select(_hosts.id).order_by(_hosts.id).with_for_update(key_share=True)
            self._session.execute(mine)
        return self._together(_MARKS)

    def those(self, ids: Collection[str]) -> Sequence[Host]:
        if not ids:
            return ()
        self._session.flush()
        return self._asked(_fresh(arrays=self._arrays), ids=list(ids))

    def sizes(self) -> Sequence[HostSize]:
        self._session.flush()
        capacity = (_hosts.capacity_vcpus, _hosts.capacity_memory, _hosts.capacity_disk)
        claimed = (_hosts.claimed_vcpus, _hosts.claimed_memory, _hosts.claimed_disk)
        who = (_hosts.id, _hosts.name, _hosts.cluster_id, _hosts.state)
        rows = self._session.execute(select(*who, *capacity, *claimed).order_by(_hosts.id))
        return [
            HostSize(id, name, cluster, state, Amounts(*amounts[:3]), Amounts(*amounts[3:]))
            for id, name, cluster, state, *amounts in rows
        ]

    def lock_all_of(self, ids: Iterable[str]) -> Sequence[Host]:
        wanted = sorted({id for id in ids if is_id(id)})
        if not wanted:
            return ()
        return self._asked(_locked(arrays=self._arrays), ids=wanted)

    def claim(self, host_id: str, version: int, *, vcpus: float, memory: int, disk: int) -> bool:
        amounts = {"claimed_vcpus": vcpus, "claimed_memory": memory, "claimed_disk": disk}
        criteria = [_hosts.version == version]
        criteria += [_hosts[name] + amount >= 0 for name, amount in amounts.items() if amount < 0]
        values = {name: _hosts[name] + amount for name, amount in amounts.items()}
        return self._change(host_id, criteria, {**values, "version": _hosts.version + 1})

    def claim_all(
        self, claims: Mapping[str, Amounts], versions: Mapping[str, int]
    ) -> Mapping[str, int] | None:
        self._session.flush()
        if len(claims) == 1:
            ((host_id, claim),) = claims.items()
            values = {"of": host_id, "at": versions[host_id], **asdict(claim)}
            claimed = self._session.execute(_CLAIM_ONE, values).one_or_none()
            if claimed is None:
                return None
            self._take_over(host_id, dict(claimed._mapping))
            return {host_id: claimed.revision}
        if not claims:
            return {}
        statement = _to_claim(arrays=self._arrays)
        rows = self._session.execute(statement, {"ids": list(claims)}).all()
        found = {row.id: row for row in rows}
        if any(id not in found or found[id].version != versions[id] for id in claims):
            return None
        # Rows that are locked: what was read of them is what they are.
        new = [_claimed(found[host_id], claim) for host_id, claim in sorted(claims.items())]
        self._session.connection().execute(_CLAIM_MANY, new)
        for row in new:
            self._take_over(row["of"], {name: row[f"new_{name}"] for name in _CLAIM})
        return {row["of"]: row["new_revision"] for row in new}

    def release(self, host_id: str, *, vcpus: float, memory: int, disk: int) -> None:
        amounts = {"claimed_vcpus": vcpus, "claimed_memory": memory, "claimed_disk": disk}
        values = {
            name: case((_hosts[name] >= amount, _hosts[name] - amount), else_=0)
            for name, amount in amounts.items()
        }
        self._change(host_id, [], {**values, "version": _hosts.version + 1})

    def next_revision(self, host_id: str) -> int:
        self._session.flush()
        revision = self._session.execute(_NEXT_REVISION, {"of": host_id}).scalar()
        if revision is None:
            raise NotFound(f"number a change of host {host_id}: it is gone")
        self._take_over(host_id, {"revision": revision})
        return int(revision)

    def next_revisions(
        self, network_ids: Collection[str], *, besides: Collection[str] = ()
    ) -> Sequence[str]:
        self._session.flush()
        there = (
            select(_workloads.host_id)
            .join(tables.nics, tables.nics.c.workload_id == _workloads.id)
            .where(tables.nics.c.network_id.in_(list(network_ids)))
        )
        on_them = select(_hosts.id).where(_hosts.id.in_(there), _hosts.id.not_in(list(besides)))
        locked = on_them.order_by(_hosts.id).with_for_update(key_share=True)
        host_ids = self._session.scalars(locked).all()
        for host_id in host_ids:
            self.next_revision(host_id)
        return host_ids

    def renew(
        self, host_id: str, revision: int, serial: str | None, now: datetime
    ) -> Renewal | None:
        granted, statement = _renewal(shown=serial is not None)
        values: dict[str, Any] = {"of": host_id, "at": revision}
        if serial is not None:
            values["serial"] = serial
        row = self._session.execute(granted, values).one_or_none()
        if row is None:
            return None
        values |= {
            "seconds": row.lease_seconds,
            "now": now,
            "until": now + timedelta(seconds=row.lease_seconds),
        }
        renewed = self._session.execute(statement, values).scalar() is not None
        return Renewal(row.lease_seconds, row.prune_nonce) if renewed else None

    def renew_all(self, heartbeats: Sequence[Heartbeat], now: datetime) -> Mapping[str, int]:
        shown = [beat for beat in heartbeats if is_id(beat.host_id)]
        if not shown:
            return {}
        values = {
            "ids": [beat.host_id for beat in shown],
            "shown": [f"{beat.host_id}:{beat.serial}" for beat in shown],
            "now": now,
            "until": now + USUAL,
        }
        rows = self._session.execute(_beaten(arrays=self._arrays), values)
        return {row.id: row.revision for row in rows}

    def leases(self) -> Sequence[HostLease]:
        rows = select(_hosts.id, _hosts.renewals, _hosts.lease_seconds).where(
            _hosts.last_seen_at.is_not(None)
        )
        return [HostLease(*row) for row in self._session.execute(rows)]

    def count_synced(self) -> int:
        synced = select(func.count()).where(_hosts.last_seen_at.is_not(None))
        return self._session.scalars(synced).one()

    def removing(self) -> Sequence[Host]:
        return self._many(_hosts.state == HostState.REMOVING, order=[_hosts.id])

    def lost(self) -> Sequence[Host]:
        return self._many(_hosts.state.in_(SILENT), order=[_hosts.id])

    def duties(self, host_id: str) -> Duties:
        row = self._session.execute(_DUTIES, {"host": host_id}).one()
        return Duties(*map(bool, row))

    def silent_shares(self) -> Mapping[str, tuple[int, int]]:
        silent = func.sum(case((_hosts.state == HostState.UNREACHABLE, 1), else_=0))
        there = (_hosts.last_seen_at.is_not(None), _hosts.state != HostState.FENCED)
        counted = select(_hosts.cluster_id, silent, func.count()).where(*there)
        rows = self._session.execute(counted.group_by(_hosts.cluster_id))
        return {row[0]: (int(row[1]), int(row[2])) for row in rows}

    def tunnels(self) -> Mapping[str, str]:
        has_one = _hosts.tunnel_address.is_not(None)
        self._session.flush()
        rows = self._session.execute(select(_hosts.id, _hosts.tunnel_address).where(has_one))
        return {row.id: row.tunnel_address for row in rows}

    def with_image(self, image_id: str) -> Sequence[Host]:
        there = select(_at_hand.host_id).where(_at_hand.image_id == image_id)
        return self._many(_hosts.id.in_(there), order=[_hosts.name])

    def images_at_hand(self, image_ids: Iterable[str]) -> Mapping[str, frozenset[str]]:
        rows = select(_at_hand.host_id, _at_hand.image_id).where(
            _at_hand.image_id.in_(list(image_ids))
        )
        found: dict[str, set[str]] = {}
        for host_id, image_id in self._session.execute(rows):
            found.setdefault(host_id, set()).add(image_id)
        return {host_id: frozenset(some) for host_id, some in found.items()}

    def having_image(self, image_id: str) -> frozenset[str]:
        return self._together(_HAVING, image=image_id)

    def note_images(self, host_id: str, image_ids: Iterable[str]) -> bool:
        known = set(self._session.scalars(_images_at(), {"host": host_id}))
        wanted = {image_id for image_id in image_ids if is_id(image_id)}
        if gone := known - wanted:
            here = _at_hand.host_id == host_id
            self._session.execute(
                delete(tables.host_images).where(here, _at_hand.image_id.in_(gone))
            )
        if new := wanted - known:
            rows = [{"host_id": host_id, "image_id": image_id} for image_id in sorted(new)]
            self._session.execute(insert(tables.host_images), rows)
        return bool(new)

    def unknown_images(self, host_id: str) -> Sequence[str]:
        known = exists().where(tables.images.c.id == _at_hand.image_id)
        return self._session.scalars(
            select(_at_hand.image_id)
            .where(_at_hand.host_id == host_id, ~known)
            .order_by(_at_hand.image_id)
        ).all()

    def unneeded_images(self, host_id: str | None = None) -> Sequence[tuple[str, str]]:
        needed = exists().where(
            _workloads.host_id == _at_hand.host_id,
            or_(
                _workloads.image_id == _at_hand.image_id,
                _workloads.cdrom_image_id == _at_hand.image_id,
            ),
        )
        rows = select(_at_hand.host_id, _at_hand.image_id).where(~needed)
        if host_id is not None:
            rows = rows.where(_at_hand.host_id == host_id)
        return [(row.host_id, row.image_id) for row in self._session.execute(rows)]

    def ask_to_prune(self, host_ids: Collection[str]) -> None:
        self.lock_all_of(host_ids)
        self._session.execute(
            update(tables.hosts)
            .where(_hosts.id.in_(host_ids))
            .values(prune_nonce=_hosts.prune_nonce + 1, revision=_hosts.revision + 1)
        )

    def on_machine(self, machine_id: str) -> Sequence[Host]:
        if not machine_id:
            return ()
        return self._many(_hosts.machine_id == machine_id, order=[_hosts.id])

    def by_certificate(self, serial: str) -> Host | None:
        return self._one(_hosts.certificate_serial == serial)

    def by_join_token(self, secret_hash: str) -> Host | None:
        return self._one(_hosts.join_token_hash == secret_hash)

    def _change(
        self, host_id: str, criteria: list[ColumnElement[bool]], values: dict[str, Any]
    ) -> bool:
        self._session.flush()
        statement = (
            update(tables.hosts)
            .where(_hosts.id == host_id, *criteria)
            .values(values)
            .returning(*(_hosts[name] for name in values))
        )
        row = self._session.execute(statement).one_or_none()
        if row is None:
            return False
        self._take_over(host_id, dict(row._mapping))
        return True


_MARKS = select(
    func.aggregate_strings(cast(_hosts.id, String) + ":" + cast(_hosts.version, String), ",")
)
_HAVING = select(func.aggregate_strings(cast(_at_hand.host_id, String), ",")).where(
    _at_hand.image_id == bindparam("image")
)


@cache
def _renewal(*, shown: bool) -> tuple[Select[Any], ReturningUpdate[Any]]:
    """What a host is granted that is at a revision and speaks, and what grants it.

    :param shown: whether it has shown its certificate.
    """
    criteria = [
        _hosts.id == bindparam("of"),
        _hosts.revision == bindparam("at"),
        _hosts.state == _hosts.scheduling_state,  # it speaks
    ]
    if shown:
        criteria.append(_hosts.certificate_serial == bindparam("serial"))
    granted = select(_hosts.lease_seconds, _hosts.prune_nonce).where(*criteria)
    renewed = (
        update(tables.hosts)
        .where(*criteria, _hosts.lease_seconds == bindparam("seconds"))
        .values(
            renewals=_hosts.renewals + 1,
            last_seen_at=bindparam("now"),
            lease_expires_at=bindparam("until"),
        )
        .returning(_hosts.id)
    )
    return granted, renewed


@cache
def _beaten(*, arrays: bool) -> ReturningUpdate[Any]:
    """What renews the leases of many hosts that speak, each of which has shown its certificate.

    Its parameters are the hosts' ids, and with each its certificate's serial number.
    """
    certificate = cast(_hosts.id, String) + ":" + _hosts.certificate_serial
    # Whoever has locked one of them holds nobody up, and nobody waits for us in a circle.
    free = (
        select(_hosts.id)
        .where(
            among(_hosts.id, "ids", arrays=arrays),
            among(certificate, "shown", arrays=arrays),
            _hosts.state == _hosts.scheduling_state,  # it speaks
            _hosts.previous_certificate_serial.is_(None),
            _hosts.lease_seconds == USUAL.total_seconds(),
        )
        .order_by(_hosts.id)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return (
        update(tables.hosts)
        .where(_hosts.id.in_(free))
        .values(
            renewals=_hosts.renewals + 1,
            last_seen_at=bindparam("now"),
            lease_expires_at=bindparam("until"),
        )
        .returning(_hosts.id, _hosts.revision)
    )


@cache
def _fresh(*, arrays: bool) -> Select[Host]:
    found = select(Host).where(among(_hosts.id, "ids", arrays=arrays))
    return found.execution_options(populate_existing=True)


@cache
def _locked(*, arrays: bool) -> Select[Host]:
    return _fresh(arrays=arrays).order_by(_hosts.id).with_for_update(key_share=True)


@cache
def _to_claim(*, arrays: bool) -> Select[Any]:
    wanted: Any = select(_hosts.id, *(_hosts[name] for name in _CLAIM))
    there = wanted.where(among(_hosts.id, "ids", arrays=arrays))
    return there.order_by(_hosts.id).with_for_update(key_share=True)  # type: ignore[no-any-return]


def _duties() -> Select[*tuple[bool, ...]]:
    """What ``duties`` asks, of the host that is bound to ``host``; made once, for every sync."""
    host: Any = bindparam("host", type_=_hosts.id.type)
    left, moves, volumes = tables.failovers.c, tables.migrations.c, tables.volumes.c
    known = exists().where(tables.images.c.id == _at_hand.image_id)
    there = or_(moves.source_host_id == host, moves.target_host_id == host)
    return select(
        exists().where(_workloads.host_id == host, _workloads.ha_since.is_not(None)),
        exists().where(left.lost_host_id == host, left.phase == FailoverPhase.RESTARTED),
        exists().where(there, moves.finished_at.is_(None)),
        exists().where(volumes.host_id == host, volumes.state == VolumeState.DELETING),
        exists().where(_at_hand.host_id == host, ~known),
    )


_DUTIES = _duties()
_CLAIM = ("claimed_vcpus", "claimed_memory", "claimed_disk", "version", "revision")
_NEXT_REVISION = (
    update(tables.hosts)
    .where(_hosts.id == bindparam("of"))
    .values(revision=_hosts.revision + 1)
    .returning(_hosts.revision)
)
_CLAIM_ONE = (
    update(tables.hosts)
    .where(_hosts.id == bindparam("of"), _hosts.version == bindparam("at"))
    .values(
        claimed_vcpus=_hosts.claimed_vcpus + bindparam("vcpus", type_=_hosts.claimed_vcpus.type),
        claimed_memory=_hosts.claimed_memory + bindparam("memory"),
        claimed_disk=_hosts.claimed_disk + bindparam("disk"),
        version=_hosts.version + 1,
        revision=_hosts.revision + 1,
    )
    .returning(*(_hosts[name] for name in _CLAIM))
)
_CLAIM_MANY = (
    update(tables.hosts)
    .where(_hosts.id == bindparam("of"))
    .values({name: bindparam(f"new_{name}") for name in _CLAIM})
)


def _claimed(row: Any, claim: Amounts) -> dict[str, Any]:
    """What ``claim`` makes of a host."""
    return {
        "of": row.id,
        "new_claimed_vcpus": row.claimed_vcpus + claim.vcpus,
        "new_claimed_memory": row.claimed_memory + claim.memory,
        "new_claimed_disk": row.claimed_disk + claim.disk,
        "new_version": row.version + 1,
        "new_revision": row.revision + 1,
    }


class SqlHostAccess:
    """How virtmgr logs in to hosts; one row a host, without a name of its own."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, access: HostAccess) -> None:
        self._session.add(access)
        self._session.flush()

    def get(self, host_id: str) -> HostAccess | None:
        return self._session.get(HostAccess, host_id)

    def at(self, address: str) -> Sequence[HostAccess]:
        found = select(HostAccess).where(tables.host_access.c.address == address)
        return self._session.scalars(found.order_by(tables.host_access.c.host_id)).all()


class SqlPools(SqlRepository[Pool]):
    entity = Pool
    table = tables.pools
    listing = Listing(
        tie=_pools.id,
        filters={"host": _pools.host_id, "name": _pools.name, "type": _pools.type},
        conditions={"fullness": lambda share: share <= _FULLNESS},
        sorts={
            "name": _pools.name,
            "created_at": _pools.created_at,
            "used": _pools.used,
            "capacity": _pools.capacity,
        },
        text=_pools.name,
    )

    def of_host(self, host_id: str) -> Sequence[Pool]:
        return self._asked(_of_host(), host=host_id)

    def note(self, pools: Sequence[Pool]) -> None:
        if not pools:
            return
        self._session.flush()
        rows = [{column.key: getattr(pool, column.key) for column in _pools} for pool in pools]
        connection = self._session.connection()
        statement = _noted_pool(connection.dialect.name)
        connection.execute(statement, rows if len(rows) > 1 else rows[0])


@cache
def _noted_pool(dialect: str) -> Insert:
    """What writes a pool, or what is new of one that is there."""
    make: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    written = make(tables.pools).inline()
    observed = ("path", "capacity", "used")
    return written.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=[_pools.host_id, _pools.name],
        set_={name: written.excluded[name] for name in observed},
        where=or_(*(_pools[name] != written.excluded[name] for name in observed)),
    )


@cache
def _images_at() -> Select[Any]:
    return select(_at_hand.image_id).where(_at_hand.host_id == bindparam("host"))


@cache
def _of_host() -> Select[Pool]:
    return select(Pool).where(_pools.host_id == bindparam("host")).order_by(_pools.name)
