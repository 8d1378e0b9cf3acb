"""Rules, weighers, batches and explanations, each by a small example."""

from __future__ import annotations

import json
from typing import Any

import pytest

from virtmgr.domain.host import HostState, SchedulingPolicy
from virtmgr.domain.scheduling import (
    Amounts,
    ClusterView,
    Decision,
    Fleet,
    HostPort,
    HostView,
    Overcommit,
    PlacedWorkload,
    PlacementRequest,
    fits,
    place,
)
from virtmgr.domain.workload import GIB, MIB, Affinity, Init, Kind

from .strategies import cluster, host, request


def decide(*hosts: HostView, placed: tuple[PlacedWorkload, ...] = (), **wanted: Any) -> Decision:
    (decision,) = place(Fleet([cluster()], hosts, placed), [request(**wanted)])
    return decision


def where(fleet: Fleet, requests: list[PlacementRequest]) -> list[str | None]:
    return [decision.host_id for decision in place(fleet, requests)]


def on(number: int, **labels: str) -> PlacedWorkload:
    return PlacedWorkload(
        id=f"w-{number}-{labels}", project_id="p", host_id=host(number).id, labels=labels
    )


def web(mode: str, **more: Any) -> Affinity:
    return Affinity.model_validate({"mode": mode, "labels": {"tier": "web"}, **more})


def test_a_refusal_counts_every_host_once_and_names_the_nearest() -> None:
    decision = decide(
        host(1, claimed_memory=6 * GIB + 512 * MIB),
        host(2, claimed_memory=8 * GIB),
        host(3, state=HostState.CORDONED),
        memory=4 * GIB,
    )
    assert decision.host_id is None
    assert decision.host_version is None
    assert decision.explanation.summary == (
        "no host fits: 1 is cordoned, 2 lack memory (largest free 1.5GiB, asked 4GiB)"
    )


@pytest.mark.parametrize("state", sorted(set(HostState) - {HostState.READY}))
def test_only_a_host_that_is_ready_takes_anything(state: HostState) -> None:
    assert decide(host(1, state=state)).explanation.rejected == {f"host_{state}": 1}


def test_a_choice_says_why_and_carries_the_version_that_was_read() -> None:
    fleet = Fleet(
        [cluster(policy=SchedulingPolicy.SPREAD)],
        [host(1, claimed_vcpus=4), host(2), host(3, claimed_vcpus=2)],
    )
    (decision,) = place(fleet, [request()])
    assert (decision.host_id, decision.host_version) == ("host-002", 3)
    assert decision.explanation.summary == "placed on h2: least claimed of 3 that fit"
    assert [verdict.host_name for verdict in decision.explanation.verdicts] == ["h2", "h3", "h1"]


@pytest.mark.parametrize(
    ("hosts", "summary"),
    [
        ([], "no host fits: there is none to choose from"),
        ([host(1)], "placed on h1: the only host that fits"),
    ],
)
def test_summaries_of_the_edges(hosts: list[HostView], summary: str) -> None:
    assert decide(*hosts).explanation.summary == summary


@pytest.mark.parametrize(
    ("given", "wanted", "code", "message"),
    [
        ({"state": HostState.MAINTENANCE}, {}, "host_maintenance", "it is in maintenance"),
        ({"state": HostState.UNREACHABLE}, {}, "host_unreachable", "it is unreachable"),
        (
            {"architecture": "aarch64"},
            {"architecture": "x86_64"},
            "other_architecture",
            "its architecture is aarch64, not x86_64",
        ),
        (
            {"kinds": frozenset({"vm"})},
            {"kind": Kind.CONTAINER, "init": Init.APP},
            "no_driver",
            "it has no healthy driver for container:app, only for vm",
        ),
        (
            {"labels": {"zone": "b"}},
            {"require": {"zone": "a"}},
            "lacks_label",
            "zone=a is required, it has zone=b",
        ),
        ({}, {"require": {"arch": "riscv64"}}, "lacks_label", "arch=riscv64 is required, it has "),
        ({}, {"bridges": frozenset({"br0"})}, "no_bridge", "the host's bridge br0"),
        ({}, {"vlans": True}, "no_vlan", "its kernel lacks 8021q"),
        (
            {"no_tunnel": "it is in a cellar"},
            {"overlay_mtu": 1450},
            "no_tunnel",
            "it has no tunnel for overlay networks: it is in a cellar",
        ),
        (
            {"overlay_mtu": 1430},
            {"overlay_mtu": 1450},
            "tunnel_too_narrow",
            "its tunnel carries packets of 1430 bytes, 1450 are asked",
        ),
        (
            {"ports": frozenset({HostPort("tcp", 80, "127.0.0.1")})},
            {"ports": frozenset({HostPort("tcp", 80, "0.0.0.0")})},
            "port_taken",
            "its port 0.0.0.0:80/tcp is published by another workload",
        ),
        ({}, {"host_id": "host-009"}, "not_the_host", "only host host-009 is asked for"),
        (
            {},
            {"volume_host_ids": frozenset({"host-009"})},
            "volume_elsewhere",
            "its volumes are on host-009",
        ),
        ({}, {"vcpus": 8.5}, "lacks_vcpus", "8 of 8 vCPUs free to claim, 8.5 asked"),
        ({}, {"disk": 101 * GIB}, "lacks_disk", "100GiB of 100GiB disk free to claim"),
        ({}, {"cluster_id": "edge"}, "other_cluster", "it is in cluster default, edge is asked"),
    ],
)
def test_every_rule_says_why(
    given: dict[str, Any], wanted: dict[str, Any], code: str, message: str
) -> None:
    explanation = decide(host(1, **given), **wanted).explanation
    (verdict,) = explanation.verdicts
    (reason,) = verdict.reasons
    assert reason.code == code
    assert message in reason.message
    assert dict(explanation.rejected) == {code: 1}


