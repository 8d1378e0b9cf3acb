"""Moves between hosts as the control plane sees them, with a worker that may die between steps."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from tests.api.host import PretendHost, fall_silent
from virtmgr.domain.errors import Unavailable
from virtmgr.domain.migration import Phase
from virtmgr.domain.streaming import Channel, StreamRequest
from virtmgr.domain.sync import ObservedVolume, SyncRequest
from virtmgr.domain.workload import PowerState
from virtmgr.ports.streams import AgentStream
from virtmgr.services import migration_worker
from virtmgr.services.container import Services
from virtmgr.services.migration_worker import MigrationWorker

ALL = "/projects/default/workloads"
ONE = f"{ALL}/web1"
DATA = b"what is on the disk"


@dataclass
class Wires:
    """The way to the agents: what was asked of them; ``broken`` ones do not answer."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    came: bytes = b""
    broken: set[str] = field(default_factory=set)
    before: Callable[[], None] = lambda: None  # called before anything is sent

    def __call__(self, url: str, host_id: str, request: StreamRequest) -> AgentStream:
        del url
        if host_id in self.broken:
            raise Unavailable("its agent does not answer", code="host_unreachable")
        self.asked.append((request.action, host_id))
        return _Giving(self) if request.action == "leave" else _Taking(self)


@dataclass
class _Giving:
    wires: Wires
    sent: int = 0

    def send(self, channel: Channel, content: bytes) -> None:
        raise AssertionError((channel, content))

    def receive(self) -> tuple[Channel, bytes]:
        self.wires.before()
        self.sent += 1
        if self.sent == 1:
            return Channel.STDOUT, DATA
        return Channel.END, b'{"exit_code": 0}'

    def close(self) -> None: ...


@dataclass
class _Taking:
    wires: Wires
    said: bytes = b""

    def send(self, channel: Channel, content: bytes) -> None:
        if channel is Channel.STDIN:
            self.said += content
        else:
            self.wires.came = self.said

    def receive(self) -> tuple[Channel, bytes]:
        return Channel.END, json.dumps({"exit_code": 0}).encode()

    def close(self) -> None: ...


@dataclass
class Pair:
    """Two hosts; ``web1`` is on ``source``. ``worker`` moves it, with the hosts syncing."""

    services: Services
    wires: Wires
    source: PretendHost
    target: PretendHost

    def worker(self) -> MigrationWorker:
        return MigrationWorker(self.services)

    def move(self) -> None:
        """One migration, as far as a worker brings it, with hosts that do what they are asked."""
        self.sync_while(lambda: self.worker().run_once())

    def sync_while(self, work: Callable[[], object]) -> None:
        done = threading.Event()

        def hosts() -> None:
            while not done.wait(0.01):
                self.source.converge()

        thread = threading.Thread(target=hosts)
        thread.start()
        try:
            work()
        finally:
            done.set()
            thread.join()

    def running(self) -> list[str]:
        """Where ``web1`` runs, as far as the hosts have been told."""
        return [
            host.id
            for host in (self.source, self.target)
            for wish in host.wishes.values()
            if wish.name == "web1" and wish.state is PowerState.RUNNING and not wish.deleting
        ]


