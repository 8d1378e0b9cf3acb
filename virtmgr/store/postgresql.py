"""What makes psycopg do less for each statement; only loaded where the database is PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg.types.string import TextLoader
from sqlalchemy import Engine, event

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