def test_a_batch_that_publishes_one_port_takes_a_host_each() -> None:
    web = frozenset({HostPort("tcp", 80, "127.0.0.1")})
    fleet = Fleet([cluster()], [host(1), host(2, ports=web), host(3)])
    decisions = place(fleet, [request(n, ports=web) for n in range(3)])
    assert {decision.host_id for decision in decisions} == {"host-001", "host-003", None}
    assert dict(decisions[2].explanation.rejected) == {"port_taken": 3}


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (("tcp", 80, "127.0.0.1"), ("tcp", 80, "127.0.0.1"), True),
        (("tcp", 80, "127.0.0.1"), ("tcp", 80, "0.0.0.0"), True),
        (("tcp", 80, "::"), ("tcp", 80, "fd00::1"), True),
        (("tcp", 80, "127.0.0.1"), ("udp", 80, "127.0.0.1"), False),
        (("tcp", 80, "127.0.0.1"), ("tcp", 81, "0.0.0.0"), False),
        (("tcp", 80, "127.0.0.1"), ("tcp", 80, "192.0.2.1"), False),
        (("tcp", 80, "0.0.0.0"), ("tcp", 80, "::"), False),
    ],
)
def test_ports_that_a_host_cannot_publish_both(
    one: tuple[str, int, str], other: tuple[str, int, str], overlap: bool
) -> None:
    assert HostPort(*one).overlaps(HostPort(*other)) is overlap
    assert HostPort(*other).overlaps(HostPort(*one)) is overlap


def test_pack_fills_a_host_before_the_next() -> None:
    fleet = Fleet([cluster(policy=SchedulingPolicy.PACK)], [host(1), host(2, claimed_memory=GIB)])
    assert where(fleet, [request(n) for n in range(8)]) == ["host-002"] * 7 + ["host-001"]


def test_balanced_looks_at_the_scarcer_resource() -> None:
    lopsided = host(1, claimed_vcpus=6)  # less claimed on the whole, but vCPUs run out
    even = host(2, claimed_vcpus=4, claimed_memory=4 * GIB)
    assert decide(lopsided, even).host_id == even.id


def test_a_preferred_label_and_an_image_at_hand_decide_among_like_hosts() -> None:
    assert decide(host(1), host(2, image_ids=frozenset({"i"})), image_id="i").host_id == "host-002"
    preferring = decide(
        host(1, image_ids=frozenset({"i"})),
        host(2, labels={"disk": "fast"}),
        image_id="i",
        prefer={"disk": "fast"},
    )
    assert preferring.host_id == "host-002"
    assert preferring.explanation.summary == (
        "placed on h2: best of 2 that fit by preferred labels, "
        "most room in the scarcer of vCPUs and memory, image at hand"
    )


def test_equal_hosts_share_the_requests() -> None:
    fleet = Fleet([cluster()], [host(n) for n in range(4)])
    chosen = {place(fleet, [request(n)])[0].host_id for n in range(64)}
    assert len(chosen) == 4


def test_spread_by_zone_is_even_whatever_the_policy_likes() -> None:
    zones = ["a", "a", "a", "b", "c"]
    fleet = Fleet(
        [cluster(policy=SchedulingPolicy.PACK)],
        [host(n, labels={"zone": zone}) for n, zone in enumerate(zones)],
    )
    hosts = where(fleet, [request(n, spread_by="zone") for n in range(9)])
    counts = [sum(zones[int(h[-1])] == zone for h in hosts if h) for zone in "abc"]
    assert counts == [3, 3, 3]


def test_spread_by_host_counts_those_with_the_same_labels_made_earlier() -> None:
    fleet = Fleet([cluster()], [host(1), host(2, claimed_memory=GIB)], [on(1, tier="web")])
    assert where(fleet, [request(labels={"tier": "web"}, spread_by="host")]) == ["host-002"]


