"""Rows of a list in the order of the names of what they refer to: workloads by host.

Each half is read in the order of an index, whatever the table's size: the rows that refer to
nothing, whose name is empty, and from name to name the rows that refer to what has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, Table, bindparam, literal, or_, select, true
from sqlalchemy.orm import Session, aliased

from virtmgr.store import cursor

Expression = ColumnElement[Any]


@dataclass(frozen=True)
class Named:
    """A column that refers to a row of another table, which has a name of its own, or to none."""

    reference: Expression  # indexed together with the list's tie
    table: Table  # its ``name`` is unique


class _Last(NamedTuple):
    """What the page before ended with."""

    name: str
    tie: str | int


@dataclass(frozen=True)
class NameOrder:
    """How a list is sorted: ``sort`` is the name of that, with a ``-`` where it goes down."""

    entity: Any
    tie: Expression
    named: Named
    sort: str

    def rows(
        self, session: Session, criteria: Sequence[Expression], position: str | None, limit: int
    ) -> Sequence[Row[Any, Any]]:
        """At most ``limit`` entities that meet the criteria, each with the name.

        :param position: the cursor after which they begin.
        :raises InvalidRequest: it is a foreign one.
        """
        last = self._last(position)
        halves = [True, False] if self._descends else [False, True]  # whether it has a name
        if last is not None:
            halves = halves[halves.index(bool(last.name)) :]
        found: list[Row[Any, Any]] = []
        for has_name in halves:
            if wanted := limit - len(found):
                after = last if last is not None and bool(last.name) == has_name else None
                make = self._of_names if has_name else self._nameless
                found += session.execute(make(session, criteria, after, wanted)).all()
        return found

    @property
    def _descends(self) -> bool:
        return self.sort.startswith("-")

    def _last(self, position: str | None) -> _Last | None:
        if position is None:
            return None
        return _Last(*cursor.decode(position, self.sort, str, self.tie.type.python_type))

    def _beyond(self, last: _Last) -> Expression:
        tie = bindparam(None, last.tie, type_=self.tie.type)
        beyond: Expression = self.tie < tie if self._descends else self.tie > tie
        return beyond

    def _nameless(
        self, _: Session, criteria: Sequence[Expression], after: _Last | None, limit: int
    ) -> Select[Any]:
        found = select(self.entity, literal("")).where(self.named.reference.is_(None), *criteria)
        if after is not None:
            found = found.where(self._beyond(after))
        return found.order_by(*directed([self.tie], self.sort)).limit(limit)

    def _of_names(
        self, session: Session, criteria: Sequence[Expression], after: _Last | None, limit: int
    ) -> Select[Any]:
        """From name to name. PostgreSQL would sort all that belongs to a name before it takes the
        first of it: it is told to take no more of each than are wanted."""
        owner, name, entity = self.named.table, self.named.table.c.name, self.entity
        wanted = [self.named.reference == owner.c.id, *criteria]
        begins: list[Expression] = []
        if after is not None:
            begin = bindparam(None, after.name, type_=name.type)
            begins.append(name <= begin if self._descends else name >= begin)
            wanted.append(or_(name != begin, self._beyond(after)))
        if session.get_bind().dialect.name != "postgresql":
            order = directed([name, self.tie], self.sort)
            found = select(entity, name).join(owner, true()).where(*begins, *wanted)
            return found.order_by(*order).limit(limit)
        each = select(self.tie.table).where(*wanted).correlate(owner)
        each = each.order_by(*directed([self.tie], self.sort)).limit(limit)
        theirs = each.lateral()
        order = directed([name, theirs.c.id], self.sort)
        found = select(aliased(entity, theirs), name).select_from(owner).join(theirs, true())
        return found.where(*begins).order_by(*order).limit(limit)


def directed(order: Sequence[Expression], sort: str) -> list[Expression]:
    """The order as ``sort`` wants it, up or down."""
    return [each.desc() if sort.startswith("-") else each.asc() for each in order]
