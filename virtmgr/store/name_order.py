"""Rows of a list in the order of the names of what they refer to: workloads by host.

Each half is read in the order of an index, whatever the table's size: the rows that refer to
nothing, whose name is empty, and from name to name the rows that refer to what has it. Where only
few are asked for, those are sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    any_,
    bindparam,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from virtmgr.store import cursor

Expression = ColumnElement[Any]

_FEW: Final = 500  # rows that are sorted sooner than they are found name by name


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
        of_names = self._sorted
        if session.get_bind().dialect.name == "postgresql":
            few = self._few(session, criteria) if criteria else None
            of_names = self._name_by_name if few is None else self._sorted
            criteria = criteria if few is None else [few]
        found: list[Row[Any, Any]] = []
        for has_name in halves:
            if wanted := limit - len(found):
                after = last if last is not None and bool(last.name) == has_name else None
                make = of_names if has_name else self._nameless
                found += session.execute(make(criteria, after, wanted)).all()
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

    def _few(self, session: Session, criteria: Sequence[Expression]) -> Expression | None:
        """That a row is one of those that meet the criteria, for PostgreSQL; None: they are many.

        Few are looked for among all names at once, and not name by name.
        """
        looked_for = select(self.tie).where(*criteria).limit(_FEW + 1)
        ids = session.scalars(looked_for).all()
        if len(ids) > _FEW:
            return None
        return self.tie == any_(bindparam(None, ids, type_=ARRAY(self.tie.type)))

    def _nameless(
        self, criteria: Sequence[Expression], after: _Last | None, limit: int
    ) -> Select[Any]:
        found = select(self.entity, literal("")).where(self.named.reference.is_(None), *criteria)
        if after is not None:
            found = found.where(self._beyond(after))
        return found.order_by(*directed([self.tie], self.sort)).limit(limit)

    def _sorted(
        self, criteria: Sequence[Expression], after: _Last | None, limit: int
    ) -> Select[Any]:
        """All that meet the criteria, sorted; SQLite reads them in this order."""
        begins, wanted = self._wanted(criteria, after)
        order = directed([self._name, self.tie], self.sort)
        found = select(self.entity, self._name).join(self.named.table, true())
        return found.where(*begins, *wanted).order_by(*order).limit(limit)

    def _name_by_name(
        self, criteria: Sequence[Expression], after: _Last | None, limit: int
    ) -> Select[Any]:
        """PostgreSQL would sort all that belongs to a name before it takes the first of it: it is
        told to take no more of each than are wanted."""
        begins, wanted = self._wanted(criteria, after)
        owner = self.named.table
        each = select(self.tie.table).where(*wanted).correlate(owner)
        each = each.order_by(*directed([self.tie], self.sort)).limit(limit)
        theirs = each.lateral()
        order = directed([self._name, theirs.c.id], self.sort)
        found = select(aliased(self.entity, theirs), self._name)
        found = found.select_from(owner).join(theirs, true())
        return found.where(*begins).order_by(*order).limit(limit)

    def _wanted(
        self, criteria: Sequence[Expression], after: _Last | None
    ) -> tuple[list[Expression], list[Expression]]:
        """Which names, and which rows that refer to them."""
        wanted = [self.named.reference == self.named.table.c.id, *criteria]
        if after is None:
            return [], wanted
        begin = bindparam(None, after.name, type_=self._name.type)
        begins = self._name <= begin if self._descends else self._name >= begin
        return [begins], [*wanted, or_(self._name != begin, self._beyond(after))]

    @property
    def _name(self) -> Expression:
        name: Expression = self.named.table.c.name
        return name


def directed(order: Sequence[Expression], sort: str) -> list[Expression]:
    """The order as ``sort`` wants it, up or down."""
    return [each.desc() if sort.startswith("-") else each.asc() for each in order]
