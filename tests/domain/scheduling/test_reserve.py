"""Room for failures: the rule against trying every failure by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.host import HostState
from virtmgr.domain.scheduling import (
    Amounts,
    ClusterView,
    Decision,
    Fleet,
    HostView,
    PlacementRequest,
    greatest,
    place,
)
from virtmgr.domain.scheduling.reserve import failures_left, survived
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.workload import Init, Kind

_STATES = st.sampled_from([HostState.READY] * 4 + [HostState.CORDONED, HostState.UNREACHABLE])


@st.composite
def hosts(draw: st.DrawFn, number: int) -> HostView:
    claimed = draw(st.integers(0, 10))
    return HostView(
        id=f"h{number}",
        name=f"h{number}",
        cluster_id="c",
        state=draw(_STATES),
        capacity_vcpus=100,
        capacity_memory=draw(st.integers(claimed, 12)),
        capacity_disk=100,
        claimed_memory=claimed,
        ha_memory=draw(st.integers(0, claimed)),
        kinds=frozenset({"container:app"}),
    )


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    found = [draw(hosts(number)) for number in range(draw(st.integers(1, 5)))]
    return Fleet([ClusterView(id="c", name="c", reserve=draw(st.integers(0, 3)))], found)


def survives(found: list[HostView], failures: int) -> bool:
    """Every choice of hosts that speak and fail, one by one."""
    speaking = [host for host in found if host.state is not HostState.UNREACHABLE]
    for failing in combinations(speaking, min(failures, len(speaking))):
        free = sum(
            host.capacity_memory - host.claimed_memory
            for host in speaking
            if host not in failing and host.state is HostState.READY
        )
        if free < sum(host.ha_memory for host in failing):
            return False
    return True


@given(fleets(), st.integers(1, 5), st.booleans())
def test_a_placement_leaves_room_for_every_failure(fleet: Fleet, memory: int, ha: bool) -> None:
    request = PlacementRequest(
        id="w", name="w", project_id="p", cluster_id="c", kind=Kind.CONTAINER, init=Init.APP,
        vcpus=1, memory=memory, disk=0, ha=ha,
    )  # fmt: skip
    failures = failures_left(fleet, "c")

    def after(host: HostView) -> list[HostView]:
        more = {"claimed_memory": host.claimed_memory + memory}
        if ha:
            more["ha_memory"] = host.ha_memory + memory
        return [replace(each, **more) if each is host else each for each in fleet.hosts]

    fitting = [
        host.id
        for host in fleet.hosts
        if host.state is HostState.READY
        and host.claimed_memory + memory <= host.capacity_memory
        and survives(after(host), failures)
    ]
    (decision,) = place(fleet, [request])
    assert (decision.host_id is not None) == bool(fitting), decision.explanation.summary
    assert decision.host_id is None or decision.host_id in fitting
    (anyway,) = place(fleet, [replace(request, from_reserve=True)])
    assert anyway.host_id is not None or not fitting


@given(fleets())
def test_what_a_cluster_survives(fleet: Fleet) -> None:
    count = survived(Tally(fleet), "c")
    assert all(survives(list(fleet.hosts), failures) for failures in range(count + 1))


@given(fleets(), st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=8))
def test_a_batch_leaves_room_as_if_it_was_placed_one_by_one(
    fleet: Fleet, asked: list[tuple[int, bool]]
) -> None:
    batch = [
        PlacementRequest(
            id=f"w{number}", name="w", project_id="p", cluster_id="c", kind=Kind.CONTAINER,
            init=Init.APP, vcpus=0.1, memory=memory, disk=0, ha=ha,
        )
        for number, (memory, ha) in enumerate(asked)
    ]  # fmt: skip
    together = place(fleet, batch)
    for request, decision in zip(batch, together, strict=True):
        (alone,) = place(fleet, [replace(request, id="w0")])  # the batch's place to start from
        assert decision.host_id == alone.host_id
        assert decision.explanation.to_json() == alone.explanation.to_json()
        fleet = Fleet(fleet.clusters.values(), [_after(request, decision, h) for h in fleet.hosts])


def _after(request: PlacementRequest, decision: Decision, host: HostView) -> HostView:
    if host.id != decision.host_id:
        return host
    ha = request.asked if request.ha else Amounts(0, 0, 0)
    return replace(
        host,
        claimed_vcpus=host.claimed_vcpus + request.vcpus,
        claimed_memory=host.claimed_memory + request.memory,
        ha_vcpus=host.ha_vcpus + ha.vcpus,
        ha_memory=host.ha_memory + ha.memory,
    )


numbers = st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.0])


@given(
    st.lists(numbers, min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), numbers, st.integers(0, 13)), max_size=40),
    st.integers(0, 3),
)
def test_the_greatest_numbers_stay_the_greatest(
    values: list[float], changes: list[tuple[int, float, int]], spare: int
) -> None:
    with patch.object(greatest, "_SPARE", spare):
        kept = greatest.Greatest(np.array(values))
        for index, value, count in changes:
            kept.put(index % len(values), value)
            values[index % len(values)] = value
            assert kept.first(count) == sorted(values, reverse=True)[:count]
            assert kept.values.tolist() == values


def test_a_refusal_says_what_is_kept() -> None:
    host = HostView(
        id="a", name="a", cluster_id="c", state=HostState.READY, capacity_vcpus=8,
        capacity_memory=8 << 30, capacity_disk=1 << 40, claimed_memory=4 << 30,
        ha_memory=4 << 30, kinds=frozenset({"container:app"}),
    )  # fmt: skip
    fleet = Fleet(
        [ClusterView(id="c", name="c", reserve=1)], [host, replace(host, id="b", name="b")]
    )
    request = PlacementRequest(
        id="w", name="w", project_id="p", cluster_id="c", kind=Kind.CONTAINER, init=Init.APP,
        vcpus=1, memory=1 << 30, disk=0,
    )  # fmt: skip
    (decision,) = place(fleet, [request])
    assert decision.host_id is None
    assert "too little memory for the failure of a host" in decision.explanation.summary
    assert "are kept for the failure of a host" in str(decision.explanation.to_json())
