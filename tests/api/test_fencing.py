"""Fence devices over the API, and what the worker makes of them."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from tests.api.host import PretendHost, fall_silent
from tests.api.test_failover import ALL, ha
from virtmgr.domain.errors import Unavailable
from virtmgr.domain.fencing import FenceDevice, Transport
from virtmgr.domain.streaming import Channel, StreamRequest
from virtmgr.ports.power import Way
from virtmgr.ports.streams import AgentStream
from virtmgr.services import failover, fence_worker
from virtmgr.services.container import Services
from virtmgr.services.fence_worker import FenceWorker

BMC = {"agent": "ipmi", "address": "192.0.2.7", "user": "admin", "password": "secret"}


@dataclass
class Power:
    """Fence devices that do as they are told, unless they are stuck or broken."""

    off: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    reads_on: bool = False
    asked: list[str] = field(default_factory=list)

    def is_on(self, device: FenceDevice, password: str, way: Way | None = None) -> bool:
        self._check(device, password, way)
        return device.name not in self.off

    def turn_off(self, device: FenceDevice, password: str, way: Way | None = None) -> None:
        self._check(device, password, way)
        self.asked.append(device.name)
        if device.name not in self.stuck:
            self.off.add(device.name)

    def _check(self, device: FenceDevice, password: str, way: Way | None) -> None:
        assert password == "secret"
        if way is not None:
            with closing(way.open(Transport.TCP)) as stream:
                assert stream.receive() == (Channel.STDOUT, b"hello")
                while self.reads_on and stream.receive() is not None:
                    pass
        if device.name in self.broken:
            raise Unavailable(f"{device.name} does not answer")


@dataclass
class Relays:
    """The agents of hosts, each of which reaches the device, or says why it does not."""

    down: set[str] = field(default_factory=set)
    blind: set[str] = field(default_factory=set)
    old: set[str] = field(default_factory=set)
    breaking: set[str] = field(default_factory=set)
    dialled: list[str] = field(default_factory=list)

    def __call__(self, url: str, host_id: str, request: StreamRequest) -> AgentStream:
        assert url == f"wss://{host_id}"
        assert request.action == "fence"
        assert request.parameters == {"transport": "tcp", "address": "192.0.2.7", "port": 623}
        self.dialled.append(host_id)
        if host_id in self.down:
            raise Unavailable("nobody answers")
        if host_id in self.blind:
            return Said([problem("fence_device_not_reached", "connecting failed")])
        if host_id in self.old:
            return Said([problem("not_found", "workload  is not on this host")])
        end = [] if host_id in self.breaking else [(Channel.CLOSE, b"")]
        return Said([(Channel.STDOUT, b""), (Channel.STDOUT, b"hello"), *end])


@dataclass
class Said:
    messages: list[tuple[Channel, bytes]]

    def send(self, channel: Channel, content: bytes) -> None: ...

    def receive(self) -> tuple[Channel, bytes] | None:
        return self.messages.pop(0) if self.messages else None

    def close(self) -> None: ...


def problem(code: str, detail: str) -> tuple[Channel, bytes]:
    return Channel.END, json.dumps({"code": code, "detail": detail}).encode()


class Site:
    def __init__(self, api: Api, services: Services) -> None:
        self.api, self.power, self.relays = api, Power(), Relays()
        self.services = replace(services, power=self.power, dial=self.relays)
        self.lost = PretendHost(services, self_fencing=False)
        assert api.post(ALL, ha("web1")).status == 202
        self.lost.converge()
        self.other = PretendHost(services)
        self.path = f"/hosts/{self.lost.id}"

    def set(self, name: str, **fields: Any) -> None:
        answer = self.api.call("PUT", f"{self.path}/fence-devices/{name}", {**BMC, **fields})
        assert answer.status == 200, answer.body

    def work(self) -> bool:
        return FenceWorker(self.services).run_once()

    def look(self) -> int:
        return failover.look(self.services, fall_silent(self.services, self.other))

    def operation(self) -> Any:
        return self.api.get("/operations", target=self.lost.id).body["items"][0]


@pytest.fixture
def site(api: Api, services: Services, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(fence_worker, "_OFF_WITHIN", 0.1)
    monkeypatch.setattr(fence_worker, "_ASK_AGAIN", 0.01)
    return Site(api, services)


def test_a_lost_host_is_fenced_and_its_workloads_restarted(site: Site) -> None:
    site.set("bmc")
    assert site.look() == 0
    assert site.work()
    assert not site.work()
    assert site.api.get(site.path).body["state"] == "fenced"
    assert site.look() == 1
    row = site.api.get("/failovers").body["items"][0]
    assert (row["release"], row["target"]["id"]) == ("fenced", site.other.id)
    assert site.api.get("/events", type="host.fenced").body["items"]


def test_a_host_that_came_back_is_not_fenced(site: Site) -> None:
    site.set("bmc")
    site.look()
    site.lost.converge()
    assert site.work()
    assert site.power.asked == []
    assert site.operation()["state"] == "cancelled"


def test_levels(site: Site) -> None:
    """The first fails; of the second both are needed."""
    site.set("a-bmc", level=1)
    site.set("left", level=2)
    site.set("right", level=2)
    site.power.broken.add("a-bmc")
    site.look()
    site.work()
    assert site.power.asked == ["left", "right"]
    assert site.operation()["message"] == "the power is off, says left, right"


def test_what_stays_on_is_not_fenced(site: Site) -> None:
    site.set("bmc")
    site.power.stuck.add("bmc")
    site.look()
    site.work()
    assert site.operation()["state"] == "failed"
    assert "still on" in site.operation()["error"]["detail"]
    assert site.api.get(site.path).body["state"] == "unreachable"
    assert site.look() == 0


def test_a_mass_outage_fences_nobody(site: Site) -> None:
    site.set("bmc")
    failover.look(site.services, fall_silent(site.services))
    assert not site.work()


def test_a_test_switches_nothing(site: Site) -> None:
    assert site.api.post(f"{site.path}/fence/test").code == "no_fence_device"
    site.set("bmc")
    assert site.api.post(f"{site.path}/fence/test").status == 202
    site.work()
    assert site.operation()["message"] == "bmc: on"
    assert site.power.asked == []


def test_an_operator_cuts_the_power(site: Site) -> None:
    site.set("bmc")
    assert site.api.post(f"{site.path}/fence").status == 202
    site.work()
    assert site.power.asked == ["bmc"]
    assert site.look() == 0  # it was not silent then: the device is asked again
    site.work()
    assert site.look() == 1


def test_passwords_are_sealed_and_kept(site: Site) -> None:
    site.set("bmc")
    without = {key: value for key, value in BMC.items() if key != "password"}
    path = f"{site.path}/fence-devices"
    again = site.api.call("PUT", f"{path}/bmc", {**without, "address": "192.0.2.8"})
    assert again.body["address"] == "192.0.2.8"
    assert site.api.call("PUT", f"{path}/new", without).status == 422
    listed = site.api.get(path).body["items"]
    assert [one["name"] for one in listed] == ["bmc"]
    assert "secret" not in str(listed)
    with site.services.units(read_only=True) as uow:
        (device,) = uow.fence_devices.of_host(site.lost.id)
        assert "secret" not in device.sealed
    site.api.post(f"{site.path}/fence/test")
    site.work()
    assert site.operation()["state"] == "succeeded"
    assert site.api.delete(f"{path}/bmc").status == 204
    assert site.api.delete(f"{path}/bmc").status == 404


def test_through_the_named_host(site: Site) -> None:
    name = site.api.get(f"/hosts/{site.other.id}").body["name"]
    site.set("bmc", via=name)
    assert site.api.get(f"{site.path}/fence-devices").body["items"][0]["via"] == name
    site.look()
    site.work()
    assert set(site.relays.dialled) == {site.other.id}
    assert site.operation()["message"] == f"the power is off, says bmc through host {name}"
    assert site.look() == 1


def test_a_relay_that_is_down_is_left_for_the_next(site: Site, clock: StillClock) -> None:
    clock.advance(seconds=1)
    third = PretendHost(site.services)
    clock.advance(seconds=1)
    fourth = PretendHost(site.services)
    site.set("bmc", via="any")
    assert site.api.get(f"{site.path}/fence-devices").body["items"][0]["via"] == "any"
    site.relays.down.add(fourth.id)  # spoke last: it is tried first
    site.relays.blind.add(third.id)
    site.api.post(f"{site.path}/fence")
    site.work()
    operation = site.operation()
    assert operation["state"] == "succeeded", operation
    assert site.relays.dialled[:3] == [fourth.id, third.id, site.other.id]
    assert set(site.relays.dialled[3:]) == {site.other.id}  # it is kept to
    assert site.lost.id not in site.relays.dialled
    for reason in ("nobody answers", "connecting failed"):
        assert reason in operation["message"]


def test_no_relay_reaches_it(site: Site) -> None:
    site.set("bmc", via="any")
    site.relays.old.add(site.other.id)
    site.api.post(f"{site.path}/fence/test")
    site.work()
    error = site.operation()["error"]
    assert error["code"] == "no_fence_relay"
    assert "is of a version that reaches no fence devices" in error["detail"]


def test_what_the_device_refuses_is_not_asked_of_it_again(site: Site) -> None:
    """A wrong password, asked through each host, would lock the account."""
    PretendHost(site.services)
    site.set("bmc", via="any")
    site.power.broken.add("bmc")
    site.api.post(f"{site.path}/fence/test")
    site.work()
    assert site.operation()["error"]["detail"] == "bmc does not answer"
    assert len(site.relays.dialled) == 1


@pytest.mark.parametrize("breaks", [False, True])
def test_a_relay_that_dies_while_it_is_used_is_left(site: Site, *, breaks: bool) -> None:
    """But not one over which the device has ended what it had to say."""
    third = PretendHost(site.services)
    site.set("bmc", via="any")
    site.power.broken.add("bmc")
    site.power.reads_on = True
    site.relays.breaking = {site.other.id, third.id} if breaks else set()
    site.api.post(f"{site.path}/fence/test")
    site.work()
    assert len(site.relays.dialled) == (2 if breaks else 1)
    assert (site.operation()["error"]["code"] == "no_fence_relay") == breaks


def test_a_device_is_not_reached_through_its_own_host(site: Site) -> None:
    body = {**BMC, "via": site.lost.id}
    answer = site.api.call("PUT", f"{site.path}/fence-devices/bmc", body)
    assert (answer.status, answer.body["field"]) == (422, "via")
    body = {**BMC, "via": "nobody"}
    assert site.api.call("PUT", f"{site.path}/fence-devices/bmc", body).status == 404


def test_the_named_host_is_gone(site: Site) -> None:
    third = PretendHost(site.services)
    site.set("bmc", via=third.id)
    assert site.api.delete(f"/hosts/{third.id}", query={"force": "true"}).status == 204
    site.api.post(f"{site.path}/fence/test")
    site.work()
    assert "is not in the inventory" in site.operation()["error"]["detail"]
    assert site.api.get(f"{site.path}/fence-devices").body["items"][0]["via"] == third.id
