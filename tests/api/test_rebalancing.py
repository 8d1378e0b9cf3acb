"""Rebalancing a cluster: the plan, what carries it out, and what tells that it is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.domain.host import HostState
from virtmgr.domain.rebalancing.rounds import PATIENCE
from virtmgr.services import rebalancing_worker
from virtmgr.services.container import Services
from virtmgr.services.migration_worker import MigrationWorker

WORKLOADS = "/projects/default/workloads"
ONE = "/clusters/default"
REBALANCE = f"{ONE}/rebalance"
DRY = {"dry_run": "true"}


@dataclass
class Site:
    """Hosts, of which the first has all workloads, and what moves them."""

    api: Api
    services: Services
    hosts: list[PretendHost]

    def plan(self, **body: Any) -> Any:
        answer = self.api.post(REBALANCE, body, query=DRY)
        assert answer.status == 200, answer.body
        return answer.body["would"]["plan"]

    def start(self, **body: Any) -> Any:
        answer = self.api.post(REBALANCE, body)
        assert answer.status == 202, answer.body
        return answer.body

    def carry_out(self) -> None:
        """Work until nothing is left to do."""
        done = threading.Event()

        def sync() -> None:
            while not done.wait(0.01):
                for host in self.hosts:
                    host.converge()

        thread = threading.Thread(target=sync)
        thread.start()
        try:
            for _ in range(20):
                rebalancing_worker.advance(self.services)
                while MigrationWorker(self.services).run_once():
                    pass
                if not self.open_operations():
                    return
        finally:
            done.set()
            thread.join()
        raise AssertionError("it does not end")

    def open_operations(self) -> list[Any]:
        found = self.api.get("/operations", verb="rebalance").body["items"]
        return [one for one in found if one["finished_at"] is None]

    def where(self) -> dict[str, str]:
        return {one["name"]: one["host"]["id"] for one in self.api.get(WORKLOADS).body["items"]}

    def look(self, rounds: int = PATIENCE) -> None:
        for _ in range(rounds):
            rebalancing_worker.look(self.services)

    def alerts(self) -> list[Any]:
        alerts = self.api.get("/overview").body["alerts"]
        return [alert for alert in alerts if alert["code"] == "out_of_balance"]

    def events(self, type: str) -> list[Any]:
        found: list[Any] = self.api.get("/events", type=type).body["items"]
        return found


@pytest.fixture
def site(api: Api, services: Services) -> Site:
    """Six VMs of 1 GiB on the first of three hosts of 8 GiB: 75 %, where the cluster has 25 %."""
    hosts = [PretendHost(services)]
    for number in range(6):
        body = {"name": f"vm{number}", "kind": "vm", "image": "busybox-vm"}
        body["resources"] = {"memory": "1GiB"}
        answer = api.post(WORKLOADS, body)
        assert answer.status == 202, answer.body
    hosts[0].converge()
    hosts += [PretendHost(services), PretendHost(services)]
    return Site(api, services, hosts)


def claims(api: Api, hosts: list[PretendHost]) -> list[float]:
    return [api.get(f"/hosts/{host.id}").body["claimed"]["vcpus"] for host in hosts]


def test_the_plan_is_shown_and_nothing_moves(site: Site) -> None:
    plan = site.plan()
    assert len(plan["moves"]) == 3
    assert {move["mode"] for move in plan["moves"]} == {"live"}
    assert {move["source"]["id"] for move in plan["moves"]} == {site.hosts[0].id}
    assert "of its memory claimed, the cluster 25%" in plan["moves"][0]["why"]
    assert plan["before"]["imbalance"] > plan["after"]["imbalance"] == 0
    assert [load["workloads"] for load in plan["before"]["hosts"]].count(0) == 2
    assert site.open_operations() == []
    assert set(site.where().values()) == {site.hosts[0].id}


def test_it_is_carried_out_some_at_a_time(site: Site) -> None:
    operation = site.start(at_once=2)
    assert operation["state"] == "running"
    again = site.start()
    assert again["id"] == operation["id"]
    rebalancing_worker.advance(site.services)
    under_way = site.api.get("/migrations", rebalance=operation["id"]).body["items"]
    assert len(under_way) == 2
    assert {one["rebalance_id"] for one in under_way} == {operation["id"]}
    rebalancing_worker.advance(site.services)  # twice is once
    found = site.api.get("/migrations", rebalance=operation["id"]).body["items"]
    assert len(found) == 2
    site.carry_out()
    after = site.api.get(f"/operations/{operation['id']}").body
    assert (after["state"], after["message"]) == ("succeeded", "3 of 3 workloads moved")
    assert sorted(claims(site.api, site.hosts), reverse=True)[0] == 3
    assert site.plan()["moves"] == []
    assert site.plan()["reasons"][0]["code"] == "balanced"


def test_what_cannot_move_any_more_is_left_out(site: Site) -> None:
    operation = site.start(at_once=1)
    for host in site.hosts[1:]:
        assert site.api.post(f"/hosts/{host.id}/cordon").status == 200
    site.carry_out()
    after = site.api.get(f"/operations/{operation['id']}").body
    assert (after["state"], after["error"]["code"]) == ("failed", "not_rebalanced")
    assert set(site.where().values()) == {site.hosts[0].id}


def test_it_is_cancelled(site: Site) -> None:
    operation = site.start()
    rebalancing_worker.advance(site.services)
    assert site.api.post(f"{REBALANCE}/cancel").status == 200
    after = site.api.get(f"/operations/{operation['id']}").body
    assert after["state"] == "cancelled"
    moves = site.api.get("/migrations", rebalance=operation["id"]).body["items"]
    assert {one["phase"] for one in moves} == {"failed"}
    assert claims(site.api, site.hosts) == [6, 0, 0]
    rebalancing_worker.advance(site.services)
    assert len(site.api.get("/migrations").body["items"]) == len(moves)
    assert site.api.post(f"{REBALANCE}/cancel").status == 200  # twice is once


def test_containers_move_only_where_stopping_is_allowed(site: Site) -> None:
    for name in site.where():
        assert site.api.delete(f"{WORKLOADS}/{name}").status == 202
    site.hosts[0].converge()
    for host in site.hosts[1:]:
        site.api.post(f"/hosts/{host.id}/cordon")
    for number in range(6):
        body = {"name": f"c{number}", "kind": "container", "image": "busybox"}
        body["resources"] = {"memory": "1GiB"}
        assert site.api.post(WORKLOADS, body).status == 202
    site.hosts[0].converge()
    for host in site.hosts[1:]:
        site.api.post(f"/hosts/{host.id}/uncordon")
    plan = site.plan()
    assert plan["moves"] == []
    assert {one["reason"]["code"] for one in plan["why_not"]} == {"not_live"}
    assert "containers do not move while they run" in plan["why_not"][0]["reason"]["message"]
    cold = site.plan(cold=True)
    assert {move["mode"] for move in cold["moves"]} == {"cold"}
    assert all(move["downtime"] > 0 for move in cold["moves"])


def test_power_saving_empties_a_host(site: Site) -> None:
    site.start()
    site.carry_out()
    assert site.api.patch(ONE, {"policy": "pack"}).status == 200
    plan = site.plan()
    assert (plan["before"]["empty"], plan["after"]["empty"]) == (0, 2)
    assert all("is emptied" in move["why"] for move in plan["moves"])
    site.start()
    site.carry_out()
    assert sorted(claims(site.api, site.hosts)) == [0, 0, 6]


def test_a_pinned_and_a_moving_workload_stay(site: Site) -> None:
    host = site.api.get(f"/hosts/{site.hosts[0].id}").body["name"]
    body = {"name": "here", "kind": "vm", "image": "busybox-vm"}
    body["placement"] = {"host": host}
    body["resources"] = {"memory": "2GiB"}
    assert site.api.post(WORKLOADS, body).status == 202
    site.hosts[0].converge()
    assert site.api.post(f"{WORKLOADS}/vm0/move").status == 202
    plan = site.plan(moves=1)
    assert {move["workload"]["name"] for move in plan["moves"]} < {f"vm{n}" for n in range(1, 6)}
    why = {one["workload"]["name"]: one["reason"]["code"] for one in plan["why_not"]}
    assert why == {"here": "pinned", "vm0": "being_moved"}
    assert [reason["code"] for reason in plan["reasons"]] == ["bounded"]


def test_it_is_told_once_it_lasts(site: Site) -> None:
    site.look(PATIENCE - 1)
    assert site.alerts() == []
    shown = site.api.get(ONE)
    assert shown.body["imbalance_rounds"] == PATIENCE - 1
    site.look(1)
    (alert,) = site.alerts()
    assert "out of balance for 5 rounds" in alert["message"]
    assert "virtmgr cluster rebalance default --plan" in alert["hint"]
    assert len(site.events("cluster.out_of_balance")) == 1
    assert site.api.get(ONE).body["version"] == shown.body["version"]  # it is only observed
    site.look(PATIENCE)
    assert len(site.events("cluster.out_of_balance")) == 1  # told once
    assert site.open_operations() == []
    site.start()
    site.look(1)  # nothing is counted meanwhile
    site.carry_out()
    site.look(1)
    assert site.alerts() == []
    assert site.api.get(ONE).body["imbalance_rounds"] == 0


def test_automatic_rebalancing_begins_by_itself(site: Site) -> None:
    assert site.api.patch(ONE, {"rebalancing": "automatic"}).status == 200
    site.look(PATIENCE - 1)
    assert site.open_operations() == []
    site.look(1)
    (operation,) = site.open_operations()
    assert operation["user"] is None
    site.carry_out()
    assert sorted(claims(site.api, site.hosts), reverse=True)[0] == 3


def test_only_who_may_move_everything_may(site: Site, as_role: Callable[..., Api]) -> None:
    assert as_role("viewer").post(REBALANCE, {}, query=DRY).status == 403
    assert as_role("operator", "default").post(REBALANCE, {}, query=DRY).status in (403, 404)
    assert as_role("operator").post(REBALANCE, {}, query=DRY).status == 200
    assert site.api.post("/clusters/none/rebalance", {}, query=DRY).status == 404
    assert site.api.post(REBALANCE, {"moves": 0}).status == 422


def test_hosts_that_take_nothing_new_are_left_alone(site: Site) -> None:
    for host in site.hosts[1:]:
        site.api.post(f"/hosts/{host.id}/cordon")
    plan = site.plan()
    assert (plan["moves"], plan["reasons"][0]["code"]) == ([], "too_few_hosts")
    with site.services.units(read_only=True) as uow:
        assert uow.hosts.sizes()[1].state is HostState.CORDONED
