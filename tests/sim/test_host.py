"""A simulated host does what it is asked, by the real protocol, against the real services."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.domain.sync import SyncRequest, SyncResponse
from virtmgr.services.container import Services
from virtmgr.services.sync import sync
from virtmgr.sim.behaviour import Behaviour
from virtmgr.sim.host import SimulatedHost
from virtmgr.sim.identities import SimulatedIdentity

_SPEC = {"kind": "container", "image": "busybox", "name": "web1"}
_WORKLOAD = "/projects/default/workloads/web1"


class Driven:
    """A host whose time is moved by hand; its requests and answers go through JSON, as they do."""

    def __init__(self, services: Services, host_id: str, behaviour: Behaviour) -> None:
        self.host = SimulatedHost(SimulatedIdentity(0, host_id, "sim00001"), behaviour, ())
        self._services, self._id = services, host_id
        self._now, self._clock = datetime.now(UTC), 0.0
        self.host.boot(self._now)

    def live(self, seconds: float) -> None:
        """Let time pass and sync, in small steps."""
        for _ in range(int(seconds)):
            self._now += timedelta(seconds=1)
            self._clock += 1
            self.host.guests.advance(self._now)
            sent = self.host.request(self._now, self._clock)
            text = sent.request.model_dump_json(exclude_unset=True)
            answer = sync(self._services, self._id, SyncRequest.model_validate_json(text))
            said = SyncResponse.model_validate_json(answer.model_dump_json(exclude_unset=True))
            self.host.answered(sent, said, self._now, self._clock)


@pytest.fixture
def drive(services: Services) -> Callable[..., Driven]:
    """A simulated host in the place of a pretended one, which is the same machine."""

    def made(**behaviour: float) -> Driven:
        host = PretendHost(services)
        with services.units() as uow:
            row = uow.hosts.lock(host.id)
            assert row is not None
            row.facts, row.machine_id = {}, None
            uow.commit()
        return Driven(services, host.id, Behaviour(**behaviour))  # type: ignore[arg-type]

    return made


def test_a_workload_lives_and_is_removed(api: Api, drive: Callable[..., Driven]) -> None:
    driven = drive(pace=0.1)
    driven.live(2)
    (host,) = api.get("/hosts").body["items"]
    assert host["state"] == "ready"
    assert "simulated" in host["facts"]["os"]
    api.post("/projects/default/workloads", _SPEC)
    driven.live(30)
    shown = api.get(_WORKLOAD).body
    assert shown["status"]["state"] == "running"
    assert shown["status"]["usage"]["memory"] > 0
    api.post(f"{_WORKLOAD}/stop", {})
    driven.live(20)
    assert api.get(_WORKLOAD).body["status"]["state"] == "stopped"
    api.delete(_WORKLOAD)
    driven.live(20)
    assert api.get(_WORKLOAD).status == 404
    assert len(driven.host.guests) == 0


def test_steps_fail_as_often_as_they_are_asked_to(api: Api, drive: Callable[..., Driven]) -> None:
    driven = drive(pace=0.1, failing=1.0)
    driven.live(2)
    api.post("/projects/default/workloads", _SPEC)
    driven.live(60)
    status = api.get(_WORKLOAD).body["status"]
    assert status["state"] == "failed"
    assert status["reason"]["code"] == "simulated_failure"


def test_a_host_that_loses_its_power_boots_and_runs_again(
    api: Api, drive: Callable[..., Driven]
) -> None:
    driven = drive(pace=0.1)
    driven.live(2)
    api.post("/projects/default/workloads", _SPEC)
    driven.live(30)
    driven.host.boot(datetime.now(UTC) + timedelta(minutes=1))
    driven.live(90)
    assert api.get(_WORKLOAD).body["status"]["state"] == "running"
    types = [event["type"] for event in api.get("/events", limit=200).body["items"]]
    assert "host.rebooted" in types
