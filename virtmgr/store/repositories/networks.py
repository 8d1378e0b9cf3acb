"""Networks, the addresses on them, and the NICs of workloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    union,
)

from virtmgr.domain.ids import is_id
from virtmgr.domain.migration import MigrationMode
from virtmgr.domain.network import Address, Network, NetworkType
from virtmgr.domain.workload import Nic
from virtmgr.ports.unit_of_work import NetworkLoad, NetworkMember, Port
from virtmgr.store import tables
from virtmgr.store.listing import Listing, within
from virtmgr.store.repositories.base import SqlProjectRepository, SqlRepository, among

_networks = tables.networks.c
_addresses = tables.addresses.c
_nics = tables.nics.c
_migrations = tables.migrations.c


def _on_or_coming_to() -> CompoundSelect[Any]:
    """Ids of workloads that are on the host that is bound to ``host``, or on their way to it."""
    workload = tables.workloads.c
    host_id: Any = bindparam("host")
    there = select(workload.id).where(workload.host_id == host_id)
    coming = select(_migrations.workload_id).where(
        _migrations.target_host_id == host_id, _migrations.finished_at.is_(None)
    )
    return union(there, coming)


@cache
def _of_host() -> Select[Network]:
    on_host = (
        select(_nics.network_id)
        .join(tables.workloads, tables.workloads.c.id == _nics.workload_id)
        .where(tables.workloads.c.host_id == bindparam("host"))
    )
    coming = (
        select(_nics.network_id)
        .join(tables.migrations, _migrations.workload_id == _nics.workload_id)
        .where(
            _migrations.target_host_id == bindparam("host"),
            _migrations.finished_at.is_(None),
            _migrations.mode == MigrationMode.LIVE,
        )
    )
    here = or_(_networks.id.in_(on_host), _networks.id.in_(coming))
    return select(Network).where(here).order_by(_networks.id)


@cache
def _visible(key: str) -> Select[Network]:
    """One network that a project sees, by this column; its own before the shared one."""
    mine = _networks.project_id == bindparam("project")
    visible = or_(mine, _networks.project_id.is_(None))
    own_first = case((_networks.project_id.is_(None), 1), else_=0)
    found = select(Network).where(visible, _networks[key] == bindparam("reference"))
    return found.order_by(own_first).limit(1)


_TAKEN = select(func.aggregate_strings(_addresses.address, ",")).where(
    _addresses.network_id == bindparam("network")
)


@cache
def _names(*, on_host: bool, arrays: bool) -> Select[Any]:
    workload = tables.workloads.c
    wanted = among(_nics.network_id, "networks", arrays=arrays)
    if on_host:
        wanted = and_(wanted, _nics.workload_id.in_(_on_or_coming_to()))
    found: Any = select(
        _nics.id,
        _nics.network_id,
        workload.name,
        workload.kind,
        workload.host_id,
        _nics.mac,
        _addresses.address,
    )
    return (  # type: ignore[no-any-return]
        found.join(tables.workloads, workload.id == _nics.workload_id)
        .join(tables.addresses, _addresses.nic_id == _nics.id, isouter=True)
        .where(wanted)
        .order_by(_nics.id, _addresses.id)
    )


class SqlNetworks(SqlProjectRepository[Network]):
    entity = Network
    table = tables.networks
    listing = Listing(
        tie=_networks.id,
        filters={
            "name": _networks.name,
            "id": _networks.id,
            "project": _networks.project_id,
            "type": _networks.type,
        },
        sorts={
            "name": _networks.name,
            "created_at": _networks.created_at,
            "type": _networks.type,
        },
        text=_networks.name,
        labels=_networks.labels,
        project=_networks.project_id,
        shared=True,
    )

    def find(self, project_id: str, reference: str) -> Network | None:
        statement = _visible("id" if is_id(reference) else "name")
        found = self._asked(statement, project=project_id, reference=reference)
        return found[0] if found else None

    def find_shared(self, reference: str) -> Network | None:
        key = _networks.id if is_id(reference) else _networks.name
        return self._one(_networks.project_id.is_(None), key == reference)

    def loads(
        self, network_ids: Iterable[str], project_ids: frozenset[str] | None
    ) -> Sequence[NetworkLoad]:
        workload, host = tables.workloads.c, tables.hosts.c
        count = func.count(workload.id.distinct())
        statement = (
            select(_nics.network_id, host.id, host.name, count)
            .join(tables.workloads, workload.id == _nics.workload_id)
            .join(tables.hosts, host.id == workload.host_id, isouter=True)
            .where(_nics.network_id.in_(network_ids))
            .group_by(_nics.network_id, host.id, host.name)
            .order_by(_nics.network_id, host.name)
        )
        if project_ids is not None:
            statement = statement.where(within(workload.project_id, project_ids, shared=False))
        self._session.flush()
        return [NetworkLoad(*row) for row in self._session.execute(statement)]

    def of_host(self, host_id: str) -> Sequence[Network]:
        return self._asked(_of_host(), host=host_id)

    def names(
        self, network_ids: Iterable[str], host_id: str | None = None
    ) -> Sequence[NetworkMember]:
        network_ids = list(network_ids)
        if not network_ids:
            return ()
        self._session.flush()
        found: dict[str, NetworkMember] = {}
        values = {"networks": network_ids, "host": host_id}
        statement = _names(on_host=host_id is not None, arrays=self._arrays)
        for row in self._session.execute(statement, values):
            nic_id, network_id, name, kind, host_id, mac, address = row
            entry = found.get(nic_id) or NetworkMember(network_id, name, kind, host_id, mac, ())
            if address is not None:
                entry = entry._replace(addresses=(*entry.addresses, address))
            found[nic_id] = entry
        return list(found.values())

    def vnis(self) -> frozenset[int]:
        return frozenset(
            self._session.scalars(select(_networks.vni).where(_networks.vni.is_not(None)))
        )

    def overlays(self, network_ids: Iterable[str]) -> Sequence[str]:
        of_these = _networks.id.in_(list(network_ids))
        overlay = _networks.type == NetworkType.OVERLAY
        return self._session.scalars(select(_networks.id).where(of_these, overlay)).all()


class SqlAddresses(SqlRepository[Address]):
    entity = Address
    table = tables.addresses
    listing = Listing(
        tie=_addresses.id,
        filters={
            "network": _addresses.network_id,
            "address": _addresses.address,
            "nic": _addresses.nic_id,
        },
        sorts={"address": _addresses.address, "created_at": _addresses.created_at},
        text=_addresses.address,
        default_sort="created_at",
    )

    def taken(self, network_id: str) -> frozenset[str]:
        self._session.flush()
        return self._together(_TAKEN, network=network_id)

    def of_nics(self, nic_ids: Iterable[str]) -> Mapping[str, Sequence[Address]]:
        found: dict[str, list[Address]] = {nic_id: [] for nic_id in nic_ids}
        for address in self._asked(_of_nics(arrays=self._arrays), nics=list(found)):
            found[str(address.nic_id)].append(address)
        return found


class SqlNics(SqlRepository[Nic]):
    entity = Nic
    table = tables.nics
    listing = Listing(
        tie=_nics.id,
        filters={"workload": _nics.workload_id, "network": _nics.network_id, "mac": _nics.mac},
        sorts={"index": _nics.position, "mac": _nics.mac},
        text=_nics.mac,
        default_sort="index",
    )

    def of_workloads(self, workload_ids: Iterable[str]) -> Mapping[str, Sequence[Nic]]:
        found: dict[str, list[Nic]] = {workload_id: [] for workload_id in workload_ids}
        for nic in self._asked(_of_workloads(arrays=self._arrays), workloads=list(found)):
            found[nic.workload_id].append(nic)
        return found

    def ports(self, workload_ids: Iterable[str]) -> Mapping[str, Sequence[Port]]:
        found: dict[str, list[Port]] = {workload_id: [] for workload_id in workload_ids}
        self._session.flush()
        rows = self._session.execute(_ports(arrays=self._arrays), {"workloads": list(found)})
        for workload_id, id, position, network_id, mac, address in rows:
            ports = found[workload_id]
            more = () if address is None else (address,)
            if ports and ports[-1].id == id:
                ports[-1] = ports[-1]._replace(addresses=ports[-1].addresses + more)
            else:
                ports.append(Port(id, position, network_id, mac, more))
        return found


@cache
def _of_nics(*, arrays: bool) -> Select[Address]:
    there = among(_addresses.nic_id, "nics", arrays=arrays)
    return select(Address).where(there).order_by(_addresses.id)


@cache
def _of_workloads(*, arrays: bool) -> Select[Nic]:
    there = among(_nics.workload_id, "workloads", arrays=arrays)
    return select(Nic).where(there).order_by(_nics.position)


@cache
def _ports(*, arrays: bool) -> Select[Any]:
    found: Any = select(
        _nics.workload_id,
        _nics.id,
        _nics.position,
        _nics.network_id,
        _nics.mac,
        _addresses.address,
    )
    return (  # type: ignore[no-any-return]
        found.join(tables.addresses, _addresses.nic_id == _nics.id, isouter=True)
        .where(among(_nics.workload_id, "workloads", arrays=arrays))
        .order_by(_nics.workload_id, _nics.position, _addresses.id)
    )
