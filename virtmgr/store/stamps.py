"""Where the database is at, cheaply: equal stamps say that nothing was committed in between."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine


class Stamps(Protocol):
    """Tells the stamps of one database."""

    def now(self) -> Hashable: ...

    def close(self) -> None: ...


def stamps_of(reader: Engine) -> Stamps:
    """Stamps of the database that ``reader`` reads."""
    if reader.dialect.name == "postgresql":
        return _Snapshot(reader)
    return _DataVersion(Path(reader.url.database or ""))


class _Snapshot:
    """PostgreSQL's view of which transactions are over: every commit of a change alters it.

    https://www.postgresql.org/docs/15/functions-info.html#FUNCTIONS-PG-SNAPSHOT
    """

    def __init__(self, reader: Engine) -> None:
        self._reader = reader

    def now(self) -> str:
        with self._reader.connect() as connection:
            found = connection.exec_driver_sql("SELECT pg_current_snapshot()::text")
            return str(found.scalar_one())

    def close(self) -> None:
        """The engine is its owner's."""


class _DataVersion:
    """SQLite's count of the commits of other connections, on a connection that makes none.

    https://www.sqlite.org/pragma.html#pragma_data_version
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def now(self) -> int:
        with self._lock:
            if self._connection is None:
                address = f"{self._path.absolute().as_uri()}?mode=ro"
                self._connection = sqlite3.connect(address, uri=True, check_same_thread=False)
            found: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            return found

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
