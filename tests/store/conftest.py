"""Every test of the store runs on a fresh SQLite file and on a fresh PostgreSQL database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.postgresql import PostgresqlServer
from tests.store.inventory import Inventory
from virtmgr.store import migrate
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql: PostgresqlServer) -> str:
    name = postgresql.create_database()
    migrate.upgrade(postgresql.url(name))
    return name


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a schema."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'virtmgr.db'}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with the newest schema and no rows."""
    if backend == "sqlite":
        path = tmp_path / "virtmgr.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    name = server.create_database(request.getfixturevalue("postgresql_template"))
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def units(url: str) -> Iterator[SqlUnitOfWorkFactory]:
    factory = SqlUnitOfWorkFactory(make_engine(url))
    yield factory
    factory.close()


@pytest.fixture
def inventory(units: SqlUnitOfWorkFactory) -> Inventory:
    """A project with a quota, a cluster with a host, a network and an image."""
    made = Inventory()
    with units() as uow:
        made.save(uow)
        uow.commit()
    return made
