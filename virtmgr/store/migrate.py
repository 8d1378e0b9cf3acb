"""Schema migrations: up to date, down again, and whether code and database agree.

One transaction each, under a lock: several processes may start at once and upgrade.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.types import TypeDecorator

from virtmgr.config.resources import resource_path
from virtmgr.domain.errors import Unavailable
from virtmgr.store import trigrams
from virtmgr.store.engine import make_migration_engine, shown
from virtmgr.store.tables import EXTENSION, ONLY_ON, metadata

_log = structlog.get_logger(__name__)

_LOCK = 0x76697274_6D696772  # "virtmigr"


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema to ``revision``; nothing happens where it is there already.

    :raises Unavailable: the database cannot be opened.
    """
    with _opened(url) as connection:
        if revision == "head":
            raise_to_newest(connection)
        else:
            command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to ``revision`` (``base``: to nothing). Data of what goes is lost."""
    with locked(make_migration_engine(url)) as connection:
        command.downgrade(_config(connection), revision)


def current_revision(url: str) -> str | None:
    """The revision that the database is at; None: it is empty.

    :raises Unavailable: the database cannot be opened.
    """
    with _opened(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str:
    """The newest revision that this virtmgr knows."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None))


def revisions() -> list[str]:
    """Every revision that this virtmgr knows, the newest first."""
    return [script.revision for script in _scripts().walk_revisions()]


def remake(connection: Connection, revision: str) -> None:
    """Take away whatever is there, and make the schema of ``revision``, in one transaction.

    :raises Unavailable: what is there is of a newer virtmgr.
    """
    present = MigrationContext.configure(connection).get_current_revision()
    if present is not None and present not in revisions():
        raise Unavailable(
            f"replace the database: its schema {present} is of a newer virtmgr",
            code="schema_mismatch",
            hint="use that virtmgr, or make a new database",
        )
    if present is not None:
        command.downgrade(_config(connection), "base")
    command.upgrade(_config(connection), revision)


def raise_to_newest(connection: Connection) -> None:
    """The rest of the migrations, and indexes that the database could not have before."""
    command.upgrade(_config(connection), "head")
    searched = [
        table.name
        for table in metadata.sorted_tables
        if any(EXTENSION in index.info for index in table.indexes)
    ]
    if reason := trigrams.index_names(connection, searched):
        _log.warning(
            "names.not_indexed",
            reason=reason,
            hint="install PostgreSQL's contrib modules, or let an administrator of the database "
            "run CREATE EXTENSION pg_trgm in it; then run 'virtmgr db upgrade' again",
        )


def pending_changes(url: str) -> list[Any]:
    """Differences between the database's schema and ``tables.py``; empty when they agree."""
    with locked(make_migration_engine(url)) as connection:
        context = MigrationContext.configure(connection, opts=compare_options(connection))
        return list(compare_metadata(context, metadata))


@contextmanager
def _opened(url: str) -> Iterator[Connection]:
    """The same as ``locked``, for whoever only knows the URL and not whether anything is there."""
    try:
        with locked(make_migration_engine(url)) as connection:
            yield connection
    except (OSError, sqlite3.Error, OperationalError) as error:
        reason = getattr(error, "orig", None) or getattr(error, "strerror", None) or error
        raise Unavailable(
            f"open the database {shown(make_url(url))}: {reason}",
            code="database_unreachable",
            hint="is it there and may this user write to it? 'virtmgr init' makes a new one; "
            "--data-directory, --database or --database-file say where",
        ) from error


@contextmanager
def locked(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that no other migration runs beside."""
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection
    finally:
        engine.dispose()


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(resource_path("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def compare_options(connection: Connection) -> dict[str, Any]:
    """How Alembic compares and renders on this connection's database."""
    dialect = connection.dialect.name
    is_extended = trigrams.has_extension(connection)

    def concerns(item: Any, _name: Any, kind: str, _reflected: bool, _compared_to: Any) -> bool:
        """Leave out indexes that only the other database has, or one that is extended."""
        if kind != "index":
            return True
        possible = is_extended or EXTENSION not in item.info
        return possible and item.info.get(ONLY_ON, dialect) == dialect

    return {
        "target_metadata": metadata,
        "compare_type": True,
        "include_object": concerns,
        "render_item": _render,
    }


def _render(kind: str, item: Any, _context: AutogenContext) -> str | bool:
    """Write our own column types into migrations as what they are in the database.

    A migration must not change when the code does.
    """
    if kind != "type" or not isinstance(item, TypeDecorator):
        return False
    name = type(item).__name__
    if name in ("Document", "Model"):
        return "sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')"
    if name == "UtcDateTime":
        return "sa.DateTime(timezone=True)"
    return f"sa.{item.impl_instance!r}"
