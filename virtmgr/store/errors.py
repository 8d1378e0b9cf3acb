"""Turns what a database refuses into the domain's errors, in one place for both databases.

Hooked into the engine, so that a flush, a query and a commit all speak the same language. After
any of these errors the unit of work is over: PostgreSQL runs no further statement in it.
"""

from __future__ import annotations

import sqlite3
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from sqlalchemy import Engine, Table, UniqueConstraint, event
from sqlalchemy.engine import ExceptionContext

from virtmgr.domain.errors import Conflict, InvalidRequest, NameTaken, Unavailable, VirtmgrError
from virtmgr.store import tables

if TYPE_CHECKING:
    import psycopg

_FIELDS = {"position": "index", "secret_hash": "secret"}


@dataclass(frozen=True)
class Unique:
    """A unique constraint, as an error message names it."""

    table: Table
    columns: tuple[str, ...]

    @property
    def field(self) -> str:
        """The column that makes it unique, scopes such as project and network left out."""
        own = [name for name in self.columns if not name.endswith("_id")] or self.columns
        return _FIELDS.get(own[-1], own[-1])


def noun(table: Table) -> str:
    """What one row of the table is called in a message."""
    return _singular(table.name).replace("_", " ")


def _singular(name: str) -> str:
    return name.removesuffix("es") if name.endswith("sses") else name.removesuffix("s")


def _uniques() -> dict[str, Unique]:
    """By PostgreSQL's constraint name, and by SQLite's list of ``table.column``."""
    found: dict[str, Unique] = {}
    for table in tables.metadata.tables.values():
        groups = [(table.primary_key.name, tuple(c.name for c in table.primary_key))]
        groups += [
            (constraint.name, tuple(column.name for column in constraint.columns))
            for constraint in table.constraints
            if isinstance(constraint, UniqueConstraint)
        ]
        groups += [
            (index.name, tuple(column.name for column in index.columns))
            for index in table.indexes
            if index.unique
        ]
        for name, columns in groups:
            by_columns = ", ".join(f"{table.name}.{column}" for column in columns)
            found[str(name)] = found[by_columns] = Unique(table, columns)
    return found


_UNIQUES = _uniques()


def translate_errors(engine: Engine) -> None:
    """Make ``engine`` raise the domain's errors for what its database refuses."""
    event.listen(engine, "handle_error", _translate)


def _translate(context: ExceptionContext) -> None:
    if not context.is_pre_ping:
        raise_translated(context.original_exception)


def raise_translated(error: BaseException) -> None:
    """Raise the domain's error for what a driver says of its database, if there is one."""
    if isinstance(error, sqlite3.Error):
        translated = _from_sqlite(error)
    elif _is_postgresql(error):
        translated = _from_postgresql(error)
    elif isinstance(error, OverflowError):
        translated = _not_storable(error)
    else:
        return
    if translated is not None:
        raise translated from error


def _from_sqlite(error: sqlite3.Error) -> VirtmgrError | None:
    kind, _, what = str(error).partition(" constraint failed")
    what = what.removeprefix(": ")
    match kind:
        case "UNIQUE":
            return _taken(what)
        case "FOREIGN KEY":
            return _reference_broken(None)
        case "CHECK":
            return _rule_broken(what)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return _unavailable(error) if code in _SQLITE_UNAVAILABLE else None


_SQLITE_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
}


def _is_postgresql(error: object) -> TypeGuard[psycopg.Error]:
    """Asked without loading psycopg, which SQLite does without."""
    loaded = sys.modules.get("psycopg")
    return loaded is not None and isinstance(error, loaded.Error)


def _from_postgresql(error: psycopg.Error) -> VirtmgrError | None:
    import psycopg
    from psycopg import errors as postgresql

    try_again = (
        postgresql.DeadlockDetected,
        postgresql.SerializationFailure,
        postgresql.LockNotAvailable,
    )
    constraint = error.diag.constraint_name or ""
    if isinstance(error, postgresql.UniqueViolation):
        return _taken(constraint)
    if isinstance(error, postgresql.ForeignKeyViolation):
        return _reference_broken(error.diag.message_detail)
    if isinstance(error, postgresql.CheckViolation):
        return _rule_broken(constraint)
    if isinstance(error, try_again):
        return Unavailable(
            f"change the inventory: another change was in the way ({error.diag.message_primary})",
            code="database_busy",
            hint="try again",
        )
    if isinstance(error, psycopg.DataError):
        return _not_storable(error)
    if isinstance(error, postgresql.ReadOnlySqlTransaction):  # it has become a standby
        return _unavailable(error)
    gone = (psycopg.OperationalError, psycopg.InterfaceError)
    return _unavailable(error) if isinstance(error, gone) else None


def _taken(constraint: str) -> NameTaken:
    unique = _UNIQUES.get(constraint)
    if unique is None:
        return NameTaken(f"save a row: {constraint} is taken")
    return taken(unique.table, unique.field)


def taken(table: Table, field: str, value: object = None) -> NameTaken:
    """The error for a value of ``field`` that another row of ``table`` has already."""
    shown = "" if value is None or field == "secret" else f" {value!r}"
    scope = {"address": " in this network", "index": " in this workload"}.get(field, "")
    if field == "name" and "project_id" in table.c:
        scope = " in this project"
    return NameTaken(
        f"save the {noun(table)}: its {field}{shown} is taken{scope}",
        code="name_taken" if field in ("name", "aliases") else f"{field}_taken",
        field=field,
        hint=f"choose another {field}, or change the {noun(table)} that has it",
    )


def _reference_broken(detail: str | None) -> Conflict:
    return Conflict(
        "save the change: something that it refers to is gone, or something else refers to what "
        "it removes" + (f" ({detail})" if detail else ""),
        code="reference_broken",
        hint="look at both again, then repeat the request",
    )


def _rule_broken(constraint: str) -> InvalidRequest:
    return InvalidRequest(
        f"save the change: it breaks the inventory's rule {constraint}",
        code="rule_broken",
        hint="a value is out of its range; correct it",
    )


def _not_storable(error: Exception) -> InvalidRequest:
    return InvalidRequest(
        f"use a value in the database: {str(error).strip()}",
        hint="a text must not hold NUL, and a number must fit into 64 bits",
    )


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        f"use the database: {str(error).strip()}",
        code="database_unavailable",
        hint="check that the database runs, can be reached, and has free disk space",
    )