@pytest.fixture
def pair(api: Api, services: Services, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(migration_worker, "_PAUSES", (0.0, 0.0))
    wires = Wires()
    services = replace(services, dial=wires)
    source = PretendHost(services)
    made = api.post(ALL, {"name": "web1", "kind": "container", "image": "busybox"})
    assert made.status == 202
    source.converge()
    return Pair(services, wires, source, PretendHost(services))


def claimed(api: Api, host: PretendHost) -> float:
    return float(api.get(f"/hosts/{host.id}").body["claimed"]["vcpus"])


def migration(api: Api) -> Any:
    return api.get("/migrations").body["items"][0]


def test_those_on_their_way_are_listed_apart(api: Api, pair: Pair) -> None:
    api.post(ALL, {"name": "web2", "kind": "container", "image": "busybox"})

    def listed(moving: bool) -> list[str]:
        found = api.get("/workloads", moving=moving).body["items"]
        return [item["name"] for item in found]

    assert (listed(True), listed(False)) == ([], ["web1", "web2"])
    api.post(f"{ONE}/move")
    assert (listed(True), listed(False)) == (["web1"], ["web2"])
    pair.move()
    pair.target.converge()
    assert listed(True) == ["web1"]
    pair.source.converge()
    assert (listed(True), listed(False)) == ([], ["web1", "web2"])


def test_a_move_goes_through_its_phases(api: Api, pair: Pair) -> None:
    before = api.get(ONE).body
    begun = api.post(f"{ONE}/move")
    assert (begun.status, begun.body["verb"]) == (202, "move")
    assert (migration(api)["phase"], claimed(api, pair.target)) == ("planned", 1.0)
    pair.move()
    assert migration(api)["phase"] == "starting"
    assert pair.wires.came == DATA
    pair.source.sync_down()
    assert pair.running() == []
    pair.target.converge()
    assert (migration(api)["phase"], pair.running()) == ("cleaning", [pair.target.id])
    after = api.get(ONE).body
    assert after["host"]["id"] == pair.target.id
    assert after["nics"] == before["nics"]
    assert after["status"]["state"] == "running"
    assert api.get(f"/operations/{begun.body['id']}").body["state"] == "succeeded"
    assert claimed(api, pair.source) == 1.0  # its disk is still there
    pair.source.converge()
    assert migration(api)["phase"] == "done"
    assert (claimed(api, pair.source), claimed(api, pair.target)) == (0.0, 1.0)
    types = [event["type"] for event in api.get("/events", limit=50).body["items"]]
    assert {"workload.move_requested", "workload.moving", "workload.moved"} <= set(types)


def test_nothing_is_asked_of_a_workload_on_its_way(api: Api, pair: Pair) -> None:
    api.post(f"{ONE}/move")
    for verb in ("stop", "restart", "move"):
        assert api.post(f"{ONE}/{verb}").code == "being_moved"
    assert api.delete(ONE).code == "being_moved"
    assert api.patch(ONE, {"description": "x"}).code == "being_moved"
    pair.move()
    pair.target.converge()
    assert api.delete(ONE).code == "being_moved"  # its old host would not know
    assert api.patch(ONE, {"description": "x"}).status == 202
    pair.source.converge()
    assert api.delete(ONE).status == 202


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.STOPPING, Phase.COPYING])
def test_another_worker_goes_on(api: Api, pair: Pair, clock: StillClock, phase: Phase) -> None:
    """The first dies in each phase: what it has done stays done, and once."""
    api.post(f"{ONE}/move")
    dead = pair.worker()
    steps = {Phase.STOPPING: "_wait_for_rest", Phase.COPYING: "_copy", Phase.PLANNED: "_stop_it"}

    def die(*_given: Any) -> None:
        raise migration_worker.Lost

    setattr(dead, steps[phase], die)
    pair.sync_while(dead.run_once)
    assert migration(api)["phase"] == phase
    assert not pair.worker().run_once()  # the lease of the dead one lasts
    clock.advance(seconds=16)
    pair.move()
    pair.target.converge()
    pair.source.converge()
    assert migration(api)["phase"] == "done"
    assert pair.running() == [pair.target.id]


def test_a_database_that_was_away_gives_nothing_up(api: Api, pair: Pair, clock: StillClock) -> None:
    """It dies in the middle of a step, and is back when the worker could say that it failed."""
    api.post(f"{ONE}/move")
    hit = pair.worker()

    def die(*_given: Any) -> None:
        raise Unavailable("use the database: it is starting up", code="database_unavailable")

    hit._wait_for_rest = die  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        pair.sync_while(hit.run_once)
    assert migration(api)["phase"] == "stopping"
    clock.advance(seconds=16)
    pair.move()
    assert migration(api)["phase"] == "starting"


def test_a_slow_worker_does_nothing_any_more(api: Api, pair: Pair, clock: StillClock) -> None:
    """It sleeps while it copies; meanwhile another hands the workload over."""
    api.post(f"{ONE}/move")
    slept = False

    def sleep() -> None:
        nonlocal slept
        if not slept:
            slept = True
            clock.advance(seconds=16)
            assert pair.worker().run_once()

    pair.wires.before = sleep
    pair.move()
    assert migration(api)["phase"] == "starting"
    assert api.get(ONE).body["generation"] == 3  # stopped and handed over, each once


