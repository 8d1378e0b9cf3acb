"""The event log.

A reader polls with the last sequence that it has seen, so sequences must become visible in order:
a transaction that took number 7 and commits after number 8 would never be seen. SQLite has one
writer at a time, and the order follows. On PostgreSQL ``flush_events`` takes a transaction-level
advisory lock before the numbers are given, which holds until the commit: whoever gets higher
numbers commits later. It runs as the last thing before the commit, so the lock is short and, as
nothing is locked after it, cannot be part of a deadlock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from virtmgr.domain.operation import Event
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.store import listing as lists
from virtmgr.store import tables
from virtmgr.store.repositories.base import write

_events = tables.events.c
_ORDER_LOCK = 0x76697274_65766E74  # "virtevnt"
_IN_ORDER = f"SELECT pg_advisory_xact_lock({_ORDER_LOCK})"

_LISTING = lists.Listing(
    tie=_events.sequence,
    filters={
        "type": _events.type,
        "target": _events.target_id,
        "target_type": _events.target_type,
        "project": _events.project_id,
        "user": _events.user_id,
        "operation": _events.operation_id,
        "host": _events.host_id,
    },
    conditions={
        "since": lambda moment: _events.at >= moment,
        "until": lambda moment: _events.at < moment,
    },
    sorts={"sequence": _events.sequence},
    text=_events.message,
    project=_events.project_id,
    default_sort="-sequence",
)


class SqlEvents:
    """Events are written at commit; whoever wants to know their ``sequence`` reads them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pending: list[Event] = []

    def append(self, event: Event) -> None:
        self._pending.append(event)

    def flush_events(self) -> None:
        """Write what was appended, in order, and hold the order lock until the commit."""
        if not self._pending:
            return
        self._session.flush()
        if self._session.get_bind().dialect.name == "postgresql":
            self._session.connection().exec_driver_sql(_IN_ORDER)
        write(self._session, self._pending)
        self._pending.clear()

    def forget_events(self) -> None:
        """Drop what was appended and not committed."""
        self._pending.clear()

    def after(
        self,
        sequence: int,
        *,
        limit: int,
        project_ids: frozenset[str] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> Sequence[Event]:
        self.flush_events()
        criteria = lists.matching(_LISTING, filters or {})
        if project_ids is not None:
            criteria.append(lists.within(_events.project_id, project_ids, shared=False))
        statement = select(Event).where(_events.sequence > sequence, *criteria)
        return self._session.scalars(statement.order_by(_events.sequence).limit(limit)).all()

    def list(self, query: ListQuery) -> Page[Event]:
        self.flush_events()
        return lists.page(self._session, Event, _LISTING, query)

    def last_sequence(self) -> int:
        self.flush_events()
        return self._session.scalar(select(func.max(_events.sequence))) or 0
