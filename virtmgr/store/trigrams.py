"""Text in names, found by an index of trigrams: PostgreSQL's extension ``pg_trgm``.

The extension is "trusted": who owns the database may make it. Where it is not installed or not
allowed there is no such index, and the names are read one by one, as on SQLite.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Index,
    MetaData,
    Select,
    String,
    Table,
    bindparam,
    func,
    or_,
    select,
)
from sqlalchemy import text as sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from virtmgr.store import tables

_SCHEMA = sql(
    "SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace "
    "WHERE extname = 'pg_trgm'"
)
_MAKE = sql("CREATE EXTENSION pg_trgm")
# Not allowed; kept from users by a service, or not installed (newer servers); not installed.
_REFUSED: Final = frozenset({"42501", "0A000", "58P01"})

# What the extension makes trigrams of, in a text with more on both sides: three letters, or the
# edge of a word, which counts as two blanks before it and as one behind it.
_HAS_TRIGRAM: Final = re.compile("[a-z0-9]{3}|[^a-z0-9][a-z0-9]|[a-z0-9]{2}[^a-z0-9]")
_TWO_LETTERS: Final = re.compile("[a-z0-9]{2}")
_NEXT_LETTER: Final = "[a-z0-9-]"  # what a name that is indexed goes on with


def index_names(connection: Connection, names_of: Iterable[str]) -> str | None:
    """Index the names of these tables, those that are not yet, where the database lets us.

    :returns: why it does not; None: they are indexed, or the database knows no such index.
    """
    if connection.dialect.name != "postgresql":
        return None
    lacking = [table for table in names_of if not connection.scalar(_is_there(), _called(table))]
    if not lacking:
        return None
    try:
        with connection.begin_nested():
            _make(connection, lacking)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _REFUSED:
            raise
        return str(error.orig).strip()
    return None


def has_extension(connection: Connection) -> bool:
    """Whether the database has it."""
    return connection.dialect.name == "postgresql" and connection.scalar(_SCHEMA) is not None


def contains(session: Session, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Rows whose column has this text in it.

    Where the column is indexed, PostgreSQL plans what is left of the transaction for the values
    that it is given: one plan for any text would read all names for what is in none, or sort all
    rows for what is in each.

    :param text: without capital letters, as the column.
    """
    plain = column.contains(text, autoescape=True)
    if not _may_be_indexed(column) or session.get_bind().dialect.name != "postgresql":
        return plain
    is_indexed = session.scalar(_planned_by_values(), _called(column.table.name))
    if not is_indexed or _HAS_TRIGRAM.search(text):
        return plain
    if _TWO_LETTERS.fullmatch(text):  # at the end, or the begin of one of a few dozen trigrams
        return or_(column.endswith(text), column.regexp_match(text + _NEXT_LETTER))
    return func.strpos(column, text) > 0  # for LIKE the planner would read all of the index first


def _make(connection: Connection, names_of: Iterable[str]) -> None:
    if not has_extension(connection):
        connection.execute(_MAKE)
    schema = connection.dialect.identifier_preparer.quote(str(connection.scalar(_SCHEMA)))
    for table in names_of:
        _index(table, f"{schema}.gin_trgm_ops").create(connection)


def _index(table: str, operators: str) -> Index:
    index = tables.trigrams_of_names(table, operators)
    Table(table, MetaData(), Column("name", String), index)
    return index


def _may_be_indexed(column: ColumnElement[str]) -> bool:
    return isinstance(column, Column) and any(
        tables.EXTENSION in index.info and column.name in index.columns
        for index in column.table.indexes
    )


def _called(table: str) -> dict[str, str]:
    return {"index": str(tables.trigrams_of_names(table).name)}


@cache
def _is_there() -> Select[bool]:
    return select(func.to_regclass(bindparam("index", type_=String())).is_not(None))


@cache
def _planned_by_values() -> Select[Any]:
    """Whether an index is there; and from now on plans are made for values."""
    return _is_there().add_columns(func.set_config("plan_cache_mode", "force_custom_plan", True))
