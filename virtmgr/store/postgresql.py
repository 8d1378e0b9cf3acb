"""What makes psycopg do less for each statement; only loaded where the database is PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.string import TextLoader
from sqlalchemy import Column, Connection, Engine, event

from virtmgr.store.errors import raise_translated
from virtmgr.store.types import Json, json_text

_TRUSTED: Final = 5.0  # seconds; who is silent for longer may be gone without a word


class Cursor(psycopg.Cursor[Any]):
    """A cursor that describes its columns when it is asked for one.

    SQLAlchemy looks at them the first time that it runs a statement, and later only whether there
    are any; psycopg looks up the type of each, each time.
    """

    @property
    def description(self) -> Any:
        result = self.pgresult
        if not result or not result.nfields:
            return super().description
        return _Columns(self, result.nfields)


class _Columns(Sequence[psycopg.Column]):
    def __init__(self, cursor: Cursor, count: int) -> None:
        self._cursor = cursor
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._described[index]

    def __iter__(self) -> Iterator[psycopg.Column]:
        return iter(self._described)

    @property
    def _described(self) -> list[psycopg.Column]:
        return psycopg.Cursor.description.fget(self._cursor) or []  # type: ignore[attr-defined]


def read_ids_as_text(engine: Engine) -> None:
    """Make ``engine`` read UUIDs as the text that they are sent as, which ids are in Python."""
    event.listen(engine, "connect", _read_ids_as_text)


def _read_ids_as_text(connection: Any, _record: object) -> None:
    connection.adapters.register_loader("uuid", TextLoader)


def ping_when_in_doubt(engine: Engine) -> None:
    """Make the pool of ``engine`` believe in a connection that was had a moment ago, unless its
    server has closed it: that is here to be read, and nobody has to be asked."""
    ask = engine.dialect.do_ping

    def ping(connection: Any) -> bool:
        now = time.monotonic()
        before = getattr(connection, "_had_at", None)
        connection._had_at = now
        if before is None or now - before > _TRUSTED:
            return ask(connection)
        connection.pgconn.consume_input()  # what the server said last
        connection.pgconn.consume_input()  # that it said no more; raises OperationalError
        return True

    engine.dialect.do_ping = ping  # type: ignore[assignment, method-assign]


def copy_in(
    connection: Connection, columns: Sequence[Column[Any]], rows: Iterable[list[Any]]
) -> None:
    """Write many rows of one table as one stream: each takes half of what it does by INSERT.

    :param rows: values in the order of the columns; they are used up.
    """
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    table = sql.Identifier(columns[0].table.name)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)
    prepare = [
        (index, preparing)
        for index, column in enumerate(columns)
        if (preparing := _preparing(column, connection)) is not None
    ]
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for values in rows:
                for index, make in prepare:
                    values[index] = make(values[index])
                copy.write_row(values)
    except psycopg.Error as error:
        raise_translated(error)
        raise


def _preparing(column: Column[Any], connection: Connection) -> Callable[[Any], Any] | None:
    """What is made of the column's values before the driver gets them; None: nothing."""
    if isinstance(column.type, Json):
        return lambda value: None if value is None else json_text(value)
    dialect = connection.dialect
    return column.type.dialect_impl(dialect).bind_processor(dialect)
