"""The overview: counts, sums, and what needs a person; and lists that count what matches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from tests.api.host import PretendHost
from tests.fixtures.control_plane import add_hosts, add_images
from tests.fixtures.statements import statements
from virtmgr.domain.failover import Failover
from virtmgr.domain.host import Host, HostState, Pool
from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.sync import ObservedFileSystem, SyncRequest
from virtmgr.domain.workload import State
from virtmgr.services.container import Services

GIB = 1024**3


@pytest.fixture
def fleet(services: Services, api: Api) -> list[str]:
    """Two hosts with a workload each, in projects a and b."""
    with services.units() as uow:
        add_images(uow)
        add_hosts(uow, 2)
        uow.commit()
    for project in ("a", "b"):
        api.post("/projects", {"name": project})
        body = {"name": "one", "kind": "container", "init": "app", "image": "busybox"}
        assert api.post(f"/projects/{project}/workloads", body).status == 202
    return ["host1", "host2"]


def _alerts(api: Api) -> dict[str, Any]:
    return {alert["code"]: alert for alert in api.get("/overview").body["alerts"]}


def test_an_installation_without_anything_has_no_alerts(api: Api) -> None:
    body = api.get("/overview").body
    assert (body["hosts"], body["workloads"], body["alerts"]) == ([], [], [])
    assert body["totals"]["capacity"] == {"vcpus": 0.0, "memory": 0, "disk": 0}
    assert [part["cluster"]["name"] for part in body["clusters"]] == ["default"]


def test_sums_are_those_of_the_hosts(api: Api, fleet: list[str]) -> None:
    body = api.get("/overview").body
    hosts = api.get("/hosts").body["items"]
    assert body["hosts"] == [{"state": "ready", "count": len(fleet)}]
    assert body["workloads"] == [
        {"kind": "container", "init": "app", "state": "pending", "count": 2}
    ]
    for sums, of_host in (("capacity", "capacity"), ("claimed", "claimed"), ("free", "free")):
        for resource in ("vcpus", "memory", "disk"):
            expected = sum(host[of_host][resource] for host in hosts)
            assert body["totals"][sums][resource] == pytest.approx(expected)
    assert body["clusters"][0]["totals"] == body["totals"]
    assert body["clusters"][0]["survives"] == api.get("/clusters/default").body["survives"]


def test_each_alert_has_the_filters_of_the_list_that_shows_it(
    api: Api, services: Services, clock: StillClock, fleet: list[str]
) -> None:
    _break_everything(services, clock, fleet)
    api.patch("/clusters/default", {"reserve": 2})
    alerts = _alerts(api)
    assert set(alerts) == {
        "hosts_silent",
        "failovers_waiting",
        "workloads_failed",
        "drains_incomplete",
        "certificates_expire",
        "pools_nearly_full",
        "file_systems_nearly_full",
        "operations_failed",
        "reserve_not_kept",
    }
    severities = [alert["severity"] for alert in alerts.values()]
    assert severities == sorted(severities)
    for alert in alerts.values():
        shown = api.get("/" + alert["noun"], count="true", **alert["filters"]).body
        assert shown["total"] == len(shown["items"]) == alert["count"] == 1, alert
        assert alert["message"]
        assert alert["hint"]
    assert alerts["hosts_silent"]["names"] == [fleet[0]]
    assert alerts["drains_incomplete"]["names"] == [fleet[1]]


def _break_everything(services: Services, clock: StillClock, fleet: list[str]) -> None:
    now = clock.now()
    with services.units() as uow:
        silent, cordoned = (_host(uow.hosts.find(name)) for name in fleet)
        silent.state = HostState.UNREACHABLE
        silent.certificate_expires_at = now + timedelta(days=3)
        silent.fullness, cordoned.fullness = 0.9, 0.5
        cordoned.state = cordoned.scheduling_state = HostState.CORDONED
        cordoned.certificate_expires_at = now + timedelta(days=60)
        for used, name in ((90, "full"), (10, "empty")):
            pool = Pool(
                id=new_id(), host_id=silent.id, name=name, capacity=100, used=used, created_at=now
            )
            uow.pools.add(pool)
        for age, host in ((2, silent), (0, cordoned)):
            at = now - timedelta(days=age)
            uow.operations.add(
                Operation(
                    id=new_id(),
                    verb="drain",
                    target_type="host",
                    target_id=host.id,
                    target_name=host.name,
                    project_id=None,
                    user_id=None,
                    state=OperationState.FAILED,
                    created_at=at,
                    updated_at=at,
                    finished_at=at,
                )
            )
        project = uow.projects.find("a")
        assert project is not None
        workload = uow.workloads.find(project.id, "one")
        assert workload is not None
        workload.status = workload.status.model_copy(update={"state": State.FAILED})
        uow.failovers.add(
            Failover(
                id=new_id(),
                workload_id=workload.id,
                workload_name="one",
                project_id=project.id,
                lost_host_id=silent.id,
                created_at=now,
                updated_at=now,
            )
        )
        uow.commit()


def _host(found: Host | None) -> Host:
    assert found is not None
    return found


def test_a_hosts_own_file_systems_are_told_of(api: Api, services: Services) -> None:
    host = PretendHost(services)

    def told(*observed: ObservedFileSystem) -> bool:
        host.sync(SyncRequest(known_revision=host.known_revision, file_systems=observed))
        return "file_systems_nearly_full" in _alerts(api)

    assert api.get(f"/hosts/{host.id}").body["file_systems"] is None
    full = ObservedFileSystem(path="/", capacity=100, used=90)
    assert told(full, ObservedFileSystem(path="/var", capacity=100, used=10))
    assert [one["path"] for one in api.get(f"/hosts/{host.id}").body["file_systems"]] == [
        "/",
        "/var",
    ]
    host.sync_down()
    assert "file_systems_nearly_full" in _alerts(api), "what is not said is as before"
    assert not told(full.model_copy(update={"used": 84}))
    assert not told()
    assert api.get(f"/hosts/{host.id}").body["file_systems"] == []


@pytest.mark.usefixtures("fleet")
def test_only_projects_that_one_may_see_are_counted(api: Api) -> None:
    api.post("/users", {"name": "v", "password": "a long enough password"})
    api.post("/role-bindings", {"user": "v", "role": "viewer", "project": "a"})
    token = api.post("/login", {"name": "v", "password": "a long enough password"}).body["token"]
    seen = api.as_token(token)
    assert [count["count"] for count in seen.get("/overview").body["workloads"]] == [1]
    assert seen.get("/workloads", count="true").body["total"] == 1


@pytest.mark.usefixtures("fleet")
def test_a_list_tells_how_many_there_are_when_asked(api: Api) -> None:
    page = api.get("/workloads", limit=1).body
    assert (len(page["items"]), page["total"]) == (1, None)
    page = api.get("/workloads", limit=1, count="true", fields="name").body
    assert (len(page["items"]), page["total"]) == (1, 2)
    assert api.get("/workloads", count="true", q="none").body["total"] == 0
    assert api.get("/events", count="true", limit=1).body["total"] > 1


@pytest.mark.usefixtures("fleet")
def test_a_filter_takes_several_values(api: Api) -> None:
    def total(noun: str, *states: str) -> int:
        return int(api.get(f"/{noun}", state=list(states), count="true").body["total"])

    assert total("workloads", "pending", "running") == 2
    assert total("workloads", "running", "failed") == 0
    assert total("hosts", "ready", "cordoned") == 2
    refused = api.get("/hosts", state=["ready", "no"])
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "state.1")
    assert api.get("/operations", since="0001-01-01T00:00:00+10:00").status == 422
    assert api.get("/operations", since="2020-01-01T00:00:00Z").status == 200


@pytest.mark.usefixtures("fleet")
def test_the_number_of_statements_does_not_grow(api: Api, services: Services) -> None:
    few = _statements(api)
    with services.units() as uow:
        add_hosts(uow, 40, prefix="more")
        uow.commit()
    for number in range(30):
        body = {"name": f"w{number}", "kind": "container", "init": "app", "image": "busybox"}
        assert api.post("/projects/a/workloads", body).status == 202
    assert _statements(api) == few


def _statements(api: Api) -> int:
    with statements() as sent:
        assert api.get("/overview").status == 200
    return len(sent)
