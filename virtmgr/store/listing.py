"""Lists: filters, labels, text search and keyset pagination, from a declaration per noun."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    String,
    and_,
    bindparam,
    exists,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
)
from sqlalchemy.orm import Session

from virtmgr.domain.errors import InvalidRequest
from virtmgr.domain.ids import is_id
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.store import cursor, trigrams
from virtmgr.store.name_order import Named, NameOrder, directed
from virtmgr.store.types import Enumerated, UtcDateTime

Expression = ColumnElement[Any]


@dataclass(frozen=True, eq=False)
class Listing:
    """What lists of one noun can filter and sort by, under the names that the API uses.

    ``project`` is the column that ``project_ids`` limits; ``shared`` lets rows through where it
    is NULL. ``default_sort`` stands in for ``name`` where rows have no name. ``conditions`` are
    the filters that are no comparison with a column: each makes a criterion of its value.
    ``named`` are the sorts by the name of a row of another table. ``is_lower``: ``text`` has no
    capital letters, so that none need be made small for a search.
    """

    tie: Expression
    filters: Mapping[str, Expression] = field(default_factory=dict)
    conditions: Mapping[str, Callable[[Any], Expression]] = field(default_factory=dict)
    sorts: Mapping[str, Expression] = field(default_factory=dict)
    named: Mapping[str, Named] = field(default_factory=dict)
    text: Expression | None = None
    is_lower: bool = False
    labels: Expression | None = None
    project: Expression | None = None
    shared: bool = False
    default_sort: str = "name"

    @property
    def orders(self) -> tuple[str, ...]:
        """What its rows can be sorted by."""
        return (*self.sorts, *self.named)


def page(session: Session, entity: Any, listing: Listing, query: ListQuery) -> Page[Any]:
    """One page of entities.

    :raises InvalidRequest: unknown filter or sort column, wrong value, or a foreign cursor.
    """
    name, sort = _sort(listing, query.sort)
    criteria = _criteria(session, listing, query)
    total = _count(session, listing, criteria) if query.count else None
    rows: Sequence[Row[Any, Any]]
    if name in listing.named:
        order = NameOrder(entity, listing.tie, listing.named[name], sort)
        rows = order.rows(session, criteria, query.cursor, query.limit + 1)
    else:
        statement, key = _by_column(entity, listing, sort)
        if criteria:
            statement = statement.where(*criteria)
        if query.cursor is not None:
            statement = statement.where(_beyond(listing, key, sort, query.cursor))
        rows = session.execute(statement, {"most": query.limit + 1}).all()
    items = [row[0] for row in rows[: query.limit]]
    if len(rows) <= query.limit or not items:
        return Page(items, total=total)
    tie = getattr(items[-1], "sequence", None) or items[-1].id
    return Page(items, cursor.encode(sort, rows[query.limit - 1][1], tie), total)


@cache
def _by_column(entity: Any, listing: Listing, sort: str) -> tuple[Select[Any], Expression]:
    """At most as many rows as are bound to ``most``, and what they are sorted by."""
    key = _sort_key(listing.sorts[sort.removeprefix("-")])
    statement: Select[Any] = select(entity, key.label("sort_key"))
    order = [key] if key is listing.tie else [key, listing.tie]
    statement = statement.order_by(*directed(order, sort))
    return statement.limit(bindparam("most", type_=Integer())), key


def _count(session: Session, listing: Listing, criteria: Sequence[Expression]) -> int:
    counted = select(func.count()).select_from(listing.tie.table).where(*criteria)
    return int(session.scalar(counted) or 0)


def matching(listing: Listing, filters: Mapping[str, Any]) -> list[Expression]:
    """The criteria for these filters alone."""
    return [_filter(listing, name, value) for name, value in filters.items()]


def within(column: Expression, project_ids: frozenset[str], *, shared: bool) -> Expression:
    """Rows of these projects, and with ``shared`` of none."""
    mine = column.in_(sorted(project_ids)) if project_ids else false()
    return or_(mine, column.is_(None)) if shared else mine


def _sort(listing: Listing, sort: str) -> tuple[str, str]:
    """The name of what is sorted by, and the same with a ``-`` where the order goes down."""
    if sort == "name" and "name" not in listing.sorts:
        sort = listing.default_sort
    name = sort.removeprefix("-")
    if name not in listing.orders:
        raise _unknown("sort by", name, "sort", listing.orders)
    return name, sort


def _sort_key(expression: Expression) -> Expression:
    """The expression as something that a cursor can hold: enumerations as their text."""
    if isinstance(expression.type, Enumerated):
        return type_coerce(expression, String())
    return expression


def _beyond(listing: Listing, key: Expression, sort: str, position: str) -> Expression:
    tie_type, descending = listing.tie.type.python_type, sort.startswith("-")
    value, tie = cursor.decode(position, sort, key.type.python_type, tie_type)
    if key is listing.tie:
        key_beyond: Expression = key < value if descending else key > value
        return key_beyond
    row = tuple_(key, listing.tie)
    last = tuple_(_bound(value, key), _bound(tie, listing.tie))
    beyond: Expression = row < last if descending else row > last
    return beyond


def _bound(value: Any, like: Expression) -> Expression:
    return bindparam(None, value, type_=like.type)


def _criteria(session: Session, listing: Listing, query: ListQuery) -> list[Expression]:
    criteria = matching(listing, query.filters)
    if query.project_ids is not None and listing.project is not None:
        criteria.append(within(listing.project, query.project_ids, shared=listing.shared))
    if query.text:
        if listing.text is None:
            raise _unknown("search the text of", "q", "q", ())
        searched = listing.text if listing.is_lower else func.lower(listing.text)
        criteria.append(trigrams.contains(session, searched, query.text.lower()))
    if query.labels:
        if listing.labels is None:
            raise _unknown("select by", "label", "label", listing.filters)
        criteria.append(carries(session, listing.labels, query.labels))
    return criteria


def carries(session: Session, column: Expression, labels: Mapping[str, str]) -> Expression:
    """Rows that carry all these labels; PostgreSQL answers it from an index."""
    if session.get_bind().dialect.name == "postgresql":
        return column.op("@>", is_comparison=True)(_bound(dict(labels), column))
    return and_(true(), *(_carries_one(column, key, value) for key, value in labels.items()))


def _carries_one(column: Expression, key: str, value: str) -> Expression:
    pairs = func.json_each(column).table_valued("key", "value")
    return exists(select(literal_column("1")).where(pairs.c.key == key, pairs.c.value == value))


def _filter(listing: Listing, name: str, value: Any) -> Expression:
    if name in listing.conditions:
        return listing.conditions[name](value)
    if name not in listing.filters:
        raise _unknown("filter by", name, name, listing.filters)
    column = listing.filters[name]
    values = value if isinstance(value, (tuple, list, set, frozenset)) else (value,)
    given = [_checked(column, name, item) for item in values if item is not None]
    found = column.in_(given) if given else false()
    return or_(found, column.is_(None)) if None in values else found


def _checked(column: Expression, name: str, value: Any) -> Any:
    """``value`` if the column can hold it; bad ones are the asker's mistake, not the database's."""
    kind = column.type
    legal = ""
    if isinstance(kind, Enumerated):
        if value in set(kind.values):
            return value
        legal = f"one of {', '.join(kind.values)}"
    elif isinstance(kind, UtcDateTime):
        return value
    elif kind.python_type is bool:
        if isinstance(value, bool):
            return value
        legal = "true or false"
    elif isinstance(value, StrEnum | str):
        if not _is_reference(column) or is_id(value):
            return str(value)
        legal = "an id"
    elif isinstance(value, (int, float)):
        return value
    raise InvalidRequest(
        f"list with {name}={value!r}: it is not {legal or 'a text'}",
        field=name,
        hint=f"give {legal or 'a text'}",
    )


def _is_reference(column: Expression) -> bool:
    return bool(getattr(column, "foreign_keys", None) or getattr(column, "primary_key", False))


def _unknown(verb: str, name: str, where: str, known: Any) -> InvalidRequest:
    choice = ", ".join(sorted(known))
    return InvalidRequest(
        f"list: cannot {verb} {name!r} here",
        field=where,
        hint=f"known are {choice}" if choice else "leave it out",
    )
