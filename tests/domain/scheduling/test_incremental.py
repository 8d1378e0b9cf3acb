"""What is kept up to date is what would be worked out anew: fleets, tallies, standings."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.scheduling import (
    Amounts,
    Fleet,
    HostPort,
    HostView,
    PlacedWorkload,
    PlacementRequest,
    place,
    shortfalls,
    still_take,
)
from virtmgr.domain.scheduling.rules import rules_for
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.workload import GIB

from .strategies import (
    a_host,
    batches,
    both,
    cluster,
    clusters,
    fleets,
    host,
    hosts,
    placed,
    ports,
    request,
)


def told(fleet: Fleet, batch: list[PlacementRequest]) -> list[object]:
    return [
        (one.host_id, one.host_version, one.explanation.to_json()) for one in place(fleet, batch)
    ]


@given(fleets(), batches())
def test_every_choice_of_a_batch_is_the_best_of_its_explanation(
    fleet: Fleet, batch: list[PlacementRequest]
) -> None:
    alike = [dataclasses.replace(one, id=f"{one.id}-{copy}") for copy in range(3) for one in batch]
    for decision in place(fleet, alike):
        fitting = [verdict for verdict in decision.explanation.verdicts if verdict.fits]
        assert decision.host_id == (fitting[0].host_id if fitting else None)


@given(fleets(), batches(), st.randoms(use_true_random=False))
def test_explanations_say_the_same_in_whatever_order_they_are_read(
    fleet: Fleet, batch: list[PlacementRequest], dice: object
) -> None:
    in_order = [one.explanation.to_json() for one in place(fleet, batch)]
    decisions = list(enumerate(place(fleet, batch)))
    dice.shuffle(decisions)  # type: ignore[attr-defined]
    assert all(one.explanation.to_json() == in_order[number] for number, one in decisions)


@given(st.data(), hosts(), batches())
def test_a_fleet_with_changed_hosts_is_a_new_one(
    data: st.DataObject, machines: list[HostView], batch: list[PlacementRequest]
) -> None:
    one = data.draw(clusters)
    before = Fleet(both(one), machines)
    place(before, batch)  # what it remembers must not be taken for what is
    changed = [
        dataclasses.replace(data.draw(a_host(number)), version=99)
        for number in range(len(machines))
        if data.draw(st.booleans())
    ]
    now = {machine.id: machine for machine in (*machines, *changed)}
    others = data.draw(placed(list(now.values())))
    made = before.with_hosts(changed).beside(others)
    assert told(made, batch) == told(Fleet(both(one), now.values(), others), batch)


@given(st.data(), clusters, hosts(), batches())
def test_what_stands_beside_a_fleet_is_as_if_its_hosts_had_it(
    data: st.DataObject, one: object, machines: list[HostView], batch: list[PlacementRequest]
) -> None:
    published = {m.id: data.draw(st.frozensets(ports, max_size=2)) for m in machines}
    images = {m.id: data.draw(st.frozensets(st.sampled_from(("i1", "i2")))) for m in machines}
    ha = {m.id: Amounts(0.0, data.draw(st.integers(0, 4)) * GIB, 0) for m in machines}
    there = [
        dataclasses.replace(
            m, ports=published[m.id], image_ids=images[m.id], ha_vcpus=0.0,
            ha_memory=ha[m.id].memory, ha_disk=0,
        )
        for m in machines
    ]  # fmt: skip
    at_hand = {
        image: frozenset(id for id, some in images.items() if image in some)
        for image in ("i1", "i2")
    }
    given_clusters = [dataclasses.replace(each, reserve=1) for each in both(one)]  # type: ignore[arg-type, type-var]
    beside = Fleet(given_clusters, machines).beside(at_hand=at_hand, ports=published, ha=ha)
    assert told(beside, batch) == told(Fleet(given_clusters, there), batch)


@given(fleets(), batches(), st.integers(0, 7))
def test_what_is_taken_and_leaves_was_never_there(
    fleet: Fleet, batch: list[PlacementRequest], where: int
) -> None:
    if not len(fleet):
        return
    tally, fresh = Tally(fleet), Tally(fleet)
    for wanted in batch:
        rules_for(tally, wanted)
    for wanted in batch:
        tally.take(wanted, where % len(fleet))
    for wanted in batch:
        rules_for(tally, wanted)
    for wanted in reversed(batch):
        tally.leave(wanted, where % len(fleet))
    for wanted in batch:
        for one, other in zip(rules_for(tally, wanted), rules_for(fresh, wanted), strict=True):
            assert one.code == other.code
            assert np.array_equal(one.passes, other.passes)


def test_what_the_inventory_has_may_leave_and_come_back() -> None:
    web = {"tier": "web"}
    port = HostPort("tcp", 80, "0.0.0.0")
    fleet = Fleet(
        [cluster()],
        [host(1, claimed_memory=GIB, claimed_vcpus=1, claimed_disk=GIB, ports=frozenset({port}))],
        [PlacedWorkload(id="request-000", project_id="p", host_id="host-001", labels=web)],
    )
    tally, one = Tally(fleet), request(0, labels=web, ports=frozenset({port}))
    tally.leave(one, 0)
    assert not tally.near("p", web, "host").any()
    assert not tally.publishing(port).any()
    assert tally.claimed.row(0) == Amounts(0.0, 0, 0)
    tally.take(one, 0)
    assert tally.near("p", web, "host").all()
    assert tally.publishing(port).all()
    assert tally.claimed.row(0) == Amounts(1.0, GIB, GIB)


_EIGHT = {"capacity_vcpus": 8, "capacity_memory": 8 * GIB}


def test_pack_strands_nothing_where_it_can() -> None:
    lopsided = host(1, claimed_vcpus=6, claimed_memory=2 * GIB)  # what is left is memory
    even = host(2, claimed_vcpus=4, claimed_memory=3 * GIB)
    fleet = Fleet([cluster(policy=SchedulingPolicy.PACK)], [lopsided, even])
    (decision,) = place(fleet, [request(vcpus=2, memory=GIB)])
    assert decision.host_id == even.id


def test_pack_takes_little_of_what_is_scarce() -> None:
    few_vcpus = host(1, claimed_vcpus=3, claimed_memory=2 * GIB, **_EIGHT)
    little_memory = host(2, claimed_vcpus=2, claimed_memory=3 * GIB, **_EIGHT)
    there = cluster(policy=SchedulingPolicy.PACK, overcommit_vcpus=1.0)
    fleet = Fleet([there], [few_vcpus, little_memory])
    for vcpus, memory, best in ((2, GIB, little_memory), (1, 2 * GIB, few_vcpus)):
        (decision,) = place(fleet, [request(vcpus=vcpus, memory=memory)])
        assert decision.host_id == best.id
        assert "least taken of what is scarce" in decision.explanation.summary


def test_pack_opens_the_largest_of_empty_hosts() -> None:
    small = host(1, capacity_vcpus=4, capacity_memory=4 * GIB)
    fleet = Fleet([cluster(policy=SchedulingPolicy.PACK)], [small, host(2)])
    (decision,) = place(fleet, [request()])
    assert decision.host_id == "host-002"
    assert "most claimed, least stranded" in decision.explanation.summary


@given(fleets(), batches(), batches())
def test_hosts_that_still_take_a_batch_have_room_for_it_and_pass_every_rule(
    fleet: Fleet, batch: list[PlacementRequest], others: list[PlacementRequest]
) -> None:
    decided = [
        (one, decision.host_id)
        for one, decision in zip(batch, place(fleet, batch), strict=True)
        if decision.host_id is not None
    ]
    claims = [
        (decision.host_id, one.asked)
        for one, decision in zip(others, place(fleet, others), strict=True)
    ]
    chosen = {host_id for _, host_id in decided}
    now = [_claimed(one, claims) for one in fleet.hosts if one.id in chosen]
    there = Fleet(fleet.clusters.values(), now)
    if not still_take(there, decided):
        return
    for one, host_id in decided:
        (alone,) = place(there, [dataclasses.replace(one, host_id=host_id)])
        assert alone.host_id == host_id
    after = [_claimed(one, [(host_id, each.asked) for each, host_id in decided]) for one in now]
    for one in after:
        if any(host_id == one.id for _, host_id in decided):
            assert not shortfalls(one, fleet.clusters[one.cluster_id], Amounts(0.0, 0, 0))


def _claimed(one: HostView, claims: list[tuple[str | None, Amounts]]) -> HostView:
    for host_id, asked in claims:
        if host_id == one.id:
            one = dataclasses.replace(
                one,
                claimed_vcpus=one.claimed_vcpus + asked.vcpus,
                claimed_memory=one.claimed_memory + asked.memory,
                claimed_disk=one.claimed_disk + asked.disk,
            )
    return one


def test_what_was_decided_still_holds_beside_a_claim_that_leaves_room() -> None:
    def there(**claims: int) -> Fleet:
        return Fleet([cluster()], [host(1, **claims), host(2)])

    decided = [(request(0), "host-001"), (request(1), "host-001")]
    assert still_take(there(claimed_memory=6 * GIB), decided)
    assert not still_take(there(claimed_memory=7 * GIB), decided)
    assert not still_take(there(), [(request(2, spread_by="host"), "host-002")])
    assert not still_take(Fleet([cluster(reserve=1)], [host(1), host(2)]), decided)
    assert not still_take(there(), [(request(3), "host-gone")])


def test_batches_on_equal_hosts_go_round_and_begin_in_different_places() -> None:
    fleet = Fleet([cluster()], [host(number) for number in range(200)])
    begins = set()
    for first in range(20):
        batch = [request(1000 * first + number) for number in range(30)]
        places = [fleet.index[str(one.host_id)] for one in place(fleet, batch)]
        begins.add(places[0])
        assert places == [(places[0] + number) % 200 for number in range(30)]
    assert len(begins) > 15
