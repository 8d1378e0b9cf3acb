"""Lost hosts as the control plane sees them, and what becomes of their workloads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost, fall_silent
from virtmgr.domain.leases import Seen
from virtmgr.domain.sync import ObservedWorkload, SyncRequest
from virtmgr.domain.workload import PowerState, State, WorkloadStatus
from virtmgr.services import failover
from virtmgr.services.container import Services

ALL = "/projects/default/workloads"
ONE = f"{ALL}/web1"
CLUSTER = "/clusters/default"


class Trio:
    """Three hosts; ``web1`` is on ``lost``, and is highly available."""

    def __init__(self, api: Api, services: Services) -> None:
        self.api, self.services = api, services
        self.lost = PretendHost(services)
        made = api.post(ALL, ha("web1"))
        assert made.status == 202, made.body
        self.lost.converge()
        self.others = (PretendHost(services), PretendHost(services))

    def look(self, seconds: float = 60) -> dict[str, Seen]:
        """The host has been silent for so long, and the control plane looks."""
        seen = fall_silent(self.services, *self.others, seconds=seconds)
        failover.look(self.services, seen)
        return seen

    def target(self) -> PretendHost:
        id = self.api.get(ONE).body["host"]["id"]
        return next(host for host in self.others if host.id == id)

    def running(self) -> list[str]:
        """Where web1 runs, as far as the hosts have been told."""
        return [
            host.id
            for host in (self.lost, *self.others)
            for wish in host.wishes.values()
            if wish.name == "web1" and wish.state is PowerState.RUNNING and not wish.deleting
        ]

    def row(self) -> Any:
        return self.api.get("/failovers").body["items"][0]

    def state(self, host: PretendHost) -> str:
        return str(self.api.get(f"/hosts/{host.id}").body["state"])


def ha(name: str, **fields: Any) -> dict[str, Any]:
    plain = {"name": name, "kind": "container", "image": "busybox"}
    return {**plain, "ha": {"enabled": True}, **fields}


def claimed(api: Api, host: PretendHost) -> float:
    return float(api.get(f"/hosts/{host.id}").body["claimed"]["vcpus"])


@pytest.fixture
def trio(api: Api, services: Services) -> Trio:
    return Trio(api, services)


def test_only_hosts_with_highly_available_workloads_have_a_short_lease(trio: Trio) -> None:
    trio.lost.sync_down()
    assert trio.lost.last is not None
    assert trio.lost.last.lease_seconds == 9
    assert trio.others[0].last is not None
    assert trio.others[0].last.lease_seconds == 30


def test_a_lease_is_not_shortened_under_what_runs(trio: Trio) -> None:
    """The answer that shortens it may be lost: then the host runs on for as long as before."""
    trio.lost.sync_down()
    trio.api.patch("/clusters/default", {"ha_lease": 5})
    trio.lost.sync_down()
    assert trio.lost.last is not None
    assert 8 < trio.lost.last.lease_seconds <= 9  # what was left of the one before
    with trio.services.units() as uow:
        host = uow.hosts.lock(trio.lost.id)
        assert host is not None
        host.lease_expires_at = trio.services.clock.now()
        uow.commit()
    trio.lost.sync_down()
    assert trio.lost.last.lease_seconds == 5


def test_a_renewal_counts_and_says_nothing_else(trio: Trio) -> None:
    trio.lost.sync_down()
    seen = fall_silent(trio.services, *trio.others, seconds=10)
    assert trio.state(trio.lost) == "unreachable"
    brief = SyncRequest(known_revision=trio.lost.known_revision, brief=True)
    answer = trio.lost.sync(brief)  # it was silent: that is more than a renewal
    assert (answer.report_all, trio.state(trio.lost)) == (True, "ready")
    answer = trio.lost.sync(brief)
    assert (answer.lease_seconds, answer.networks, answer.report_all) == (9, None, False)
    assert failover.look(trio.services, {id: Seen(one.lease, 99) for id, one in seen.items()}) == 0
    trio.api.post(f"{ONE}/stop")
    assert trio.lost.sync(brief).workloads  # there is more to say


def test_it_is_restarted_when_lease_and_margin_are_over(trio: Trio) -> None:
    trio.look(seconds=10)
    assert (trio.state(trio.lost), trio.row()["phase"]) == ("unreachable", "waiting")
    assert trio.row()["code"] == "lease"
    trio.look(seconds=10.9)
    assert trio.row()["phase"] == "waiting"
    trio.look(seconds=11)
    row = trio.row()
    assert (row["phase"], row["release"]) == ("restarted", "self_fenced")
    target = trio.target()
    target.converge()
    assert trio.api.get(ONE).body["status"]["state"] == "running"
    assert (claimed(trio.api, target), claimed(trio.api, trio.lost)) == (1.0, 1.0)
    event = trio.api.get("/events", type="workload.failed_over").body["items"][0]
    assert "has not renewed its lease of 9 s" in event["message"]


def test_the_lost_host_removes_what_it_has_and_gives_its_claim_back(trio: Trio) -> None:
    trio.look()
    trio.target().converge()
    trio.lost.sync_down()
    assert trio.lost.wish("web1").deleting
    assert trio.running() == [trio.target().id]
    assert trio.state(trio.lost) == "ready"
    assert claimed(trio.api, trio.lost) == 1.0
    trio.lost.sync_down()  # the answer was lost: it is said again
    assert trio.lost.wish("web1").deleting
    trio.lost.converge()
    assert (claimed(trio.api, trio.lost), trio.row()["phase"]) == (0.0, "done")
    trio.lost.converge()
    assert trio.running() == [trio.target().id]


def test_a_lost_host_without_anything_of_it_says_so(trio: Trio) -> None:
    trio.look()
    trio.lost.sync(SyncRequest(full=True, fingerprint=trio.lost.fingerprint()))
    assert (claimed(trio.api, trio.lost), trio.row()["phase"]) == (0.0, "done")


def test_it_is_deleted_where_it_was_restarted(trio: Trio) -> None:
    trio.look()
    trio.target().converge()
    target = trio.target()
    assert trio.api.delete(ONE).status == 202
    target.converge()
    assert claimed(trio.api, trio.lost) == 0.0
    known = trio.lost.wish("web1").id
    trio.lost.sync_down()
    assert trio.lost.wishes == {}  # a full answer that does not name it
    gone = WorkloadStatus(state=State.DELETING)
    trio.lost.report(ObservedWorkload(id=known, observed_generation=1, status=gone, gone=True))
    assert trio.row()["phase"] == "done"


def test_a_host_that_comes_back_in_time_keeps_its_workloads(trio: Trio) -> None:
    trio.look(seconds=10)
    trio.lost.converge()
    assert (trio.row()["phase"], trio.running()) == ("recovered", [trio.lost.id])
    trio.look(seconds=0)
    assert trio.running() == [trio.lost.id]


def test_a_sync_between_look_and_restart_wins(trio: Trio) -> None:
    seen = trio.look(seconds=10)
    trio.lost.converge()
    fall_silent(trio.services, *trio.others)  # by its new lease
    old = {id: Seen(one.lease, 1000) for id, one in seen.items()}
    assert failover.look(trio.services, old) == 0
    assert trio.running() == [trio.lost.id]


def test_two_leaders_restart_it_once(trio: Trio) -> None:
    seen = fall_silent(trio.services, *trio.others)
    assert failover.look(trio.services, seen) == 1
    assert failover.look(trio.services, seen) == 0


def test_a_mass_outage_stops_it_and_says_why(trio: Trio) -> None:
    seen = fall_silent(trio.services, trio.others[0])  # two of three
    assert failover.look(trio.services, seen) == 0
    assert trio.row()["code"] == "mass_outage"
    assert "2 of 3 hosts" in trio.row()["message"]
    assert trio.api.post(f"/hosts/{trio.lost.id}/confirm-off").status == 200
    assert failover.look(trio.services, seen) == 1
    assert trio.row()["release"] == "confirmed"


def test_an_operator_confirms(trio: Trio) -> None:
    path = f"/hosts/{trio.lost.id}/confirm-off"
    assert trio.api.post(path).status == 409  # it syncs
    assert trio.api.patch(CLUSTER, {"failover": "manual"}).status == 200
    trio.look()
    assert (trio.row()["phase"], trio.row()["code"]) == ("waiting", "manual")
    assert trio.api.post(path).body["state"] == "fenced"
    assert trio.api.post(path).status == 200
    trio.look()
    assert (trio.row()["phase"], trio.row()["release"]) == ("restarted", "confirmed")
    trio.lost.sync_down()
    assert trio.state(trio.lost) == "ready"


def test_an_agent_that_does_not_fence_itself(api: Api, services: Services) -> None:
    old = PretendHost(services, self_fencing=False)
    api.post(ALL, ha("web1"))
    old.converge()
    other = PretendHost(services)
    assert failover.look(services, fall_silent(services, other)) == 0
    assert api.get("/failovers").body["items"][0]["code"] == "not_self_fencing"


def test_a_host_that_does_not_know_yet(trio: Trio) -> None:
    trio.api.patch(ONE, {"ha": {"enabled": False}})
    trio.lost.converge()
    trio.api.patch(ONE, {"ha": {"enabled": True}})
    trio.look()
    assert trio.row()["code"] == "not_known_to_host"


def test_volumes_keep_it_where_it_is(api: Api, services: Services) -> None:
    lost, other = PretendHost(services), None
    api.post("/projects/default/volumes", {"name": "data", "size": "1GiB"})
    volumes = [{"volume": "data", "path": "/data"}]
    assert api.post(ALL, ha("web1", volumes=volumes)).status == 202
    lost.converge()
    other = PretendHost(services)
    assert failover.look(services, fall_silent(services, other)) == 0
    row = api.get("/failovers").body["items"][0]
    assert (row["code"], "data" in row["message"]) == ("local_volumes", True)


def test_an_operator_lets_volumes_behind(api: Api, services: Services) -> None:
    lost, other = PretendHost(services), None
    data = "/projects/default/volumes/data"
    api.post("/projects/default/volumes", {"name": "data", "size": "1GiB"})
    volumes = [{"volume": "data", "path": "/data"}]
    assert api.post(ALL, ha("web1", volumes=volumes)).status == 202
    lost.converge()
    other = PretendHost(services)
    seen = fall_silent(services, other)
    path = f"/hosts/{lost.id}/confirm-off"
    assert api.post(path).status == 200
    assert failover.look(services, seen) == 0
    row = api.get("/failovers").body["items"][0]
    assert (row["code"], "--without-volumes" in row["message"]) == ("local_volumes", True)
    assert api.post(path, query={"without_volumes": "true"}).status == 200
    assert failover.look(services, seen) == 1
    shown = api.get(ONE).body
    assert (shown["host"]["id"], shown["spec"]["volumes"]) == (other.id, [])
    event = api.get("/events", type="workload.failed_over").body["items"][0]
    assert event["data"]["without_volumes"] == ["data"]
    other.converge()
    assert other.wish("web1").deleting is False
    left = api.get(data).body
    assert (left["host"]["id"], left["workload"]) == (lost.id, None)
    lost.converge()  # it is back: what it had of web1 goes, and its volume stays
    assert lost.last is not None
    assert not lost.last.removed_volumes
    lost.converge()
    assert claimed(api, lost) == 0.0
    # They come together again where the volume is.
    assert api.post(f"{ONE}/volumes", volumes[0]).code == "volume_on_other_host"


def test_the_word_on_volumes_counts_until_the_host_is_back(trio: Trio) -> None:
    path = f"/hosts/{trio.lost.id}/confirm-off"
    trio.look()
    assert trio.api.post(path, query={"without_volumes": "true"}).status == 200
    trio.lost.sync_down()
    with trio.services.units(read_only=True) as uow:
        host = uow.hosts.get(trio.lost.id)
    assert host is not None
    assert not host.without_volumes


def test_the_greater_priority_gets_the_room(api: Api, services: Services) -> None:
    lost = PretendHost(services)
    for name, priority in (("low", 0), ("high", 7)):
        body = ha(name, resources={"memory": "6GiB"}, ha={"enabled": True, "priority": priority})
        if name == "high":
            api.patch(CLUSTER, {"overcommit_memory": 2})
        assert api.post(ALL, body).status == 202
    lost.converge()
    api.patch(CLUSTER, {"overcommit_memory": 1})
    other = PretendHost(services)
    assert failover.look(services, fall_silent(services, other)) == 1
    assert api.get(f"{ALL}/high").body["host"]["id"] == other.id
    rows = {row["workload"]["name"]: row for row in api.get("/failovers").body["items"]}
    assert (rows["low"]["code"], rows["low"]["phase"]) == ("no_room", "waiting")
    assert "lacks memory" in rows["low"]["message"]


def test_what_rests_stays(trio: Trio) -> None:
    trio.api.post(f"{ONE}/stop")
    trio.lost.converge()
    trio.look()
    assert trio.api.get("/failovers").body["items"] == []


def test_the_lost_host_is_removed(trio: Trio) -> None:
    trio.look()
    assert trio.api.delete(f"/hosts/{trio.lost.id}").status == 204
    assert (trio.row()["phase"], trio.row()["lost"]) == ("done", None)


def test_it_does_not_go_back_before_the_lost_host_has_cleaned_up(trio: Trio) -> None:
    trio.look()
    trio.target().converge()
    trio.lost.sync_down()  # it is ready, and has not cleaned up
    answer = trio.api.post(f"{ONE}/move", {"to": trio.lost.id})
    assert answer.status == 409
    assert "has_leftovers" in str(answer.body)
    trio.lost.converge()
    assert trio.api.post(f"{ONE}/move", {"to": trio.lost.id}).status == 202


def test_twice_in_a_row(trio: Trio) -> None:
    """Its second host is lost as well, while the first is still away."""
    trio.look()
    second = trio.target()
    second.converge()
    (third,) = (host for host in trio.others if host is not second)
    assert trio.api.post(f"/hosts/{trio.lost.id}/confirm-off").status == 200
    seen = fall_silent(trio.services, third)
    assert failover.look(trio.services, seen) == 1  # the one that is off is no part of an outage
    assert trio.target() is third
    third.converge()
    for host in (trio.lost, second):
        host.converge()
        host.converge()
        assert claimed(trio.api, host) == 0.0
    assert trio.running() == [third.id]