def test_affinity_holds_within_a_batch() -> None:
    fleet = Fleet([cluster()], [host(n) for n in range(3)])
    apart = [request(n, labels={"tier": "web"}, affinity=(web("apart"),)) for n in range(4)]
    hosts = where(fleet, apart)
    assert sorted(hosts[:3], key=str) == ["host-000", "host-001", "host-002"]
    assert hosts[3] is None
    together = [request(n, labels={"tier": "web"}, affinity=(web("together"),)) for n in range(4)]
    assert len(set(where(fleet, together))) == 1


def test_together_with_what_is_not_there_is_refused_unless_it_is_the_first_of_its_group() -> None:
    lonely = decide(host(1), affinity=(web("together"),))
    assert lonely.explanation.summary == "no host fits: 1 is on a host without tier=web"
    assert decide(host(1), labels={"tier": "web"}, affinity=(web("together"),)).host_id


def test_affinity_speaks_of_zones_and_of_the_own_project_only() -> None:
    hosts = [host(n, labels={"zone": "ab"[n // 2]}) for n in range(4)]
    apart = (web("apart", scope="zone"),)
    near_web = decide(*hosts, placed=(on(0, tier="web"),), affinity=apart)
    assert near_web.host_id in ("host-002", "host-003")
    other = decide(*hosts, placed=(on(0, tier="web"),), affinity=apart, project_id="q")
    assert other.explanation.fitting == 4


def test_affinity_that_is_not_required_is_only_preferred() -> None:
    soft = (web("apart", required=False),)
    assert decide(host(1), host(2), placed=(on(1, tier="web"),), affinity=soft).host_id[-1] == "2"  # type: ignore[index]
    assert decide(host(1), placed=(on(1, tier="web"),), affinity=soft).host_id == "host-001"


def test_a_placed_workload_that_requires_to_be_apart_keeps_newcomers_away() -> None:
    hermit = PlacedWorkload(id="x", project_id="p", host_id="host-001", affinity=(web("apart"),))
    decision = decide(host(1), host(2), placed=(hermit,), labels={"tier": "web"})
    assert decision.host_id == "host-002"
    assert dict(decision.explanation.rejected) == {"kept_apart": 1}


def test_a_large_fleet_is_explained_by_its_telling_hosts_and_counted_whole() -> None:
    hosts = [host(n, state=HostState.CORDONED if n % 2 else HostState.READY) for n in range(300)]
    decision = decide(*hosts)
    explanation = decision.explanation
    assert explanation.fitting == explanation.rejected["host_cordoned"] == 150
    assert not explanation.complete
    assert decision.host_id == explanation.verdicts[0].host_id
    assert sum(not verdict.fits for verdict in explanation.verdicts) == 3
    assert len(explanation.verdicts) <= 14


def test_explanations_stay_true_after_the_batch_has_gone_on() -> None:
    decisions = place(Fleet([cluster()], [host(1)]), [request(n, memory=3 * GIB) for n in range(4)])
    assert [decision.host_id for decision in decisions] == ["host-001", "host-001", None, None]
    (verdict,) = decisions[2].explanation.verdicts
    assert verdict.reasons[0].message == "2GiB of 8GiB memory free to claim, 3GiB asked"
    assert decisions[0].explanation.verdicts[0].fits


def test_explanations_are_json() -> None:
    told = json.loads(json.dumps(decide(host(1), host(2), vcpus=9).explanation.to_json()))
    assert told["rejected"] == {"lacks_vcpus": 2}
    assert told["verdicts"][0]["host"] == {"id": "host-001", "name": "h1"}


def test_fractions_of_vcpus_fill_a_host_exactly() -> None:
    fleet = Fleet([cluster()], [host(1, capacity_vcpus=0.3)])
    assert where(fleet, [request(n, vcpus=0.1) for n in range(4)]) == ["host-001"] * 3 + [None]


def test_bytes_are_compared_exactly_beyond_what_floats_can_hold() -> None:
    huge = Amounts(1, 2**60 - 1, 0)
    nothing, asked = Amounts(0, 0, 0), Amounts(1, 2**60, 0)
    (short,) = fits(huge, nothing, Overcommit(), asked)
    assert short.code == "lacks_memory"
    assert not fits(huge, nothing, Overcommit(), huge)


def test_what_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="two with the same id"):
        Fleet([cluster()], [host(1), host(1)])
    with pytest.raises(ValueError, match="cluster c, not given"):
        Fleet([], [host(1)])
    with pytest.raises(ValueError, match="init is not resolved"):
        request(kind=Kind.CONTAINER)


def test_a_thousand_at_once_fill_a_cluster_evenly() -> None:
    fleet = Fleet(
        [ClusterView(id="c", name="c", overcommit_vcpus=16, overcommit_memory=16)],
        [host(n) for n in range(50)],
    )
    hosts = where(fleet, [request(n, disk=0, spread_by="host") for n in range(1000)])
    assert {hosts.count(f"host-{n:03}") for n in range(50)} == {20}
