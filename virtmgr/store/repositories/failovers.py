"""Failovers: highly available workloads of hosts that were lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select

from virtmgr.domain.failover import Failover, FailoverPhase
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlRepository

_failovers = tables.failovers.c
_OLDEST_FIRST = [_failovers.created_at, _failovers.id]


class SqlFailovers(SqlRepository[Failover]):
    entity = Failover
    table = tables.failovers
    listing = Listing(
        tie=_failovers.id,
        filters={
            "id": _failovers.id,
            "workload": _failovers.workload_id,
            "project": _failovers.project_id,
            "phase": _failovers.phase,
            "lost": _failovers.lost_host_id,
            "target": _failovers.target_host_id,
        },
        sorts={
            "created_at": _failovers.created_at,
            "updated_at": _failovers.updated_at,
            "phase": _failovers.phase,
        },
        text=_failovers.workload_name,
        project=_failovers.project_id,
        default_sort="-created_at",
    )

    def waiting_on(self, host_id: str) -> Sequence[Failover]:
        here = (_failovers.lost_host_id == host_id, _failovers.phase == FailoverPhase.WAITING)
        return self._many(*here, order=_OLDEST_FIRST)

    def left_on(self, host_id: str) -> Sequence[Failover]:
        here = (_failovers.lost_host_id == host_id, _failovers.phase == FailoverPhase.RESTARTED)
        return self._many(*here, order=_OLDEST_FIRST)

    def open_of(self, workload_id: str) -> Sequence[Failover]:
        mine = (_failovers.workload_id == workload_id, _failovers.finished_at.is_(None))
        return self._many(*mine, order=_OLDEST_FIRST)

    def lost_by(self, workload_id: str, since: datetime) -> frozenset[str]:
        found = self._session.scalars(
            select(_failovers.lost_host_id).where(
                _failovers.workload_id == workload_id, _failovers.updated_at > since
            )
        )
        return frozenset(id for id in found if id is not None)
