"""Leases of jobs that one control plane at a time does, by the database's clock."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.orm import Session

from virtmgr.domain.errors import NameTaken
from virtmgr.domain.leadership import Leadership, Term, claim
from virtmgr.store import tables

_leases = tables.leaderships.c


class SqlLeaderships:
    """Implements ``ports.unit_of_work.LeadershipRepository``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, name: str, holder: str) -> Term | None:
        found = self._find(name, for_update=True)
        claimed = claim(found, name, holder, self.now())
        if claimed is None:
            return None
        lease, term = claimed
        values = {"holder": holder, "term": lease.term, "expires_at": lease.expires_at}
        if found is not None:
            statement = update(tables.leaderships).where(_leases.name == name)
            self._session.execute(statement.values(**values))
            return term
        try:
            self._session.execute(insert(tables.leaderships).values(name=name, **values))
        except NameTaken:  # somebody else was the first ever
            return None
        return term

    def release(self, term: Term) -> None:
        statement = update(tables.leaderships).where(*_is(term))
        self._session.execute(statement.values(expires_at=self.now()))

    def holds(self, term: Term) -> bool:
        statement = select(_leases.expires_at).where(*_is(term)).with_for_update(read=True)
        until = self._session.scalar(statement)
        return until is not None and until > self.now()

    def live(self) -> bool:
        return any(
            until > self.now() for until in self._session.scalars(select(_leases.expires_at))
        )

    def now(self) -> datetime:
        """The database's time; SQLite has none of its own."""
        if self._session.get_bind().dialect.name == "postgresql":
            moment: datetime = self._session.scalars(select(func.clock_timestamp())).one()
            return moment.astimezone(UTC)
        return datetime.now(UTC)

    def _find(self, name: str, *, for_update: bool) -> Leadership | None:
        statement = select(tables.leaderships).where(_leases.name == name)
        row = self._session.execute(
            statement.with_for_update() if for_update else statement
        ).one_or_none()
        return None if row is None else Leadership(**row._mapping)


def _is(term: Term) -> tuple[ColumnElement[bool], ...]:
    return (
        _leases.name == term.name,
        _leases.holder == term.holder,
        _leases.term == term.number,
    )
