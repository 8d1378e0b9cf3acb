"""What all repositories share, over one mapped entity and its table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Insert,
    Select,
    Table,
    any_,
    bindparam,
    func,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import set_committed_value

from virtmgr.domain.errors import Conflict, NameTaken
from virtmgr.domain.ids import is_id
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.store import listing as lists
from virtmgr.store import tables
from virtmgr.store.errors import noun, taken

T = TypeVar("T")

_MANY = 10  # rows from which on a stream of them is faster than statements


class SqlRepository(Generic[T]):
    """Rows of one table as live entities of one session."""

    entity: type[T]
    table: Table
    listing: lists.Listing

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, entity: T) -> None:
        self._session.add(entity)
        with self._naming_what_is_taken(entity):
            self._session.flush()

    @contextmanager
    def _naming_what_is_taken(self, entity: T) -> Iterator[None]:
        try:
            yield
        except NameTaken as error:
            value = getattr(entity, error.field or "", None)
            if not isinstance(value, str) or error.field == "aliases":
                raise
            raise taken(self.table, error.field or "", value) from error.__cause__

    def add_all(self, entities: Sequence[T]) -> None:
        self._session.flush()
        if len(entities) == 1:
            with self._naming_what_is_taken(entities[0]):
                write(self._session, entities)
        else:
            write(self._session, entities)

    def get(self, id: str) -> T | None:
        return self._session.get(self.entity, id) if is_id(id) else None

    def by_ids(self, ids: Iterable[str]) -> Mapping[str, T]:
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        found = self._asked(_by_ids(inspect(self.entity), arrays=self._arrays), ids=wanted)
        return {entity.id: entity for entity in found}  # type: ignore[attr-defined]

    def called(self, ids: Iterable[str]) -> Mapping[str, str]:
        wanted = list(set(ids))
        if not wanted:
            return {}
        statement = _names_of(self.table, arrays=self._arrays)
        return {row.id: row.name for row in self._session.execute(statement, {"ids": wanted})}

    def lock(self, id: str) -> T | None:
        """Like ``get``, but fresh and locked.

        The lock does not stop others from referring to the row, only from changing it.
        """
        if not is_id(id):
            return None
        return self._session.get(
            self.entity, id, populate_existing=True, with_for_update={"key_share": True}
        )

    def remove(self, entity: T) -> None:
        """Delete at once.

        :raises Conflict: something still needs it; the message names what.
        """
        self._session.flush()
        self._refuse_if_used(entity)
        self._session.delete(entity)
        self._session.flush()

    def list(self, query: ListQuery) -> Page[T]:
        return lists.page(self._session, self.entity, self.listing, query)

    def _one(self, *criteria: ColumnElement[bool]) -> T | None:
        return self._session.scalars(select(self.entity).where(*criteria)).one_or_none()

    def _asked(self, statement: Select[T], **values: Any) -> Sequence[T]:
        """What a statement that was made before finds: making one, and the key that it is known
        by, costs more than half of what it takes to run it."""
        return self._session.scalars(statement, values).all()

    def _together(self, texts: Select[str], **values: Any) -> frozenset[str]:
        """Texts that are read as one value, with commas in between: thousands in milliseconds."""
        found = self._session.scalar(texts, values)
        return frozenset(found.split(",")) if found else frozenset()

    @property
    def _arrays(self) -> bool:
        """Whether the database takes a list as one value; see ``among``."""
        return self._session.get_bind().dialect.name == "postgresql"

    def _many(
        self, *criteria: ColumnElement[bool], order: Sequence[ColumnElement[Any]] = ()
    ) -> Sequence[T]:
        return self._session.scalars(select(self.entity).where(*criteria).order_by(*order)).all()

    def _take(self, *free: ColumnElement[bool], now: datetime, **values: Any) -> T | None:
        """Change the oldest row that is ``free`` and on which nobody holds a live lease.

        One UPDATE … RETURNING; safe among processes. For tables with leases.
        """
        column = self.table.c
        lease = column.lease_expires_at
        criteria = (*free, or_(lease.is_(None), lease < now))
        oldest = (
            select(column.id)
            .where(*criteria)
            .order_by(column.created_at, column.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(self.entity)
            .where(column.id == oldest, *criteria)
            .values(**values)
            .returning(self.entity)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        self._session.flush()
        return self._session.scalars(statement).one_or_none()

    def _take_over(self, id: str, values: dict[str, Any]) -> None:
        """Show what a direct UPDATE made of a row to the entity, if this unit has loaded it."""
        entity = self._session.identity_map.get(
            inspect(self.entity).identity_key_from_primary_key((id,))
        )
        if entity is not None:
            for name, value in values.items():
                set_committed_value(entity, name, value)

    def _refuse_if_used(self, entity: Any) -> None:
        id = getattr(entity, "id", None)
        users = [used for column in _restricting(self.table) if (used := self._users(column, id))]
        if users:
            name = getattr(entity, "name", id)
            raise Conflict(
                f"delete {noun(self.table)} {name}: it is still used by {'; '.join(users)}",
                code="in_use",
                hint="delete or move those first",
            )

    def _users(self, column: Any, id: str | None) -> str:
        """How many rows refer to the row by ``column``, and the names of some of them."""
        table: Table = column.table
        count = self._session.scalar(select(func.count()).where(column == id)) or 0
        if not count:
            return ""
        plural = noun(table) if count == 1 else table.name.replace("_", " ")
        if "name" not in table.c:
            return f"{count} {plural}"
        named = select(table.c.name).where(column == id).order_by(table.c.name).limit(3)
        names = ", ".join(self._session.scalars(named))
        return f"{count} {plural} ({names}{', …' if count > 3 else ''})"


def write(session: Session, entities: Sequence[Any]) -> None:
    """Write new entities of one kind as rows; they stay unknown to the session."""
    if not entities:
        return
    connection = session.connection()
    kind: Any = type(entities[0])
    columns = _written(kind)
    if len(entities) >= _MANY and connection.dialect.name == "postgresql":
        from virtmgr.store.postgresql import copy_in  # psycopg, which SQLite does without

        values = ([each[name] for name in columns] for each in map(vars, entities))
        copy_in(connection, tuple(columns.values()), values)
        return
    rows = [
        {column.key: each[name] for name, column in columns.items()} for each in map(vars, entities)
    ]
    connection.execute(_inserted(kind), rows if len(rows) > 1 else rows[0])


@cache
def _written(entity: Any) -> Mapping[str, Column[Any]]:
    """By attribute the column; what the database gives is left to it."""
    mapper: Mapper[Any] = inspect(entity)
    table: Any = mapper.local_table
    given = table.autoincrement_column
    columns: dict[str, Any] = {prop.key: prop.columns[0] for prop in mapper.column_attrs}
    return {name: column for name, column in columns.items() if column is not given}


@cache
def _inserted(entity: Any) -> Insert:
    mapper: Mapper[Any] = inspect(entity)
    table: Any = mapper.local_table
    return insert(table).inline()


def among(column: ColumnElement[Any], name: str, *, arrays: bool) -> ColumnElement[bool]:
    """Whether the column is one of the list that is bound to ``name``.

    :param arrays: the list is one value: the statement is the same however long it is, so
        PostgreSQL plans it once.
    """
    if arrays:
        return column == any_(bindparam(name, type_=ARRAY(column.type)))
    return column.in_(bindparam(name, expanding=True))


@cache
def _by_ids(entity: Mapper[Any], *, arrays: bool) -> Select[Any]:
    return select(entity).where(among(_column(entity, "id"), "ids", arrays=arrays))


@cache
def _names_of(table: Table, *, arrays: bool) -> Select[str, str]:
    return select(table.c.id, table.c.name).where(among(table.c.id, "ids", arrays=arrays))


@cache
def _named(entity: Mapper[Any]) -> Select[Any]:
    return select(entity).where(_column(entity, "name") == bindparam("reference"))


@cache
def _in_project(entity: Mapper[Any], key: str) -> Select[Any]:
    mine = _column(entity, "project_id") == bindparam("project")
    return select(entity).where(mine, _column(entity, key) == bindparam("reference"))


def _column(entity: Mapper[Any], name: str) -> ColumnElement[Any]:
    table: Any = entity.local_table
    column: ColumnElement[Any] = table.c[name]
    return column


def _restricting(table: Table) -> list[Any]:
    """Columns of other tables that keep a row of ``table`` from being deleted."""
    return [
        key.parent
        for other in tables.metadata.sorted_tables
        for key in other.foreign_keys
        if key.column.table is table and key.ondelete == "RESTRICT"
    ]


class SqlNamedRepository(SqlRepository[T]):
    """Rows with a name that is unique everywhere."""

    def find(self, reference: str) -> T | None:
        if is_id(reference):
            return self.get(reference)
        found = self._asked(_named(inspect(self.entity)), reference=reference)
        return found[0] if found else None


class SqlProjectRepository(SqlRepository[T]):
    """Rows with a name that is unique in their project."""

    def find(self, project_id: str, reference: str) -> T | None:
        key = "id" if is_id(reference) else "name"
        statement = _in_project(inspect(self.entity), key)
        found = self._asked(statement, project=project_id, reference=reference)
        return found[0] if found else None
