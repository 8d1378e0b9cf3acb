"""The REST API over a real database, with an administrator and the objects that init makes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.api.contract import Api, Contract
from virtmgr.api.app import create_app
from virtmgr.domain.ids import new_id
from virtmgr.domain.project import Role
from virtmgr.domain.ssh import HostKey
from virtmgr.enrollment.authority import CertificateAuthority
from virtmgr.enrollment.vault import KeyFileVault
from virtmgr.images.blobs import BlobStore
from virtmgr.ports.clock import Clock
from virtmgr.services import auth
from virtmgr.services.container import Services
from virtmgr.store import migrate
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

SSH_KEY = HostKey(
    "ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIAz1HAgd/rWl0RvJrrkYYTjXQPWagEbaJcVao1jKi1v7"
)
"""What every ssh server shows."""


class StillClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def now(self) -> datetime:
        return self.time

    def advance(self, **delta: float) -> None:
        self.time += timedelta(**delta)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "template.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@contextmanager
def open_services(empty_database: Path, directory: Path, clock: Clock) -> Iterator[Services]:
    """The control plane's parts over a fresh database in ``directory``."""
    path = directory / "virtmgr.db"
    shutil.copy(empty_database, path)
    units = SqlUnitOfWorkFactory(make_engine(f"sqlite:///{path}"))
    authority = CertificateAuthority(directory / "pki")
    authority.create()
    yield Services(
        units=units,
        blobs=BlobStore(directory / "images"),
        clock=clock,
        vault=KeyFileVault(directory / "credentials.key"),
        scan_keys=lambda _address, _port: (SSH_KEY,),
        authority=authority,
    )
    units.close()


@pytest.fixture
def services(empty_database: Path, tmp_path: Path, clock: StillClock) -> Iterator[Services]:
    with open_services(empty_database, tmp_path, clock) as services:
        yield services


@pytest.fixture
def app(services: Services) -> Flask:
    return create_app(services)


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The OpenAPI document, which is the same for every application."""
    nothing: Any = None
    app = create_app(Services(units=nothing, blobs=nothing))
    return Contract(app.test_client().get("/api/v1/openapi.json").get_json())


def initialise(app: Flask, services: Services, contract: Contract) -> Api:
    """The API as the first administrator."""
    with services.units() as uow:
        secret = auth.initialise(uow, services.clock)
        uow.commit()
    assert secret is not None
    return Api(app, secret, contract)


@pytest.fixture
def api(app: Flask, services: Services, contract: Contract) -> Api:
    """The API as the first administrator."""
    return initialise(app, services, contract)


@pytest.fixture
def anonymous(api: Api) -> Api:
    return api.as_token(None)


def as_new_user(api: Api, role: Role | str | None, project: str | None = None) -> Api:
    """The API as a new user with a role in a project, or everywhere."""
    name = "user-" + new_id()[-12:]
    assert api.post("/users", {"name": name}).status == 201
    if role is not None:
        body = {"user": name, "role": str(role), "project": project}
        assert api.post("/role-bindings", body).status == 201
    made = api.post("/tokens", {"name": "test", "user": name})
    assert made.status == 201
    return api.as_token(made.body["token"])


@pytest.fixture
def as_role(api: Api) -> Callable[..., Api]:
    return partial(as_new_user, api)
