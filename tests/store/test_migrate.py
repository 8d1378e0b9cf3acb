"""Migrations: up, down and up again, the same schema as ``tables.py``, and by several at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from tests.fixtures.postgresql import PostgresqlServer
from virtmgr.config.resources import resource_path
from virtmgr.domain.errors import InvalidRequest, Unavailable
from virtmgr.store import migrate, trigrams
from virtmgr.store.engine import make_engine, make_migration_engine
from virtmgr.store.tables import metadata, workloads
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


def _tables(url: str) -> set[str]:
    with migrate.locked(make_migration_engine(url)) as connection:
        return set(inspect(connection).get_table_names())


def test_up_down_up(empty_url: str) -> None:
    assert migrate.current_revision(empty_url) is None
    assert migrate.pending_changes(empty_url)
    migrate.upgrade(empty_url)
    assert migrate.current_revision(empty_url) == migrate.head_revision()
    assert migrate.pending_changes(empty_url) == []
    assert _tables(empty_url) >= set(metadata.tables)
    migrate.downgrade(empty_url, "base")
    assert migrate.current_revision(empty_url) is None
    assert _tables(empty_url) == {"alembic_version"}
    migrate.upgrade(empty_url)
    migrate.upgrade(empty_url)
    assert migrate.pending_changes(empty_url) == []


def test_constraints_are_in_the_database_by_their_names(url: str) -> None:
    """Alembic does not compare check constraints; this does."""
    expected = {
        constraint.name
        for table in metadata.tables.values()
        for constraint in table.constraints
        if constraint.name
    }
    with migrate.locked(make_migration_engine(url)) as connection:
        inspector = inspect(connection)
        found: set[str | None] = set()
        if connection.dialect.name == "sqlite":
            expected.discard("pk_events")  # AUTOINCREMENT allows the constraint no name
        for table in metadata.tables:
            found.add(inspector.get_pk_constraint(table)["name"])
            for kind in ("unique_constraints", "check_constraints", "foreign_keys"):
                found |= {c["name"] for c in getattr(inspector, f"get_{kind}")(table)}
    assert found - {None} == expected


def test_upgrades_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate.upgrade, [empty_url] * 4))
    assert migrate.pending_changes(empty_url) == []


def test_alembic_command_line(empty_url: str) -> None:
    root = resource_path("alembic.ini").parent
    environment = {**os.environ, "VIRTMGR_DATABASE_URL": empty_url, "PYTHONPATH": str(root)}
    for arguments in (("upgrade", "head"), ("check",), ("downgrade", "base")):
        subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=root,
            env=environment,
            check=True,
            capture_output=True,
            timeout=60,
        )
    assert _tables(empty_url) == {"alembic_version"}


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x:secret@y/z"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_engine(url)
    assert "secret" not in caught.value.message


def test_the_database_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "virtmgr.db"
    migrate.upgrade(f"sqlite:///{path}")
    units = SqlUnitOfWorkFactory(make_engine(f"sqlite:///{path}"))
    with units() as uow:
        uow.settings.set("a", "b")
        uow.commit()
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    units.close()


@pytest.mark.parametrize(
    "url",
    ["sqlite:////nonexistent/virtmgr.db", "postgresql:///x?host=/nonexistent&user=postgres"],
)
def test_a_database_out_of_reach_is_unavailable(url: str) -> None:
    units = SqlUnitOfWorkFactory(make_engine(url))
    for read_only in (False, True):
        with pytest.raises(Unavailable), units(read_only=read_only):
            pass
    units.close()


def test_migrations_only_expand(tmp_path: Path) -> None:
    """The release before runs on while the database is upgraded: nothing that it reads goes, and
    nothing is asked of its inserts that it does not give (docs/scale-out.md)."""
    url = f"sqlite:///{tmp_path / 'virtmgr.db'}"
    first, *later = reversed(migrate.revisions())
    migrate.upgrade(url, first)
    before = _columns(url)
    for revision in later:
        migrate.upgrade(url, revision)
        after = _columns(url)
        assert before.keys() <= after.keys(), f"{revision} takes something away"
        for name, (type, needed) in after.items():
            old_type, old_needed = before.get(name, (type, False))
            is_new = name[0] in {table for table, _ in before} and name not in before
            assert type == old_type, f"{revision} changes the type of {name}"
            assert not (is_new and needed), f"{revision}: {name} is new, has no default and no NULL"
            assert not (name in before and needed and not old_needed), f"{revision} narrows {name}"
        before = after


def _columns(url: str) -> dict[tuple[str, str], tuple[str, bool]]:
    """By table and name: the type, and whether an insert must give it."""
    with migrate.locked(make_migration_engine(url)) as connection:
        inspector = inspect(connection)
        return {
            (table, column["name"]): (
                str(column["type"]),
                not column["nullable"] and column["default"] is None and "computed" not in column,
            )
            for table in inspector.get_table_names()
            for column in inspector.get_columns(table)
        }


_NAMES_INDEXES = {"ix_workloads_name_trigrams", "ix_volumes_name_trigrams"}


@pytest.mark.postgresql
def test_names_are_indexed_once_that_is_possible(postgresql: PostgresqlServer) -> None:
    """Who may not extend the database gets the rest of the schema, and the indexes later."""
    name = postgresql.create_database()
    admin = make_migration_engine(postgresql.url(name))
    user = f"user_{name}"
    url = postgresql.url(name).replace("user=postgres", f"user={user}")
    try:
        with admin.begin() as connection:
            connection.execute(text(f"CREATE USER {user}"))
            connection.execute(text(f"GRANT ALL ON SCHEMA public TO {user}"))
        with capture_logs() as logged:
            migrate.upgrade(url)
        assert [line["log_level"] for line in logged] == ["warning"]
        assert "contrib" in logged[0]["hint"]
        assert migrate.pending_changes(url) == []
        assert not _NAMES_INDEXES & _indexes(url)
        with admin.begin() as connection:  # not in a schema that is searched, either
            connection.execute(text("CREATE SCHEMA apart"))
            connection.execute(text("CREATE EXTENSION pg_trgm SCHEMA apart"))
        with capture_logs() as logged:
            migrate.upgrade(url)
        assert "apart" in logged[0]["reason"]
        with admin.begin() as connection:
            connection.execute(text(f"GRANT USAGE ON SCHEMA apart TO {user}"))
        assert {change[0] for change in migrate.pending_changes(url)} == {"add_index"}
        with capture_logs() as logged:
            migrate.upgrade(url)
        assert logged == []
        assert migrate.pending_changes(url) == []
        assert _indexes(url) >= _NAMES_INDEXES
        migrate.downgrade(url, "0019")
        assert not _NAMES_INDEXES & _indexes(url)
    finally:
        postgresql.drop_database(name)
        with make_migration_engine(postgresql.url("postgres")).begin() as connection:
            connection.execute(text(f"DROP USER IF EXISTS {user}"))


@pytest.mark.postgresql
def test_text_in_names_is_looked_up_in_the_index(postgresql: PostgresqlServer) -> None:
    """What the planner can do, where it may not read the table from end to end."""
    name = postgresql.create_database()
    url = postgresql.url(name)
    migrate.upgrade(url)
    engine = make_engine(url)
    try:
        with Session(engine) as session:
            session.execute(text("SET LOCAL enable_seqscan = off"))
            session.execute(text("SET LOCAL enable_indexscan = off"))
            for part, is_looked_up in (("web", True), ("zz", True), ("1-", False), ("z", False)):
                found = trigrams.contains(session, workloads.c.name, part)
                query = (
                    select(workloads.c.id)
                    .where(found)
                    .compile(engine, compile_kwargs={"literal_binds": True})
                )
                plan = session.execute(text(f"EXPLAIN {query}".replace(":", "\\:"))).scalars()
                assert ("ix_workloads_name_trigrams" in "".join(plan)) == is_looked_up, part
    finally:
        engine.dispose()
        postgresql.drop_database(name)


def _indexes(url: str) -> set[str | None]:
    with migrate.locked(make_migration_engine(url)) as connection:
        inspector = inspect(connection)
        names = inspector.get_table_names()
        return {index["name"] for table in names for index in inspector.get_indexes(table)}
