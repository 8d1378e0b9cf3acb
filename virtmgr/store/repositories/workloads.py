"""Workloads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Row,
    Select,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy import false as none

from virtmgr.domain.ids import is_id
from virtmgr.domain.overview import WorkloadCount
from virtmgr.domain.scheduling import Amounts, PlacedWorkload
from virtmgr.domain.workload import Affinity, Port, Usage, Workload
from virtmgr.store import tables
from virtmgr.store.listing import Listing, within
from virtmgr.store.name_order import Named
from virtmgr.store.repositories.base import SqlProjectRepository, among
from virtmgr.store.types import Document, Model, json_text

_workloads = tables.workloads.c
_PORTS: ColumnElement[Any] = literal_column("spec -> 'ports'", Document())
_PLACED = (_workloads.id, _workloads.project_id, _workloads.host_id, _workloads.labels)
_USAGE: ColumnElement[Any] = literal_column("nullif(status -> 'usage', 'null')", Model(Usage))
_AFFINITY: ColumnElement[Any] = literal_column("spec -> 'placement' -> 'affinity'", Document())


def _placed(row: Row[Any], affinity: tuple[Affinity, ...] = ()) -> PlacedWorkload:
    return PlacedWorkload(
        id=row.id,
        project_id=row.project_id,
        host_id=row.host_id,
        labels=row.labels,
        affinity=affinity,
    )


def _sum(column: Column[Any]) -> ColumnElement[Any]:
    """The sum with the type of what is summed up; PostgreSQL would give it another."""
    return type_coerce(cast(func.sum(column), BigInteger), column.type)


def _has_nic_on(network_id: str) -> ColumnElement[bool]:
    if not is_id(network_id):
        return none()
    nics = tables.nics.c
    there = select(nics.workload_id).where(nics.network_id == network_id)
    return _workloads.id.in_(there)


def _has_address(address: str) -> ColumnElement[bool]:
    """By an IP address or a MAC, written as here."""
    nics, addresses = tables.nics, tables.addresses.c
    by_mac = select(nics.c.workload_id).where(nics.c.mac == address)
    by_ip = (
        select(nics.c.workload_id)
        .join(tables.addresses, addresses.nic_id == nics.c.id)
        .where(addresses.address == address)
    )
    return _workloads.id.in_(by_mac.union_all(by_ip))


def _is_moving(wanted: bool) -> ColumnElement[bool]:
    """By whether it is on its way to another host."""
    moved = tables.migrations.c
    under_way = _workloads.id.in_(select(moved.workload_id).where(moved.finished_at.is_(None)))
    return under_way if wanted else ~under_way


class SqlWorkloads(SqlProjectRepository[Workload]):
    entity = Workload
    table = tables.workloads
    listing = Listing(
        tie=_workloads.id,
        filters={
            "name": _workloads.name,
            "id": _workloads.id,
            "kind": _workloads.kind,
            "init": _workloads.init,
            "state": _workloads.state,
            "host": _workloads.host_id,
            "project": _workloads.project_id,
            "cluster": _workloads.cluster_id,
            "image": _workloads.image_id,
            "cdrom": _workloads.cdrom_image_id,
            "deleting": _workloads.deleting,
        },
        conditions={"network": _has_nic_on, "address": _has_address, "moving": _is_moving},
        sorts={
            "name": _workloads.name,
            "created_at": _workloads.created_at,
            "updated_at": _workloads.updated_at,
            "state": _workloads.state,
            "kind": _workloads.kind,
            "vcpus": _workloads.claim_vcpus,
            "memory": _workloads.claim_memory,
        },
        named={
            "host": Named(_workloads.host_id, tables.hosts),
            "project": Named(_workloads.project_id, tables.projects),
            "image": Named(_workloads.image_id, tables.images),
        },
        text=_workloads.name,
        is_lower=True,
        labels=_workloads.labels,
        project=_workloads.project_id,
    )

    def explanation(self, id: str) -> dict[str, Any] | None:
        self._session.flush()
        kept = self._session.scalar(select(_workloads.placement).where(_workloads.id == id))
        return None if kept is None else dict(kept)

    def on_host(self, host_id: str, *, after_revision: int = -1) -> Sequence[Workload]:
        return self._asked(_on_host(), host=host_id, after=after_revision)

    def usages(self, ids: Iterable[str], host_id: str) -> Mapping[str, Usage | None]:
        wanted = list(ids)
        if not wanted:
            return {}
        self._session.flush()
        statement = _usages(arrays=self._arrays)
        rows = self._session.execute(statement, {"ids": wanted, "host": host_id})
        return {row[0]: row[1] for row in rows}

    def note_usages(self, usages: Mapping[str, Usage], host_id: str) -> None:
        if not usages:
            return
        self._session.flush()
        connection = self._session.connection()
        statement = _NOTE_USAGES[connection.dialect.name]
        connection.execute(statement, {"usages": json_text(usages), "host": host_id})
        for loaded in self._session.identity_map.values():
            if isinstance(loaded, Workload) and loaded.id in usages:
                status = loaded.status.model_copy(update={"usage": usages[loaded.id]})
                self._take_over(loaded.id, {"status": status})

    def ha_on(self, host_id: str) -> Sequence[Workload]:
        is_ha = _workloads.ha_since.is_not(None)
        return self._many(_workloads.host_id == host_id, is_ha, order=[_workloads.id])

    def ha_claims(self) -> Mapping[str, Amounts]:
        self._session.flush()
        sums = map(_sum, (_workloads.claim_vcpus, _workloads.claim_memory, _workloads.claim_disk))
        statement = (
            select(_workloads.host_id, *sums)
            .where(_workloads.host_id.is_not(None), _workloads.ha_since.is_not(None))
            .group_by(_workloads.host_id)
        )
        return {host: Amounts(*claim) for host, *claim in self._session.execute(statement)}

    def counts(self, project_ids: frozenset[str] | None) -> Sequence[WorkloadCount]:
        self._session.flush()
        sort = (_workloads.kind, _workloads.init, _workloads.state)
        statement = select(*sort, func.count()).group_by(*sort).order_by(*sort)
        if project_ids is not None:
            statement = statement.where(within(_workloads.project_id, project_ids, shared=False))
        return [WorkloadCount(*row) for row in self._session.execute(statement)]

    def copies_of(self, workload_id: str) -> Sequence[Workload]:
        return self._asked(_copies_of(), source=workload_id)

    def published(self) -> Sequence[tuple[str, tuple[Port, ...]]]:
        self._session.flush()
        some = literal_column("spec -> 'ports' <> '[]'", Boolean)
        statement = select(_workloads.host_id, _PORTS).where(
            _workloads.host_id.is_not(None), _workloads.deleting.is_(False), some
        )
        return [
            (host, tuple(Port.model_validate(port) for port in ports))
            for host, ports in self._session.execute(statement)
        ]

    def first_called(self, project_id: str, names: Collection[str]) -> str | None:
        self._session.flush()
        values = {"project": project_id, "names": list(names)}
        return self._session.scalar(_first_called(arrays=self._arrays), values)

    def with_affinity(self, project_ids: Collection[str] | None = None) -> Sequence[PlacedWorkload]:
        rows = self._rows_of(_with_affinity, project_ids)
        return [_placed(row, tuple(map(Affinity.model_validate, row[-1]))) for row in rows]

    def placed(self, project_ids: Collection[str] | None = None) -> Sequence[PlacedWorkload]:
        return [_placed(row) for row in self._rows_of(_on_any_host, project_ids)]

    def _rows_of(
        self, statement: Callable[..., Select[Any]], project_ids: Collection[str] | None
    ) -> Iterable[Row[Any]]:
        self._session.flush()
        if project_ids is None:
            return self._session.execute(statement(of_projects=False, arrays=False))
        values = {"projects": list(project_ids)}
        return self._session.execute(statement(of_projects=True, arrays=self._arrays), values)


@cache
def _on_host() -> Select[Workload]:
    there = _workloads.host_id == bindparam("host")
    found = select(Workload).where(there, _workloads.revision > bindparam("after"))
    return found.order_by(_workloads.revision, _workloads.id)


@cache
def _copies_of() -> Select[Workload]:
    copies = select(Workload).where(_workloads.clone_of == bindparam("source"))
    return copies.order_by(_workloads.name)


@cache
def _usages(*, arrays: bool) -> Select[Any]:
    there = _workloads.host_id == bindparam("host")
    wanted = among(_workloads.id, "ids", arrays=arrays)
    return select(_workloads.id, _USAGE).where(wanted, there)


_NOTE_USAGES = {
    "postgresql": text(
        "UPDATE workloads SET status = jsonb_set(status, '{usage}', told.value)"
        " FROM jsonb_each(CAST(:usages AS jsonb)) AS told"
        " WHERE workloads.id = CAST(told.key AS uuid) AND host_id = CAST(:host AS uuid)"
    ),
    "sqlite": text(
        "UPDATE workloads SET status = json_set(status, '$.usage', json(told.value))"
        " FROM json_each(:usages) AS told"
        " WHERE workloads.id = told.key AND host_id = :host"
    ),
}
"""What a host's workloads use, as one value: by id."""


@cache
def _first_called(*, arrays: bool) -> Select[str]:
    mine = _workloads.project_id == bindparam("project")
    found = select(_workloads.name).where(mine, among(_workloads.name, "names", arrays=arrays))
    return found.order_by(_workloads.name).limit(1)


@cache
def _with_affinity(*, of_projects: bool, arrays: bool) -> Select[Any]:
    some = literal_column(tables.WITH_AFFINITY, Boolean)
    found: Select[Any] = select(*_PLACED, _AFFINITY).where(some)
    return found.where(_of_projects(arrays=arrays)) if of_projects else found


@cache
def _on_any_host(*, of_projects: bool, arrays: bool) -> Select[Any]:
    found: Select[Any] = select(*_PLACED).where(_workloads.host_id.is_not(None))
    return found.where(_of_projects(arrays=arrays)) if of_projects else found


def _of_projects(*, arrays: bool) -> ColumnElement[bool]:
    return among(_workloads.project_id, "projects", arrays=arrays)