def test_it_runs_on_where_it_was_if_the_target_does_not_answer(api: Api, pair: Pair) -> None:
    begun = api.post(f"{ONE}/move").body
    pair.wires.broken = {pair.target.id}
    pair.move()
    failed = migration(api)
    assert (failed["phase"], failed["error"]["code"]) == ("failed", "host_unreachable")
    pair.source.converge()
    pair.target.converge()
    assert pair.running() == [pair.source.id]
    assert (claimed(api, pair.source), claimed(api, pair.target)) == (1.0, 0.0)
    operation = api.get(f"/operations/{begun['id']}").body
    assert (operation["state"], operation["error"]["code"]) == ("failed", "host_unreachable")
    assert api.post(f"{ONE}/move").status == 202  # again


def test_cancel_before_and_during(api: Api, pair: Pair) -> None:
    api.post(f"{ONE}/move")
    cancel = f"/migrations/{migration(api)['id']}/cancel"
    assert api.post(cancel).body["phase"] == "failed"
    assert claimed(api, pair.target) == 0.0
    api.post(f"{ONE}/move")
    cancel = f"/migrations/{migration(api)['id']}/cancel"
    pair.wires.before = lambda: api.post(cancel) and None
    pair.move()
    assert (migration(api)["phase"], migration(api)["error"]["code"]) == ("failed", "cancelled")
    pair.source.converge()
    assert pair.running() == [pair.source.id]
    assert api.post(cancel).code == "illegal_transition"


def test_a_source_that_falls_silent_keeps_it(api: Api, pair: Pair, clock: StillClock) -> None:
    api.post(f"{ONE}/move")
    clock.advance(seconds=40)
    pair.target.sync_down()
    fall_silent(pair.services)
    assert pair.worker().run_once()
    assert migration(api)["error"]["code"] == "is_unknown"
    pair.source.converge()
    assert pair.running() == [pair.source.id]


def test_a_volume_goes_with_it_and_is_removed_last(api: Api, pair: Pair) -> None:
    api.post("/projects/default/volumes", {"name": "data", "size": "1GiB"})
    api.post(f"{ONE}/volumes", {"volume": "data", "path": "/data"})
    pair.source.converge()
    volume = api.get("/projects/default/volumes/data").body
    assert volume["host"]["id"] == pair.source.id
    api.post(f"{ONE}/move")
    pair.move()
    assert api.get("/projects/default/volumes/data").body["host"]["id"] == pair.target.id
    pair.target.converge()
    pair.source.sync_down()
    assert pair.source.last is not None
    assert pair.source.last.removed_volumes == ()
    pair.source.converge()
    pair.source.sync_down()
    assert pair.source.last.removed_volumes == (volume["id"],)
    assert migration(api)["phase"] == "cleaning"
    gone = ObservedVolume(id=volume["id"], ready=False, gone=True)
    pair.source.sync(SyncRequest(known_revision=pair.source.known_revision, volumes=(gone,)))
    assert migration(api)["phase"] == "done"
    assert api.get("/projects/default/volumes/data").status == 200


def test_what_cannot_be_moved_says_why(api: Api, pair: Pair) -> None:
    assert api.post(f"{ONE}/move", {"to": pair.source.id}).code == "is_there"
    assert api.post(f"{ONE}/move", {"to": "nowhere"}).body["field"] == "to"
    api.patch(ONE, {"protected": True})
    pair.source.converge()
    assert api.post(f"{ONE}/move").code == "protected"
    api.patch(ONE, {"protected": False})
    pair.source.converge()
    api.post(f"/hosts/{pair.target.id}/cordon")
    refused = api.post(f"{ONE}/move")
    assert refused.code == "no_placement"
    assert api.get("/migrations").body["items"] == []


def test_arrivals_that_nobody_needs_are_removed(api: Api, pair: Pair) -> None:
    api.post(f"{ONE}/move")
    wanted = migration(api)["id"]
    answer = pair.target.sync(SyncRequest(arrivals=(wanted, "old")))
    assert answer.removed_arrivals == ("old",)
    assert "removed_arrivals" not in pair.target.sync(SyncRequest()).model_fields_set


