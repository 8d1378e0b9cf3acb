"""What plans promise (``plan_rebalance``'s docstring), for any cluster; and a few by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.domain.scheduling.strategies import affinities, cluster, host, labels, places, request
from virtmgr.domain.host import HostState, SchedulingPolicy
from virtmgr.domain.rebalancing import Aim, Movable, Move, RebalancePlan, plan_rebalance
from virtmgr.domain.rebalancing.measure import NOTHING
from virtmgr.domain.rebalancing.rounds import PATIENCE, counted, is_due, is_out
from virtmgr.domain.scheduling import ClusterView, Fleet, HostView, PlacedWorkload
from virtmgr.domain.scheduling.reserve import is_kept
from virtmgr.domain.scheduling.rules import rules_for
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.workload import GIB, Affinity, Reason

LEVEL = (SchedulingPolicy.SPREAD, SchedulingPolicy.BALANCED)


@dataclass(frozen=True)
class Site:
    """A cluster and what is on its hosts, which claims nothing besides."""

    cluster: ClusterView
    hosts: tuple[HostView, ...]
    movables: tuple[Movable, ...]

    def fleet(self) -> Fleet:
        return Fleet([self.cluster], [self._claimed(host) for host in self.hosts], self._placed())

    def after(self, moves: Sequence[Move]) -> Site:
        where = {move.workload_id: move.target_id for move in moves}
        return replace(
            self,
            movables=tuple(
                replace(one, host_id=where.get(one.request.id, one.host_id))
                for one in self.movables
            ),
        )

    def plan(self, **aim: object) -> RebalancePlan:
        wanted = Aim(**{"cluster_id": "c", "cold": True, **aim})  # type: ignore[arg-type]
        return plan_rebalance(self.fleet(), self.movables, wanted)

    def _claimed(self, host: HostView) -> HostView:
        there = [one.request for one in self.movables if one.host_id == host.id]
        ha = [one for one in there if one.ha]
        return replace(
            host,
            claimed_vcpus=sum(one.vcpus for one in there),
            claimed_memory=sum(one.memory for one in there),
            claimed_disk=sum(one.disk for one in there),
            ha_vcpus=sum(one.vcpus for one in ha),
            ha_memory=sum(one.memory for one in ha),
            ha_disk=sum(one.disk for one in ha),
            ports=frozenset(port for one in there for port in one.ports),
        )

    def _placed(self) -> list[PlacedWorkload]:
        return [
            PlacedWorkload(
                id=one.request.id,
                project_id=one.request.project_id,
                host_id=one.host_id,
                labels=one.request.labels,
                affinity=one.request.affinity,
            )
            for one in self.movables
        ]


@st.composite
def sites(draw: st.DrawFn, policies: Sequence[SchedulingPolicy] = tuple(SchedulingPolicy)) -> Site:
    """Hosts of 16 GiB, mostly ready; workloads on them with rules of all sorts, none over."""
    machines = [
        host(
            number,
            capacity_vcpus=draw(st.sampled_from((16, 16, 32))),
            capacity_memory=draw(st.sampled_from((16, 16, 32))) * GIB,
            state=draw(st.sampled_from((*[HostState.READY] * 5, HostState.CORDONED))),
            labels=draw(places),
        )
        for number in range(draw(st.integers(1, 5)))
    ]
    one = cluster(policy=draw(st.sampled_from(policies)), reserve=draw(st.sampled_from((0, 0, 1))))
    ids = [machine.id for machine in machines]
    free = {machine.id: [machine.capacity_vcpus, machine.capacity_memory] for machine in machines}
    found = []
    for number in range(draw(st.integers(0, 12))):
        where = draw(st.sampled_from(ids[: draw(st.integers(1, len(ids)))]))
        vcpus, memory = draw(st.integers(1, 6)), draw(st.integers(1, 6)) * GIB
        if free[where][0] < vcpus or free[where][1] < memory:
            continue
        free[where] = [free[where][0] - vcpus, free[where][1] - memory]
        found.append(
            Movable(
                request=request(
                    number,
                    vcpus=vcpus,
                    memory=memory,
                    labels=draw(labels),
                    affinity=draw(st.lists(affinities, max_size=1).map(tuple))
                    if draw(st.integers(0, 3)) == 0
                    else (),
                    spread_by=draw(st.sampled_from((None, None, None, "host", "rack"))),
                    ha=draw(st.booleans()),
                    live_host_ids=frozenset(ids) if draw(st.integers(0, 3)) else frozenset(),
                ),
                host_id=where,
                why_not=Reason(code="pinned", message="no")
                if draw(st.integers(0, 9)) == 0
                else None,
            )
        )
    return Site(one, tuple(machines), tuple(found))


def replayed(site: Site, moves: Sequence[Move]) -> None:
    """Every workload that has moved is where the rules allow it, all others in their places."""
    end = site.after(moves)
    known = {one.request.id: one for one in end.movables}
    kept = is_kept(Tally(site.fleet()), "c")
    for move in moves:
        one = known[move.workload_id]
        fleet = end.fleet()
        tally, target = Tally(fleet), fleet.index[one.host_id]
        tally.leave(one.request, target)
        asked = replace(one.request, from_reserve=not kept)
        for rule in rules_for(tally, asked):
            assert rule.passes[target], (rule.code, move)


@given(sites(), st.integers(1, 4), st.booleans())
def test_plans_keep_the_rules_and_their_bounds(site: Site, most: int, cold: bool) -> None:
    plan = site.plan(most_moves=most, cold=cold)
    assert len(plan.moves) <= most
    assert len({move.workload_id for move in plan.moves}) == len(plan.moves)
    known = {one.request.id: one for one in site.movables}
    states = {machine.id: machine.state for machine in site.hosts}
    for move in plan.moves:
        one = known[move.workload_id]
        assert one.why_not is None
        assert move.source_id == one.host_id != move.target_id
        assert cold or move.live
        assert move.live == (move.target_id in one.request.live_host_ids)
        assert states[move.source_id] is states[move.target_id] is HostState.READY
    replayed(site, plan.moves)
    assert site.plan(most_moves=most, cold=cold) == plan


@given(sites())
def test_nothing_is_overfilled_and_nobody_is_left_alone(site: Site) -> None:
    end = site.after(site.plan().moves)
    fleet = end.fleet()
    assert (fleet.claimed.memory <= fleet.limits.memory).all()
    assert (fleet.claimed.vcpus <= fleet.limits.vcpus + 1e-6).all()
    if is_kept(Tally(site.fleet()), "c"):
        assert is_kept(Tally(fleet), "c")
    before = {id_ for id_, ok in together(site).items() if ok}
    assert before <= {id_ for id_, ok in together(end).items() if ok}


def together(site: Site) -> dict[str, bool]:
    """Whether each workload that requires to be together with others is."""
    fleet = site.fleet()
    tally = Tally(fleet)
    found = {}
    for one in site.movables:
        here = fleet.index[one.host_id]
        for rule in one.request.affinity:
            if rule.mode == "together" and rule.required:
                domains = fleet.domains(rule.scope)
                counts = tally.matching(one.request.project_id, rule.labels)
                own = all(one.request.labels.get(k) == v for k, v in rule.labels.items())
                found[one.request.id] = counts[domains == domains[here]].sum() > own
    return found


@given(sites(LEVEL))
def test_a_plan_is_better_by_the_measure(site: Site) -> None:
    plan = site.plan()
    if plan.moves:
        assert plan.after.imbalance < plan.before.imbalance - NOTHING
    else:
        assert plan.after == plan.before
        assert plan.reasons
    end = site.after(plan.moves).plan()
    assert end.before.imbalance == pytest.approx(plan.after.imbalance)


@given(sites((SchedulingPolicy.PACK,)))
def test_power_saving_empties_hosts(site: Site) -> None:
    plan = site.plan()
    assert (plan.after.empty > plan.before.empty) == bool(plan.moves)
    left = {move.source_id for move in plan.moves}
    after = {load.host_id: load.workloads for load in plan.after.hosts}
    assert all(after[host_id] == 0 for host_id in left)
    used = {load.host_id for load in plan.before.hosts if load.workloads}
    assert {move.target_id for move in plan.moves} <= used


@given(sites())
def test_a_second_plan_right_after_is_empty(site: Site) -> None:
    plan = site.plan(most_moves=100)
    again = site.after(plan.moves).plan(most_moves=100)
    assert again.moves == ()


@given(sites())
def test_the_order_of_what_comes_in_changes_nothing(site: Site) -> None:
    turned = replace(site, hosts=site.hosts[::-1], movables=site.movables[::-1])
    assert turned.plan() == site.plan()


def a_site(policy: SchedulingPolicy, *counts: int, **given: object) -> Site:
    """Hosts with so many workloads each, of 1 vCPU and 1 GiB, that can go anywhere live."""
    machines = tuple(host(number) for number in range(len(counts)))
    ids = frozenset(machine.id for machine in machines)
    where = [
        machine.id for machine, count in zip(machines, counts, strict=True) for _ in range(count)
    ]
    movables = tuple(
        Movable(request=request(n, live_host_ids=ids, **given), host_id=at)  # type: ignore[arg-type]
        for n, at in enumerate(where)
    )
    return Site(cluster(policy=policy), machines, movables)


def test_as_few_moves_as_it_takes() -> None:
    """Of hosts with 8, 2 and 2 of 8, the first is 50 points over: two moves make it 16.7."""
    plan = a_site(SchedulingPolicy.BALANCED, 8, 2, 2).plan(threshold=0.3)
    assert Counter(move.target_id for move in plan.moves) == {"host-001": 1, "host-002": 1}
    assert plan.before.imbalance == pytest.approx(2 * 0.2)
    assert plan.after.imbalance == 0
    assert plan.moves[0].why == "h0 has 100% of its vCPUs claimed, the cluster 50%"
    assert plan.reasons == ()


def test_only_what_may_go_live_unless_told_otherwise() -> None:
    site = a_site(SchedulingPolicy.BALANCED, 8, 0)
    cold = replace(
        site,
        movables=tuple(
            replace(one, request=replace(one.request, live_host_ids=frozenset()))
            for one in site.movables
        ),
    )
    plan = cold.plan(cold=False)
    assert (plan.moves, [why.code for why in plan.reasons]) == ((), ["no_gain"])
    assert {move.live for move in cold.plan(cold=True).moves} == {False}


def test_the_bound_is_told() -> None:
    plan = a_site(SchedulingPolicy.BALANCED, 8, 0, 0).plan(most_moves=1)
    assert len(plan.moves) == 1
    assert [why.code for why in plan.reasons] == ["bounded"]


def test_the_least_used_hosts_are_emptied_first() -> None:
    plan = a_site(SchedulingPolicy.PACK, 5, 1, 2).plan()
    assert [move.source_id for move in plan.moves] == ["host-001", "host-002", "host-002"]
    assert {move.target_id for move in plan.moves} == {"host-000"}
    assert (plan.before.empty, plan.after.empty) == (0, 2)


def test_a_host_is_emptied_whole_or_not_at_all() -> None:
    site = a_site(SchedulingPolicy.PACK, 7, 3)
    plan = site.plan()
    assert plan.moves == ()
    assert [(why.host_id, why.reason.code) for why in plan.why_not][-1] == ("host-001", "no_room")
    site = a_site(SchedulingPolicy.PACK, 8, 1)
    pinned = replace(site.movables[-1], why_not=Reason(code="pinned", message="it is pinned"))
    some = replace(site, movables=(*site.movables[:-1], pinned)).plan()
    assert [why.reason.code for why in some.why_not] == ["no_room", "pinned"]


def test_the_last_host_in_use_is_not_asked_about() -> None:
    plan = a_site(SchedulingPolicy.PACK, 2, 2).plan()
    assert (plan.after.empty, plan.why_not) == (1, ())


def test_power_saving_leaves_the_reserve() -> None:
    """The others would take it; but then no host could fail."""
    site = a_site(SchedulingPolicy.PACK, 4, 4, ha=True)
    assert len(site.plan().moves) == 4
    reserved = replace(site, cluster=replace(site.cluster, reserve=1)).plan()
    assert reserved.moves == ()
    assert {why.reason.code for why in reserved.why_not} == {"reserve"}


def test_what_is_to_be_apart_stays_apart() -> None:
    rule = (Affinity(mode="apart", labels={"app": "db"}, scope="host", required=True),)
    site = a_site(SchedulingPolicy.BALANCED, 8, 1, labels={"app": "db"}, affinity=rule)
    assert site.plan().moves == ()


def test_rounds_are_counted_in_a_row() -> None:
    rounds = 0
    for _ in range(PATIENCE):
        assert not is_due(rounds)
        rounds = counted(rounds, True)
    assert is_due(rounds)
    assert counted(rounds, False) == 0


@given(sites(LEVEL))
def test_sums_tell_what_a_plan_would(site: Site) -> None:
    assume(sum(machine.state is HostState.READY for machine in site.hosts) > 1)
    out = is_out(site.fleet(), "c", 0.2)
    assert out == (site.plan(threshold=0.2).before.imbalance > NOTHING)


@given(sites((SchedulingPolicy.PACK,)))
def test_where_hosts_can_be_emptied_sums_say_so(site: Site) -> None:
    if site.plan().moves:
        assert is_out(site.fleet(), "c", 0.2)
