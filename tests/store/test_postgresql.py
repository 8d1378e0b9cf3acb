"""The pool of connections to PostgreSQL, and what is read by them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from tests.fixtures.postgresql import PostgresqlServer
from virtmgr.domain.ids import new_id
from virtmgr.store.engine import make_engine, make_migration_engine, make_snapshot_engine

pytestmark = pytest.mark.postgresql


@pytest.fixture
def url(postgresql: PostgresqlServer, postgresql_template: str) -> Iterator[str]:
    name = postgresql.create_database(postgresql_template)
    yield postgresql.url(name)
    postgresql.drop_database(name)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = make_engine(url)
    yield engine
    engine.dispose()


def _server_process(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def test_a_connection_that_the_server_ended_is_not_given_out(url: str, engine: Engine) -> None:
    first = _server_process(engine)
    assert _server_process(engine) == first
    other = make_migration_engine(url)
    with other.connect() as connection:
        ended = text("SELECT pg_terminate_backend(:process, 60000)")
        assert connection.scalar(ended, {"process": first})
    other.dispose()
    assert _server_process(engine) != first


def test_a_connection_that_was_just_had_is_not_asked(engine: Engine) -> None:
    asked = []
    do_ping = type(engine.dialect).do_ping

    def note(dialect: object, connection: object) -> bool:
        asked.append(connection)
        return do_ping(dialect, connection)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine.dialect), "do_ping", note)
        fresh = make_engine(engine.url.render_as_string(hide_password=False))
        for _ in range(5):
            _server_process(fresh)
        fresh.dispose()
    assert len(asked) <= 1


def test_columns_are_described(engine: Engine) -> None:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT 1 AS one, 'x' AS two WHERE false"))
        assert list(rows.keys()) == ["one", "two"]
        assert rows.all() == []
        row = connection.execute(text("SELECT 1 AS one, 'x' AS two")).one()
        assert row._asdict() == {"one": 1, "two": "x"}
        assert not connection.execute(text("SET LOCAL lock_timeout = '1s'")).returns_rows


def test_every_engine_reads_ids_as_text(url: str) -> None:
    id = new_id()
    for make in (make_engine, make_migration_engine, make_snapshot_engine):
        engine = make(url)
        with engine.connect() as connection:
            found = connection.scalar(text("SELECT CAST(:id AS uuid)"), {"id": id})
            assert found == id
        engine.dispose()
