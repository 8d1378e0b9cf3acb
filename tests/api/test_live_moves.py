"""Live moves as the control plane sees them, with hosts that do, or say, what they are asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from tests.api.host import PretendHost, fall_silent
from virtmgr.domain.migration import Phase
from virtmgr.domain.sync import DesiredWorkload, ObservedMove, ObservedWorkload
from virtmgr.domain.workload import Reason, State, WorkloadStatus
from virtmgr.ports.driver import Feature
from virtmgr.services import failover
from virtmgr.services.container import Services
from virtmgr.services.migration_worker import MigrationWorker

ALL = "/projects/default/workloads"
ONE = f"{ALL}/vm1"
DRY = {"dry_run": "true"}


@dataclass
class Pair:
    """Two hosts; ``vm1`` is on ``source``."""

    api: Api
    services: Services
    source: PretendHost
    target: PretendHost

    def begin(self, until: Phase = Phase.MIGRATING) -> Any:
        """Ask for a move, and let a worker work until this phase, with a willing target."""
        answer = self.api.post(f"{ONE}/move")
        assert answer.status == 202, answer.body
        worker = threading.Thread(target=MigrationWorker(self.services).run_once)
        worker.start()
        while worker.is_alive() and self.migration["phase"] != until:
            if self.migration["phase"] == Phase.PREPARING:
                self.target.converge()
            worker.join(0.01)
        if until is not Phase.PREPARING:
            worker.join()
        return answer.body

    def say(self, host: PretendHost, **said: Any) -> None:
        """A host's report of the move."""
        host.sync_down()
        wish = host.wish("vm1")
        move = wish.incoming or wish.outgoing
        assert move is not None
        host.report(observed(wish, ObservedMove(id=move.id, **said)))

    @property
    def migration(self) -> Any:
        return self.api.get("/migrations").body["items"][0]


def observed(wish: DesiredWorkload, move: ObservedMove | None = None) -> ObservedWorkload:
    return ObservedWorkload(
        id=wish.id,
        observed_generation=wish.generation,
        status=WorkloadStatus(state=State.RUNNING),
        move=move,
    )


@pytest.fixture
def pair(api: Api, services: Services) -> Pair:
    source = PretendHost(services)
    made = api.post(ALL, {"name": "vm1", "kind": "vm", "image": "busybox-vm"})
    assert made.status == 202, made.body
    source.converge()
    return Pair(api, services, source, PretendHost(services))


def claimed(api: Api, host: PretendHost) -> float:
    return float(api.get(f"/hosts/{host.id}").body["claimed"]["vcpus"])


def test_it_goes_through_its_phases(api: Api, pair: Pair) -> None:
    before = api.get(ONE).body
    begun = pair.begin()
    assert (pair.migration["mode"], pair.migration["phase"]) == ("live", "migrating")
    coming = pair.target.wish("vm1")
    assert coming.incoming is not None
    assert coming.incoming.source_host_id == pair.source.id
    pair.source.sync_down()
    going = pair.source.wish("vm1").outgoing
    assert going is not None
    assert going.target_url == f"wss://{pair.target.id}"
    assert going.ticket not in str(coming)  # the target knows its hash only
    pair.say(pair.source, progress=0.5, copied=1 << 20, message="on its way")
    operation = api.get(f"/operations/{begun['id']}").body
    assert operation["message"] == "1MiB have gone, on its way"
    assert pair.migration["copied"] == 1 << 20
    pair.say(pair.source, departed=True)
    assert pair.migration["phase"] == "starting"
    assert api.get(ONE).body["status"]["state"] == "running"  # all the time
    pair.target.converge()
    assert pair.migration["phase"] == "cleaning"
    pair.source.converge()
    after = api.get(ONE).body
    assert pair.migration["phase"] == "done"
    assert (after["host"]["id"], after["nics"]) == (pair.target.id, before["nics"])
    assert api.get(f"/operations/{begun['id']}").body["state"] == "succeeded"
    assert (claimed(api, pair.source), claimed(api, pair.target)) == (0.0, 1.0)


