"""What hosts and their workloads have used: rows of one host and step, each of all that ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from virtmgr.domain.usage_history import TimedPoint, UsageSlice
from virtmgr.store import tables, usage_points

_history = tables.usage_history.c


class SqlUsageHistory:
    """Slices as rows."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, host_id: str, slices: Iterable[UsageSlice]) -> None:
        """Keep those that are not kept yet; the host is locked, so nobody else adds its."""
        wanted = {(one.seconds, one.end): one for one in slices}
        if not wanted:
            return
        times = [end for _, end in wanted]
        known = self._session.execute(
            select(_history.seconds, _history.ends_at).where(
                _history.host_id == host_id, _history.ends_at.in_(times)
            )
        )
        for row in known:
            wanted.pop((row.seconds, row.ends_at), None)
        rows = [
            {
                "host_id": host_id,
                "seconds": one.seconds,
                "ends_at": one.end,
                "points": usage_points.packed(one),
            }
            for one in wanted.values()
        ]
        if rows:
            self._session.execute(insert(tables.usage_history), rows)

    def points(
        self, host_ids: Iterable[str], workload_id: str | None, seconds: int, since: datetime
    ) -> Sequence[TimedPoint]:
        statement = (
            select(_history.ends_at, _history.points)
            .where(
                _history.host_id.in_(list(host_ids)),
                _history.seconds == seconds,
                _history.ends_at > since,
            )
            .order_by(_history.ends_at)
        )
        found: dict[datetime, TimedPoint] = {}
        for row in self._session.execute(statement):
            point = usage_points.find(row.points, workload_id)
            if point is not None:
                found[row.ends_at] = TimedPoint(row.ends_at, point)
        return list(found.values())

    def purge(self, seconds: int, before: datetime) -> None:
        old = (_history.seconds == seconds, _history.ends_at < before)
        self._session.execute(delete(tables.usage_history).where(*old))
