"""Overlay networks as their makers and their hosts see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import StillClock, open_services
from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.domain.host import Tunnel
from virtmgr.domain.sync import DesiredNetwork, SyncRequest
from virtmgr.services.container import Services

NETWORKS = "/projects/default/networks"
WORKLOADS = "/projects/default/workloads"


@pytest.fixture
def woken() -> list[str]:
    """Ids of hosts that were woken."""
    return []


@pytest.fixture
def services(
    empty_database: Path, tmp_path: Path, clock: StillClock, woken: list[str]
) -> Iterator[Services]:
    with open_services(empty_database, tmp_path, clock) as services:
        yield replace(services, wake_host=woken.append)


@dataclass
class Pair:
    """Two hosts with tunnels, and the overlay ``far``."""

    api: Api
    first: PretendHost
    second: PretendHost
    woken: list[str] = field(default_factory=list)

    def run(self, name: str, host: PretendHost) -> None:
        self.ok(self.api.post(WORKLOADS, _spec(name) | {"placement": {"host": host.id}}))

    def ok(self, answer: Any) -> Any:
        assert answer.status < 300, answer.body
        return answer.body

    def woken_now(self) -> set[str]:
        """Which hosts were woken since this was last asked."""
        found = set(self.woken)
        self.woken.clear()
        return found


def _spec(name: str) -> dict[str, Any]:
    return {"name": name, "kind": "container", "image": "busybox", "nics": [{"network": "far"}]}


def network_of(host: PretendHost) -> DesiredNetwork:
    """The only network that a host has, as it hears of it now."""
    host.sync_down()
    assert host.last is not None
    assert host.last.networks is not None
    (network,) = host.last.networks
    return network


def tunnels(host: PretendHost) -> dict[str, str | None]:
    """Where the network's members are, as the host hears of it."""
    return {entry.name: entry.tunnel for entry in network_of(host).names}


@pytest.fixture
def pair(api: Api, services: Services, woken: list[str]) -> Pair:
    first, second = (
        PretendHost(services, tunnel=Tunnel(address=f"192.0.2.{number}", mtu=1450))
        for number in (1, 2)
    )
    body = {"name": "far", "type": "overlay", "ipv4": "10.90.0.0/24", "ipv6": "fd90::/64"}
    assert api.post(NETWORKS, body).status == 201
    return Pair(api, first, second, woken)


def test_each_gets_an_identifier_of_its_own_and_packets_that_fit(pair: Pair) -> None:
    other = pair.ok(
        pair.api.post(NETWORKS, {"name": "n", "type": "overlay", "ipv4": "10.91.0.0/24"})
    )
    far = pair.ok(pair.api.get(NETWORKS + "/far"))
    assert len({far["vni"], other["vni"], None}) == 3
    assert far["mtu"] == other["mtu"] == 1450
    plain = pair.ok(pair.api.post(NETWORKS, {"name": "p", "ipv4": "10.92.0.0/24"}))
    assert (plain["vni"], plain["mtu"]) == (None, 1500)


def test_packets_that_fit_no_tunnel_are_refused(pair: Pair) -> None:
    body = {"name": "wide", "type": "overlay", "ipv4": "10.91.0.0/24", "mtu": 1451}
    refused = pair.api.post(NETWORKS, body)
    assert (refused.status, refused.code, refused.body["field"]) == (409, "mtu_too_large", "mtu")
    assert pair.api.post(NETWORKS, body | {"mtu": 1400}).body["mtu"] == 1400


def test_hosts_hear_where_members_are(pair: Pair) -> None:
    pair.run("one", pair.first)
    pair.run("two", pair.second)
    assert tunnels(pair.first) == {"one": None, "two": "192.0.2.2"}
    assert tunnels(pair.second) == {"one": "192.0.2.1", "two": None}
    here, there = network_of(pair.first), network_of(pair.second)
    assert (here.tunnel, there.tunnel) == ("192.0.2.1", "192.0.2.2")
    assert here.vni == there.vni
    assert (here.gateway4, here.bridge) == (there.gateway4, there.bridge)


