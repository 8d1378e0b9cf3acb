"""Migrations: workloads on their way from one host to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache

from sqlalchemy import Select, bindparam, func, or_, select, update

from virtmgr.domain.migration import WORK, Migration, Phase
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlRepository

_migrations = tables.migrations.c
_OPEN = _migrations.finished_at.is_(None)


class SqlMigrations(SqlRepository[Migration]):
    entity = Migration
    table = tables.migrations
    listing = Listing(
        tie=_migrations.id,
        filters={
            "id": _migrations.id,
            "workload": _migrations.workload_id,
            "project": _migrations.project_id,
            "phase": _migrations.phase,
            "source": _migrations.source_host_id,
            "target": _migrations.target_host_id,
            "drain": _migrations.drain_id,
            "rebalance": _migrations.rebalance_id,
        },
        sorts={
            "created_at": _migrations.created_at,
            "updated_at": _migrations.updated_at,
            "phase": _migrations.phase,
        },
        text=_migrations.id,
        project=_migrations.project_id,
        default_sort="-created_at",
    )

    def open_of(self, workload_id: str) -> Migration | None:
        found = self._asked(_open_of(), workload=workload_id)
        return found[0] if found else None

    def open_on(self, host_id: str) -> Sequence[Migration]:
        here = or_(_migrations.source_host_id == host_id, _migrations.target_host_id == host_id)
        return self._many(here, _OPEN, order=[_migrations.created_at, _migrations.id])

    def ids_on(self, host_id: str) -> Sequence[str]:
        here = or_(_migrations.source_host_id == host_id, _migrations.target_host_id == host_id)
        return self._session.scalars(select(_migrations.id).where(here, _OPEN)).all()

    def all_open(self) -> Sequence[Migration]:
        return self._many(_OPEN, order=[_migrations.created_at, _migrations.id])

    def hosts_of(self, ids: Iterable[str]) -> frozenset[str]:
        ends = select(_migrations.source_host_id, _migrations.target_host_id)
        found = self._session.execute(ends.where(_migrations.id.in_(list(ids)), _OPEN))
        return frozenset(end for row in found for end in row if end is not None)

    def sources_of(self, workload_id: str, since: datetime) -> frozenset[str]:
        found = self._session.scalars(
            select(_migrations.source_host_id).where(
                _migrations.workload_id == workload_id, _migrations.updated_at > since
            )
        )
        return frozenset(id for id in found if id is not None)

    def of_drain(self, operation_id: str) -> Sequence[Migration]:
        return self._many(
            _migrations.drain_id == operation_id, order=[_migrations.created_at, _migrations.id]
        )

    def phases_of_drain(self, operation_id: str) -> Mapping[Phase, int]:
        counted = (
            select(_migrations.phase, func.count())
            .where(_migrations.drain_id == operation_id)
            .group_by(_migrations.phase)
        )
        return {row.phase: row[1] for row in self._session.execute(counted)}

    def of_rebalancing(self, operation_id: str) -> Sequence[Migration]:
        order = [_migrations.created_at, _migrations.id]
        return self._many(_migrations.rebalance_id == operation_id, order=order)

    def take(self, owner: str, lease_until: datetime, now: datetime) -> Migration | None:
        return self._take(
            _migrations.phase.in_(WORK), now=now, owner=owner, lease_expires_at=lease_until
        )

    def renew(self, id: str, owner: str, lease_until: datetime, copied: int) -> bool:
        held = (_migrations.id == id, _migrations.owner == owner, _OPEN)
        statement = (
            update(tables.migrations)
            .where(*held)
            .values(lease_expires_at=lease_until, copied=copied)
            .returning(_migrations.cancelling)
        )
        return self._session.execute(statement).scalar() is False


@cache
def _open_of() -> Select[Migration]:
    return select(Migration).where(_migrations.workload_id == bindparam("workload"), _OPEN)
