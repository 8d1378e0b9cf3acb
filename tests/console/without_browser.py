"""The console over the API itself: what it shows and asks, without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.api.conftest import initialise, open_services
from tests.api.contract import Api, Contract
from virtmgr.api.app import create_app
from virtmgr.console.app import create_console
from virtmgr.console.session import COOKIE
from virtmgr.ports.clock import SystemClock
from virtmgr.services.container import Services
from virtmgr.store import migrate


class Console:
    """The console as the first administrator, as a browser without scripts asks it."""

    def __init__(self, client: FlaskClient, api: Api) -> None:
        self.client = client
        self.api = api
        self.client.set_cookie(COOKIE, f"~{api.token}")

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=headers)

    def post(self, path: str, /, **form: Any) -> TestResponse:
        """As htmx sends it."""
        headers = {"X-CSRF-Token": self._proof(), "HX-Request": "true"}
        return self.client.post(path, data=form, headers=headers)

    def _proof(self) -> str:
        page = self.get("/projects/create").text
        return page.partition('name="csrf_token" value="')[2].partition('"')[0]


@contextmanager
def services_of(directory: Path) -> Iterator[Services]:
    """With a database of their own."""
    empty = directory / "template.db"
    migrate.upgrade(f"sqlite:///{empty}")
    with open_services(empty, directory, SystemClock()) as found:
        yield found


def console_of(services: Services) -> Console:
    """Of a control plane with an administrator, and nothing else."""
    app = create_app(services)
    nothing: Any = None
    contract = Contract(
        create_app(Services(units=nothing, blobs=nothing))
        .test_client()
        .get("/api/v1/openapi.json")
        .get_json()
    )
    api = initialise(app, services, contract)
    return Console(create_console(app).test_client(), api)