def test_a_lost_source_says_nothing_any_more(api: Api, services: Services, pair: Pair) -> None:
    """Highly available: it is restarted, once its target has removed whatever came there."""
    assert api.patch(ONE, {"ha": {"enabled": True}}).status in (200, 202)
    pair.source.converge()
    begun = pair.begin()
    seen = fall_silent(services, pair.target)
    assert failover.look(services, seen) == 0
    assert (pair.migration["phase"], pair.migration["error"]["code"]) == (
        *("retreating", "source_lost"),
    )
    assert api.get(f"/operations/{begun['id']}").body["state"] == "failed"
    assert failover.look(services, seen) == 0  # the target may have it yet
    pair.target.converge()
    assert pair.migration["phase"] == "failed"
    assert failover.look(services, seen) == 1
    assert api.get(ONE).body["host"]["id"] == pair.target.id


def test_a_source_that_is_dead_for_good_can_be_removed(
    api: Api, services: Services, pair: Pair
) -> None:
    path, force = f"/hosts/{pair.source.id}", {"force": "true"}
    pair.begin()
    assert api.delete(path, query=force).status == 409  # it answers
    fall_silent(services, pair.target)
    assert api.delete(path, query=force).status == 204
    assert claimed(api, pair.target) == 0.0
    assert api.get(ONE).status == 404


def test_what_stays_is_removed_from_the_target(api: Api, pair: Pair) -> None:
    begun = pair.begin()
    why = Reason(code="cpu_differs", message="the CPU is another one", hint="wait")
    pair.say(pair.source, stayed=True, reason=why)
    assert pair.migration["phase"] == "retreating"
    assert pair.migration["error"]["code"] == "cpu_differs"
    operation = api.get(f"/operations/{begun['id']}").body
    assert (operation["state"], operation["error"]["code"]) == ("failed", "cpu_differs")
    assert claimed(api, pair.target) == 1.0  # until it has cleared up
    pair.target.converge()
    assert pair.migration["phase"] == "failed"
    assert (claimed(api, pair.source), claimed(api, pair.target)) == (1.0, 0.0)
    pair.source.sync_down()
    assert pair.source.wish("vm1").outgoing is None
    assert api.get(ONE).body["host"]["id"] == pair.source.id


def test_a_target_that_cannot_prepare_says_why(pair: Pair) -> None:
    pair.begin(Phase.PREPARING)
    why = Reason(code="disk_full", message="the disk is full")
    pair.say(pair.target, refused=True, reason=why)
    assert (pair.migration["phase"], pair.migration["error"]["code"]) == ("retreating", "disk_full")
    pair.source.sync_down()
    assert pair.source.wish("vm1").outgoing is None


def test_only_the_source_says_how_a_cancelled_one_ended(api: Api, pair: Pair) -> None:
    pair.begin()
    assert api.post(f"/migrations/{pair.migration['id']}/cancel").status == 200
    assert pair.migration["phase"] == "migrating"
    pair.source.sync_down()
    going = pair.source.wish("vm1").outgoing
    assert going is not None
    assert going.cancelled
    pair.source.converge()
    assert (pair.migration["phase"], pair.migration["error"]["code"]) == ("retreating", "cancelled")
    assert api.post(f"/migrations/{pair.migration['id']}/cancel").status == 200  # twice is once
    pair.target.converge()
    pair.begin()
    api.post(f"/migrations/{pair.migration['id']}/cancel")
    pair.say(pair.source, departed=True)  # it was too late
    assert pair.migration["phase"] == "starting"


def test_a_source_that_dies_after_it_let_go(pair: Pair, clock: StillClock) -> None:
    """What it told the target is enough; what nobody said is waited for."""
    pair.begin()
    clock.advance(seconds=40)
    pair.target.sync_down()
    fall_silent(pair.services, pair.target)
    assert pair.migration["phase"] == "migrating"
    assert pair.target.wish("vm1").incoming is not None  # it may not let it run
    pair.say(pair.target, ready=True, arrived=True)
    assert pair.migration["phase"] == "starting"
    pair.target.converge()
    assert pair.migration["phase"] == "cleaning"