def test_a_drain_moves_all_and_ends_in_maintenance(api: Api, pair: Pair) -> None:
    drain = f"/hosts/{pair.source.id}/drain"
    planned = api.post(drain, query={"dry_run": "true"}).body["would"]["plan"]
    assert [(one["workload"]["name"], one["target"]["id"]) for one in planned] == [
        ("web1", pair.target.id)
    ]
    assert planned[0]["downtime"] > 0
    assert api.get(f"/hosts/{pair.source.id}").body["state"] == "ready"
    begun = api.post(drain).body
    assert api.post(drain).body["id"] == begun["id"]  # twice is once
    assert api.get(f"/hosts/{pair.source.id}").body["state"] == "draining"
    shown = []

    def show() -> None:
        drained = api.get(f"/operations/{begun['id']}").body
        shown.append((drained["message"], drained["progress"]))

    pair.wires.before = show
    pair.move()
    pair.target.sync_down()
    show()
    pair.target.converge()
    show()
    on_its_way = "0 of 1 moved, 1 on its way"
    assert shown[-3:] == [(on_its_way, 0.2), (on_its_way, 0.8), ("1 of 1 moved", 0.99)]
    pair.source.converge()
    assert api.get(f"/operations/{begun['id']}").body["state"] == "succeeded"
    assert api.get(f"/hosts/{pair.source.id}").body["state"] == "maintenance"
    assert api.post(f"/hosts/{pair.source.id}/uncordon").body["state"] == "ready"


def test_a_drain_names_what_stays(api: Api, pair: Pair) -> None:
    pinned = {"name": "pin", "kind": "container", "image": "busybox"}
    api.post(ALL, {**pinned, "placement": {"host": pair.source.id}})
    pair.source.converge()
    begun = api.post(f"/hosts/{pair.source.id}/drain").body
    pair.move()
    pair.target.converge()
    pair.source.converge()
    operation = api.get(f"/operations/{begun['id']}").body
    assert (operation["state"], operation["error"]["code"]) == ("failed", "not_drained")
    assert "pin" in operation["error"]["detail"]
    assert api.get(f"/hosts/{pair.source.id}").body["state"] == "cordoned"


def test_a_cancelled_drain_leaves_the_rest_running(api: Api, pair: Pair) -> None:
    begun = api.post(f"/hosts/{pair.source.id}/drain").body
    assert api.post(f"/hosts/{pair.source.id}/drain/cancel").body["state"] == "cordoned"
    assert api.get(f"/operations/{begun['id']}").body["state"] == "cancelled"
    assert migration(api)["phase"] == "failed"
    assert api.post(f"/hosts/{pair.source.id}/drain/cancel").code == "illegal_transition"


def test_maintenance_needs_an_empty_host(api: Api, pair: Pair) -> None:
    refused = api.post(f"/hosts/{pair.source.id}/maintenance")
    assert (refused.code, refused.body["explanation"]) == (
        "host_not_empty",
        {"workloads": ["web1"]},
    )
    api.post(f"{ONE}/stop")
    pair.source.converge()
    for _ in range(2):
        assert api.post(f"/hosts/{pair.source.id}/maintenance").body["state"] == "maintenance"
    assert api.post(f"/hosts/{pair.source.id}/cordon").status == 409
    assert api.post(f"{ONE}/start").code == "host_maintenance"
    assert api.patch(ONE, {"state": "running"}).code == "host_maintenance"
    assert api.post(f"{ONE}/move").status == 202  # stopped, and stays so


def test_a_silent_host_comes_back_to_what_it_was(api: Api, pair: Pair, clock: StillClock) -> None:
    path = f"/hosts/{pair.target.id}"
    api.post(f"{path}/maintenance")
    clock.advance(seconds=40)
    fall_silent(pair.services)
    shown = api.get(path).body
    assert (shown["state"], shown["scheduling_state"]) == ("unreachable", "maintenance")
    assert api.post(f"{path}/drain").status == 409
    pair.target.sync_down()
    assert api.get(path).body["state"] == "maintenance"