def test_a_change_on_one_host_wakes_the_other(pair: Pair) -> None:
    """So that an agent that knows the revision it has asks for more."""
    pair.run("one", pair.first)
    pair.run("two", pair.second)
    both = {pair.first.id, pair.second.id}
    for change in (
        lambda: pair.run("three", pair.second),
        lambda: pair.ok(pair.api.patch(WORKLOADS + "/three", {"name": "drei"})),
        lambda: pair.ok(pair.api.post(WORKLOADS + "/drei/nics", {"network": "far"})),
        lambda: pair.ok(pair.api.delete(WORKLOADS + "/drei/nics/1")),
        lambda: pair.ok(pair.api.patch(NETWORKS + "/far", {"dns_domain": "lan"})),
    ):
        pair.first.sync_down()
        before = pair.first.known_revision
        pair.woken_now()
        change()
        assert pair.woken_now() == both
        pair.first.sync_down()
        assert pair.first.known_revision > before
    pair.ok(pair.api.delete(WORKLOADS + "/drei"))
    pair.woken_now()
    pair.second.converge()  # nothing is left of it there
    assert pair.woken_now() == {pair.first.id}
    assert tunnels(pair.first) == {"one": None, "two": "192.0.2.2"}


def test_what_is_on_no_overlay_wakes_its_own_host_only(pair: Pair) -> None:
    pair.run("one", pair.first)
    pair.woken_now()
    spec = {"name": "lone", "kind": "container", "image": "busybox"}
    pair.ok(pair.api.post(WORKLOADS, spec | {"placement": {"host": pair.second.id}}))
    assert pair.woken_now() == {pair.second.id}


def test_a_host_that_moves_its_tunnel_is_found_there(pair: Pair) -> None:
    pair.run("one", pair.first)
    pair.run("two", pair.second)
    pair.woken_now()
    pair.second.tunnel = Tunnel(address="192.0.2.22", mtu=1450)
    pair.second.sync(SyncRequest(fingerprint=pair.second.fingerprint()))
    assert pair.first.id in pair.woken_now()
    assert tunnels(pair.first)["two"] == "192.0.2.22"
    assert network_of(pair.second).tunnel == "192.0.2.22"
    pair.second.tunnel = Tunnel(reason="its address is gone")
    pair.second.sync(SyncRequest(fingerprint=pair.second.fingerprint()))
    assert tunnels(pair.first)["two"] is None


def test_a_host_without_a_tunnel_is_refused_and_says_why(pair: Pair, services: Services) -> None:
    without = PretendHost(services, tunnel=Tunnel(reason="it is on an island"))
    refused = pair.api.post(WORKLOADS, _spec("lone") | {"placement": {"host": without.id}})
    assert (refused.status, refused.code) == (409, "no_placement")
    assert "no tunnel" in refused.body["detail"]
    spec = _spec("lone") | {"nics": [], "placement": {"host": without.id}}
    pair.ok(pair.api.post(WORKLOADS, spec))
    without.converge()
    refused = pair.api.post(WORKLOADS + "/lone/nics", {"network": "far"})
    assert (refused.status, refused.code) == (409, "no_tunnel")
    assert "it is on an island" in refused.body["detail"]


def test_a_tunnel_that_others_cannot_reach_is_none(pair: Pair, services: Services) -> None:
    odd = PretendHost(services, tunnel=Tunnel(address="2001:db8::3", mtu=1450))
    facts = pair.ok(pair.api.get(f"/hosts/{odd.id}"))["facts"]
    assert facts["tunnel"]["address"] == ""
    assert "192.0.2." in facts["tunnel"]["reason"]
    refused = pair.api.post(WORKLOADS, _spec("lone") | {"placement": {"host": odd.id}})
    assert (refused.status, refused.code) == (409, "no_placement")