def test_a_target_that_falls_silent_before_it_is_ready(
    api: Api, pair: Pair, clock: StillClock
) -> None:
    api.post(f"{ONE}/move")
    clock.advance(seconds=40)
    pair.source.converge()
    fall_silent(pair.services, pair.source)
    pair.source.converge()
    MigrationWorker(pair.services).run_once()
    failed = pair.migration
    assert (failed["phase"], failed["error"]["code"]) == ("failed", "host_unreachable")
    assert claimed(api, pair.target) == 0.0


def test_a_target_that_dies_with_what_it_has_holds_nobody_up(
    api: Api, pair: Pair, clock: StillClock
) -> None:
    """It may be moved elsewhere meanwhile; the target clears up when it is back."""
    pair.begin()
    pair.target.sync_down()
    assert "vm1" in {wish.name for wish in pair.target.wishes.values()}
    pair.say(pair.source, stayed=True)
    assert pair.migration["phase"] == "retreating"
    clock.advance(seconds=40)
    pair.source.converge()
    fall_silent(pair.services, pair.source)
    assert (pair.migration["phase"], claimed(api, pair.target)) == ("failed", 0.0)
    pair.target.sync_down()
    assert pair.target.wishes == {}  # it is told everything, and this is not among it


def test_what_cannot_be_live_is_refused_until_cold_is_said(api: Api, services: Services) -> None:
    source = PretendHost(services)
    assert api.post(ALL, {"name": "vm1", "kind": "vm", "image": "busybox-vm"}).status == 202
    source.converge()
    PretendHost(services, without=frozenset({Feature.LIVE_MIGRATION}))
    refused = api.post(f"{ONE}/move")
    assert (refused.status, refused.code) == (409, "not_live")
    assert "does not offer live migration" in refused.body["detail"]
    assert "--cold" in refused.body["hint"]
    planned = api.post(f"{ONE}/move", {"mode": "cold"}, query=DRY).body["would"]["plan"][0]
    assert planned["mode"] == "cold"
    assert api.post(f"{ONE}/move", {"mode": "cold"}).status == 202


def test_a_host_that_can_take_it_live_is_found(api: Api, services: Services) -> None:
    source = PretendHost(services)
    assert api.post(ALL, {"name": "vm1", "kind": "vm", "image": "busybox-vm"}).status == 202
    source.converge()
    for _ in range(3):
        PretendHost(services, without=frozenset({Feature.LIVE_MIGRATION}))
    able = PretendHost(services)
    (planned,) = api.post(f"{ONE}/move", query=DRY).body["would"]["plan"]
    assert (planned["mode"], planned["target"]["id"]) == ("live", able.id)


def test_a_drain_prefers_hosts_that_take_it_live_and_says_why_not(
    api: Api, services: Services
) -> None:
    source = PretendHost(services)
    assert api.post(ALL, {"name": "vm1", "kind": "vm", "image": "busybox-vm"}).status == 202
    source.converge()
    for _ in range(3):
        PretendHost(services, without=frozenset({Feature.LIVE_MIGRATION}))
    able = PretendHost(services)

    def planned() -> Any:
        return api.post(f"/hosts/{source.id}/drain", query=DRY).body["would"]["plan"][0]

    assert (planned()["mode"], planned()["target"]["id"]) == ("live", able.id)
    assert api.post(f"/hosts/{able.id}/cordon").status == 200
    assert planned()["mode"] == "cold"
    reasons = {why["code"]: why["message"] for why in planned()["not_live"]}
    assert set(reasons) == {"host_not_able", "not_taken_live"}
    assert "it is cordoned" in reasons["not_taken_live"]


def test_a_drain_says_how_each_goes(api: Api, pair: Pair) -> None:
    assert api.post(f"/hosts/{pair.target.id}/cordon").status == 200
    assert api.post(ALL, {"name": "app1", "kind": "container", "image": "busybox"}).status == 202
    pair.source.converge()
    assert api.post(f"/hosts/{pair.target.id}/uncordon").status == 200
    plan = api.post(f"/hosts/{pair.source.id}/drain", query=DRY).body["would"]["plan"]
    found = {one["workload"]["name"]: one for one in plan}
    assert (found["app1"]["mode"], found["vm1"]["mode"]) == ("cold", "live")
    assert found["vm1"]["stop_timeout"] == 0
    assert found["vm1"]["downtime"] < found["app1"]["downtime"]
    assert found["vm1"]["not_live"] == []
