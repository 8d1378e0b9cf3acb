"""An installation followed in the console: what it writes, how it ends, and why it failed."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.api.conftest import StillClock
from tests.api.contract import Api
from tests.fixtures.control_plane import add_hosts
from virtmgr.console.app import create_console
from virtmgr.domain.host import HostAccess, HostState
from virtmgr.domain.ids import new_id
from virtmgr.domain.installation import TaskFailed, explain
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.services.container import Services


@pytest.fixture
def page(app: Flask, api: Api) -> Page:
    return Page(create_console(app.wsgi_app).test_client(use_cookies=False), str(api.token))


class Page:
    """The console as the administrator, without a browser."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self._client = client
        self._cookie = {"Cookie": f"__Host-virtmgr-session=x~{token}"}

    def read(self, path: str) -> str:
        response = self._client.get(path, headers=self._cookie)
        assert response.status_code == 200, response.get_data(as_text=True)
        return response.get_data(as_text=True)


@pytest.fixture
def operation(services: Services, clock: StillClock) -> str:
    """An installation that a worker has in hand."""
    now = clock.now()
    with services.units() as uow:
        add_hosts(uow, 1)
        host = uow.hosts.find("host1")
        assert host is not None
        made = Operation(
            id=new_id(),
            verb="enroll",
            target_type="host",
            target_id=host.id,
            target_name=host.name,
            project_id=None,
            user_id=None,
            state=OperationState.RUNNING,
            progress=0.25,
            message="packages: install them",
            owner="worker",
            lease_expires_at=now + timedelta(hours=1),
            created_at=now,
            updated_at=now,
        )
        uow.operations.add(made)
        uow.operation_log.append(made.id, now, ["packages: install <them>", "  changed"])
        uow.commit()
    return made.id


def test_what_it_writes_is_followed_line_by_line(
    page: Page, operation: str, services: Services, clock: StillClock
) -> None:
    whole = page.read(f"/hosts/installations/{operation}")
    assert "packages: install &lt;them&gt;" in whole
    assert 'class="log-changed"' in whole
    more = re.search(r'hx-get="(/hosts/installations/[^"]*/log\?after=\d+)"', whole)
    assert more is not None
    with services.units() as uow:
        uow.operation_log.append(operation, clock.now(), ["agent: start it"])
        uow.commit()
    rest = page.read(more[1])
    assert "agent: start it" in rest
    assert "packages" not in rest
    assert f"/hosts/installations/{operation}/log?after=" in rest  # it goes on


def test_its_failure_is_explained_with_a_way_to_go_on(
    page: Page, operation: str, services: Services, clock: StillClock
) -> None:
    assert "every 2s" in page.read(f"/hosts/installations/{operation}/state")
    with services.units() as uow:
        found = uow.operations.get(operation)
        assert found is not None
        found.state, found.finished_at = OperationState.FAILED, clock.now()
        found.error = {"code": "task_failed", "detail": "no space is left", "hint": "make room"}
        uow.operation_log.append(operation, clock.now(), ["  failed: no space is left"])
        uow.commit()
    state = page.read(f"/hosts/installations/{operation}/state")
    assert "No space is left" in state
    assert "Make room" in state
    assert 'href="/hosts/host1/again/retry"' in state
    assert "every" not in state  # nothing more is asked for
    whole = page.read(f"/hosts/installations/{operation}")
    assert 'class="log-bad">  failed: no space is left' in whole
    assert "/log?after=" not in whole


def _fails(
    services: Services, clock: StillClock, operation: str, failed: TaskFailed, host: str = "host1"
) -> None:
    why = explain(failed, host)
    problem = {"code": why.code, "detail": why.message, "hint": why.hint, **why.detail}
    with services.units() as uow:
        found, row = uow.operations.get(operation), uow.hosts.find(host)
        assert found is not None
        assert row is not None
        found.state, found.finished_at, found.error = OperationState.FAILED, clock.now(), problem
        row.state = HostState.INSTALL_FAILED
        uow.commit()


def test_each_finding_stands_on_its_own_line(
    page: Page, operation: str, services: Services, clock: StillClock
) -> None:
    memory = {"severity": "error", "what": "memory", "message": "too little", "hint": "add some"}
    kvm = {"severity": "warning", "what": "kvm", "message": "no /dev/kvm", "hint": "switch it on"}
    _fails(services, clock, operation, TaskFailed("Look", "preflight", findings=(memory, kvm)))
    told = page.read(f"/hosts/installations/{operation}")
    assert "<li><b>memory</b>: too little<div>Add some.</div></li>" in told
    assert "<li><b>kvm</b> (warning): no /dev/kvm<div>Switch it on.</div></li>" in told
    assert "Installation of host1" in told


def test_a_failed_host_says_why_and_what_its_retry_takes(
    page: Page, operation: str, services: Services, clock: StillClock
) -> None:
    _fails(services, clock, operation, TaskFailed("Facts", message="Missing sudo password"))
    shown = page.read("/hosts/host1")
    assert "sudo wants a password" in shown
    assert f'href="/hosts/installations/{operation}"' in shown
    assert "comes back as" not in shown
    retry = page.read("/hosts/host1/again/retry")
    assert "sudo wants a password" in retry
    assert "--ask-become-password" not in retry  # which is the command line's
    assert "virtmgr has never logged in to host host1: say how to log in" in retry
    access = HostAccess(host_id=_host_id(services), address="10.0.0.1", user="root", host_key="k")
    with services.units() as uow:
        uow.host_access.add(access)
        uow.commit()
    assert "used once and forgotten: give them again" in page.read("/hosts/host1/again/retry")
    with services.units() as uow:
        kept = uow.host_access.get(access.host_id)
        assert kept is not None
        kept.sealed, kept.kept = "sealed", True
        uow.commit()
    assert "nothing needs to be filled in" in page.read("/hosts/host1/again/retry")


def _host_id(services: Services) -> str:
    with services.units(read_only=True) as uow:
        host = uow.hosts.find("host1")
        assert host is not None
        return host.id


def test_several_are_followed_together(page: Page, operation: str) -> None:
    path = f"/hosts/installations?operation={operation}&operation={operation}"
    assert page.read(path).count("begun") == 2