def test_a_host_is_removed_by_force_with_what_is_on_it(api: Api, pair: Pair) -> None:
    assert api.delete(f"/hosts/{pair.source.id}").code == "in_use"
    api.post(f"{ONE}/move")
    assert api.delete(f"/hosts/{pair.source.id}", query={"force": "true"}).code == "in_use"
    api.post(f"/migrations/{migration(api)['id']}/cancel")
    assert api.delete(f"/hosts/{pair.source.id}", query={"force": "true"}).status == 204
    assert api.get(ONE).status == 404
    lost = api.get("/events", type="host.deleted").body["items"][0]
    assert lost["data"] == {"workloads": ["web1"], "volumes": []}
    quota = api.get("/projects/default/quota").body
    assert (quota["used_workloads"], quota["used_vcpus"]) == (0, 0)


FORCE = {"force": "true"}


def test_a_target_that_is_removed_before_the_hand_over(api: Api, pair: Pair) -> None:
    """Nothing was handed over: the source goes on."""
    api.post(f"{ONE}/move")
    assert api.delete(f"/hosts/{pair.target.id}", query=FORCE).status == 204
    moved = migration(api)
    assert (moved["phase"], moved["error"]["code"]) == ("failed", "target_removed")
    assert not pair.worker().run_once()
    assert pair.running() == [pair.source.id]


def test_a_target_that_dies_while_it_takes_up(api: Api, pair: Pair) -> None:
    """What it has written is lost, so somebody has to say that the source is to go on."""
    volume = api.post("/projects/default/volumes", {"name": "data", "size": "1MiB"}).body
    api.post(f"{ONE}/volumes", {"volume": "data", "path": "/data"})
    pair.source.converge()
    begun = api.post(f"{ONE}/move").body
    pair.move()
    pair.source.sync_down()
    assert (migration(api)["phase"], pair.running()) == ("starting", [])
    path = f"/hosts/{pair.target.id}"
    assert api.delete(path).code == "in_use"
    refused = api.delete(path, query=FORCE)
    assert refused.code == "taking_up"
    assert "web1" in refused.body["detail"]
    assert api.get(ONE).body["host"]["id"] == pair.target.id  # nothing has been done
    assert api.delete(path, query={**FORCE, "take_back": "true"}).status == 204
    moved = migration(api)
    assert (moved["phase"], moved["error"]["code"]) == ("failed", "target_removed")
    shown = api.get(ONE).body
    assert (shown["host"]["id"], shown["status"]["state"]) == (pair.source.id, "unknown")
    assert api.get(f"/operations/{begun['id']}").body["state"] == "failed"
    pair.source.converge()
    assert (api.get(ONE).body["status"]["state"], pair.running()) == ("running", [pair.source.id])
    assert claimed(api, pair.source) == 1.0
    assert api.get("/projects/default/volumes/data").body["host"]["id"] == pair.source.id
    assert api.get("/events", type="workload.taken_back").body["items"]
    assert not api.get("/events", type="workload.lost").body["items"]
    assert api.delete(ONE).status == 202
    pair.source.converge()
    assert (api.get(ONE).status, claimed(api, pair.source)) == (404, 0.0)
    assert volume["id"]


def test_a_source_is_removed_while_the_target_takes_up(api: Api, pair: Pair) -> None:
    """The target has all that it needs."""
    api.post(f"{ONE}/move")
    pair.move()
    assert api.delete(f"/hosts/{pair.source.id}").code == "in_use"
    assert api.delete(f"/hosts/{pair.source.id}", query=FORCE).status == 204
    pair.target.converge()
    assert (migration(api)["phase"], pair.running()) == ("done", [pair.target.id])
    assert api.get(ONE).body["status"]["state"] == "running"


def test_a_source_is_removed_before_it_has_cleared_up(api: Api, pair: Pair) -> None:
    api.post(f"{ONE}/move")
    pair.move()
    pair.target.converge()
    assert migration(api)["phase"] == "cleaning"
    assert api.delete(f"/hosts/{pair.source.id}", query=FORCE).status == 204
    assert migration(api)["phase"] == "done"
    assert api.delete(ONE).status == 202
