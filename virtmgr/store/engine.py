"""Database engines: one that writes and one that only reads, for SQLite and PostgreSQL.

SQLite has one writer at a time. Within a process the writing engine has exactly one connection,
so that threads and greenlets queue in Python (``store/pool.py``), where waiting for one lets the
others run (a greenlet that waited inside SQLite would stop the whole process, the lock's holder
included).
Between processes BEGIN IMMEDIATE is tried again, asleep in Python between the tries. Readers have
connections of their own; in WAL mode they see the last commit and wait for nobody.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from virtmgr.domain.errors import InvalidRequest, Unavailable
from virtmgr.store.errors import translate_errors
from virtmgr.store.pool import WriterPool
from virtmgr.store.types import json_text

WRITER_PATIENCE = 15.0
"""Seconds to wait for another process's, or our own other units', write lock."""

_POSTGRESQL_OPTIONS = "-c timezone=UTC -c lock_timeout=15s"
_PATIENCE = {
    "connect_timeout": 10,  # seconds, for each server that the URL names
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
_READERS = 8
_URL_HINT = "use sqlite:////absolute/path/virtmgr.db or postgresql://user@host/database"


def parse_url(url: str) -> URL:
    """The database URL with its driver.

    :raises InvalidRequest: it is neither a SQLite file nor PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:  # it is not shown: there may be a password in it
        raise InvalidRequest("open the database: its URL cannot be read", hint=_URL_HINT) from error
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed.set(drivername="sqlite+pysqlite")
    raise InvalidRequest(
        f"open the database {shown(parsed)}: only a SQLite file or PostgreSQL will do",
        hint=_URL_HINT,
    )


def shown(url: URL) -> str:
    """The URL for people: without its password, and without parameters, which may hold one."""
    return url.set(query={}).render_as_string()


def make_engine(url: str) -> Engine:
    """The engine for units of work that write.

    It opens nothing yet; make it after a fork. ``make_reader`` makes its read-only companion.

    :param url: ``sqlite:////path`` or ``postgresql://…``.
    :raises InvalidRequest: the URL is of another kind.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        engine = _postgresql(parsed)
    else:
        _create_private(Path(parsed.database or ""))
        engine = _sqlite(parsed, pool=WriterPool, size=1, busy_timeout=0.01)
        event.listen(engine, "begin", _begin_immediate)
    translate_errors(engine)
    return engine


def make_reader(engine: Engine) -> Engine:
    """An engine on the same database whose transactions read one snapshot and cannot write."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    reader = _sqlite(engine.url, pool=QueuePool, size=_READERS, busy_timeout=5.0)
    event.listen(reader, "connect", _query_only)
    event.listen(reader, "begin", _begin_deferred)
    translate_errors(reader)
    return reader


def make_migration_engine(url: str) -> Engine:
    """An engine for schema changes: no pool, and on SQLite no foreign keys while tables move."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        return _on_postgresql(parsed, poolclass=NullPool)
    _create_private(Path(parsed.database or ""))
    engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": WRITER_PATIENCE})
    event.listen(engine, "connect", _manual_transactions)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def make_snapshot_engine(url: str) -> Engine:
    """An engine to read all of a database by: one state of it for as long as a transaction lasts,
    and plain JSON."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        arguments = _connect_arguments(parsed)
        engine = _on_postgresql(parsed, poolclass=NullPool, connect_args=arguments)
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": WRITER_PATIENCE})
    event.listen(engine, "connect", _manual_transactions)
    event.listen(engine, "connect", _query_only)
    event.listen(engine, "begin", _begin_deferred)
    return engine


def make_news_engine(url: str) -> Engine | None:
    """An engine whose connections stay open and commit each statement; None: SQLite has no news."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "postgresql":
        return None
    engine = create_engine(
        parsed,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=_connect_arguments(parsed),
    )
    translate_errors(engine)
    return engine


def _postgresql(url: URL) -> Engine:
    from virtmgr.store import postgresql  # psycopg, which SQLite does without

    engine = _on_postgresql(
        url,
        pool_size=20,  # what is beyond a pool's size is made anew for each use
        max_overflow=0,
        pool_timeout=WRITER_PATIENCE,
        pool_pre_ping=True,
        connect_args={**_connect_arguments(url), "cursor_factory": postgresql.Cursor},
        **_json(),
    )
    postgresql.ping_when_in_doubt(engine)
    return engine


def _on_postgresql(url: URL, **options: Any) -> Engine:
    from virtmgr.store import postgresql

    engine = create_engine(url, **options)
    postgresql.read_ids_as_text(engine)
    return engine


def _connect_arguments(url: URL) -> dict[str, Any]:
    """What libpq is told unless the URL says otherwise: a machine that is gone is noticed soon."""
    options = " ".join(filter(None, (_POSTGRESQL_OPTIONS, str(url.query.get("options", "")))))
    own = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    return {**own, "options": options}


def _sqlite(url: URL, *, pool: type[Pool], size: int, busy_timeout: float) -> Engine:
    engine = create_engine(
        url,
        poolclass=pool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=WRITER_PATIENCE,
        connect_args={"timeout": busy_timeout, "check_same_thread": False},
        **_json(),
    )
    event.listen(engine, "connect", _manual_transactions)
    event.listen(engine, "connect", _durable)
    return engine


def _json() -> dict[str, Any]:
    """JSON out by pydantic (models, datetimes), in undecoded: ``store/types.py`` parses it."""
    return {
        "json_serializer": json_text,
        "json_deserializer": lambda data: data,
    }


def _create_private(path: Path) -> None:
    """Make the file unreadable for others from its first moment: it holds password hashes."""
    if path.parent.is_dir():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _manual_transactions(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver's own transaction handling, off


def _durable(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in ("foreign_keys = ON", "synchronous = FULL", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        _retry_while_busy(lambda: connection.execute("PRAGMA journal_mode = WAL"))


def _query_only(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA query_only = ON")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN DEFERRED")


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once; the driver's cursor, so that each try costs no error path."""
    driver: Any = connection.connection.dbapi_connection
    _retry_while_busy(lambda: driver.execute("BEGIN IMMEDIATE"))


def _retry_while_busy(action: Any) -> None:
    """Repeat ``action`` while another process holds the lock, letting other greenlets run."""
    deadline = time.monotonic() + WRITER_PATIENCE
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy:
                raise
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"begin a change: another process held the database for {WRITER_PATIENCE:g} s",
                    code="database_busy",
                    hint="try again; if it stays, look for a backup or a stopped virtmgr process",
                ) from error
        time.sleep(random.uniform(0.001, 0.01))
