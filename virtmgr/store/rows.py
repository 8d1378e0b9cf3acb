"""The inventory's rows apart from any one database: read from one, written to another, proven.

A row is a dict of JSON values: times are ISO 8601 in UTC, ids are text, documents are themselves,
bytes are base64.
Columns that the database computes are left out, and so are leaderships, which are of processes.
Types are read from the database itself, so that rows of an earlier schema can be written too.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    Uuid,
    func,
    insert,
    null,
    select,
    text,
    update,
)

from virtmgr.domain.errors import Unavailable
from virtmgr.store import tables
from virtmgr.store.engine import make_snapshot_engine

Row = dict[str, Any]

_LEFT_OUT: Final = {"alembic_version", tables.leaderships.name}
_NUMBERED: Final = {  # tables whose rows the database counts, and in which column
    table.name: table.autoincrement_column.name
    for table in tables.metadata.tables.values()
    if table.autoincrement_column is not None and table.autoincrement_column.name == "sequence"
}
_BATCH: Final = 500
_EXACT: Final = 2**53  # integers up to it are the same as floats


@dataclass(frozen=True)
class Proof:
    """What a table holds: equal proofs mean equal rows, in whatever order."""

    table: str
    rows: int
    sha256: str  # sum of the rows' own, modulo 2^256


class Checksum:
    """Counts rows and sums their digests up."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0

    def add(self, row: Row) -> None:
        content = json.dumps(_canonical(row), sort_keys=True, separators=(",", ":")).encode()
        self._rows += 1
        self._sum += int.from_bytes(hashlib.sha256(content).digest(), "big")

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, added as they pass."""
        for row in rows:
            self.add(row)
            yield row

    def proof(self, table: str) -> Proof:
        return Proof(table, self._rows, f"{self._sum % 2**256:064x}")


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """One state of a database, whatever others commit meanwhile."""
    with make_snapshot_engine(url).connect() as connection:
        yield connection


def tables_of(connection: Connection) -> list[Table]:
    """The tables with rows to keep, those that others refer to first; types as they are there."""
    known = MetaData()
    known.reflect(connection)
    found = [table for table in known.sorted_tables if table.name not in _LEFT_OUT]
    for table in found:
        for column in table.columns:
            if isinstance(column.type, Uuid):
                column.type = Uuid(as_uuid=False)
    return found


def is_empty(connection: Connection) -> bool:
    """Whether there is no row to lose."""
    return not any(
        connection.scalar(select(func.count()).select_from(table))
        for table in tables_of(connection)
    )


def is_in_use(connection: Connection) -> bool:
    """Whether a control plane runs on the database, or was killed seconds ago."""
    known = MetaData()
    known.reflect(connection)
    table = known.tables.get(tables.leaderships.name)
    if table is None:
        return False
    moments = connection.scalars(select(table.c.expires_at)).all()
    return any(_utc(moment) > datetime.now(UTC) for moment in moments)


def read(connection: Connection, table: Table) -> Iterator[Row]:
    """Every row of a table."""
    columns = _stored(table)
    streamed = {"yield_per": _BATCH}
    for found in connection.execute(select(*columns), execution_options=streamed):
        yield {column.name: _to_json(value) for column, value in zip(columns, found, strict=True)}


def write(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Insert rows into an empty table.

    References within the table are set when all rows are there: a row may come before the one that
    it refers to.
    """
    inner = [key.parent.name for key in table.foreign_keys if key.column.table.name == table.name]
    later: list[Row] = []
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        later += [row for row in batch if any(row[name] is not None for name in inner)]
        first = [{**row, **dict.fromkeys(inner)} for row in batch]
        _insert(connection, table, first)
    (key,) = table.primary_key.columns if inner else (None,)
    for row in later:
        assert key is not None  # tables that refer to themselves have an id
        values = {name: row[name] for name in inner}
        connection.execute(update(table).where(key == row[key.name]).values(**values))


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Rows of a batch may differ in which documents are NULL: each such kind is one statement."""
    columns = {column.name: column for column in _stored(table)}
    documents = [name for name, column in columns.items() if isinstance(column.type, JSON)]
    kinds: dict[tuple[str, ...], list[Row]] = {}
    dialect = connection.dialect.name
    for row in rows:
        absent = tuple(name for name in documents if row[name] is None)
        values = {
            name: _from_json(columns[name], value, dialect)
            for name, value in row.items()
            if name not in absent
        }
        kinds.setdefault(absent, []).append(values)
    for absent, batch in kinds.items():
        nulls: Mapping[str, Any] = dict.fromkeys(absent, null())
        connection.execute(insert(table).values(**nulls) if nulls else insert(table), batch)


def proof_of(connection: Connection, table: Table) -> Proof:
    """Read a table to prove what it holds."""
    checksum = Checksum()
    for row in read(connection, table):
        checksum.add(row)
    return checksum.proof(table.name)


def last_numbers(connection: Connection) -> dict[str, int]:
    """By table: the highest number that a row was ever given, where the database counts them."""
    return {
        table.name: _last_number(connection, table)
        for table in tables_of(connection)
        if table.name in _NUMBERED
    }


def _last_number(connection: Connection, table: Table) -> int:
    column = _NUMBERED[table.name]
    if connection.dialect.name == "postgresql":
        sequence = _sequence(connection, table.name)
        found = connection.execute(text(f"SELECT last_value, is_called FROM {sequence}")).one()
        return int(found.last_value) if found.is_called else 0
    counted = text("SELECT seq FROM sqlite_sequence WHERE name = :table")
    number = connection.scalar(counted, {"table": table.name})
    return int(number or connection.scalar(select(func.max(table.c[column]))) or 0)


def go_on_from(connection: Connection, numbers: Mapping[str, int]) -> None:
    """Give the next row of each table a higher number than the one that is given for it."""
    for table, number in numbers.items():
        if not number or table not in _NUMBERED:
            continue
        values = {"table": table, "number": number}
        if connection.dialect.name == "postgresql":
            values["table"] = _sequence(connection, table)
            connection.execute(text("SELECT setval(:table, :number)"), values)
        elif tables.metadata.tables[table].dialect_options["sqlite"]["autoincrement"]:
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), values)
            counted = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :number)")
            connection.execute(counted, values)


def check_references(connection: Connection) -> None:
    """SQLite's foreign keys are off while tables are filled; PostgreSQL has checked each.

    :raises Unavailable: a row refers to one that is not there.
    """
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise Unavailable(
            f"fill the database: a row of {broken[0]} refers to one of {broken[2]} that is missing",
            code="reference_broken",
            hint="the source is damaged; take another backup",
        )


def _sequence(connection: Connection, table: str) -> str:
    statement = text("SELECT pg_get_serial_sequence(:table, :column)")
    values = {"table": table, "column": _NUMBERED[table]}
    return str(connection.scalar(statement, values))


def _stored(table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if column.computed is None]


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return _utc(value).isoformat(timespec="microseconds") if isinstance(value, datetime) else value


def _from_json(column: Column[Any], value: Any, dialect: str) -> Any:
    if isinstance(column.type, LargeBinary):
        return base64.b64decode(value)
    if value is None or not isinstance(column.type, DateTime):
        return value
    moment = datetime.fromisoformat(value)
    return moment if dialect == "postgresql" else moment.replace(tzinfo=None)


def _utc(moment: datetime) -> datetime:
    """SQLite keeps UTC without saying so."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _canonical(value: Any) -> Any:
    """Numbers as every database gives them back: JSONB keeps 1e5 as 100000, and 1.0 may be 1."""
    match value:
        case bool():
            return value
        case float() if value.is_integer() and abs(value) <= _EXACT:
            return int(value)
        case int() if abs(value) > _EXACT:
            return float(value)
        case dict():
            return {key: _canonical(item) for key, item in value.items()}
        case list():
            return [_canonical(item) for item in value]
    return value
