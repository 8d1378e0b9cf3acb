"""What may be restarted elsewhere, and how old leases are: no clock of day, and never too early."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.failover import LostHost, Policy, Protected, Release, judge, order
from virtmgr.domain.host import FailoverPolicy
from virtmgr.domain.leases import STEP, HostLease, LeaseWatch
from virtmgr.domain.workload import PowerState

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SECONDS = st.floats(0, 100, allow_nan=False)

hosts = st.builds(
    LostHost,
    id=st.just("h"),
    name=st.just("h1"),
    unrenewed=_SECONDS,
    lease=st.floats(3, 60),
    self_fencing=st.booleans(),
    known_off=st.sampled_from([None, Release.FENCED, Release.CONFIRMED]),
    without_volumes=st.booleans(),
)
policies = st.builds(
    Policy,
    failover=st.sampled_from(FailoverPolicy),
    limit=st.floats(0, 1),
    margin=st.floats(1, 10),
    hosts=st.integers(1, 50),
    silent=st.integers(1, 50),
)
workloads = st.builds(
    Protected,
    id=st.uuids().map(str),
    name=st.just("w"),
    host_id=st.just("h"),
    priority=st.integers(-3, 3),
    created_at=st.integers(0, 100).map(lambda s: _NOW + timedelta(seconds=s)),
    wanted=st.sampled_from(PowerState),
    deleting=st.booleans(),
    known_to_host=st.booleans(),
    local_volumes=st.sampled_from([(), ("data",)]),
    moving=st.booleans(),
    leaving=st.booleans(),
    being_cloned=st.booleans(),
    pinned=st.booleans(),
)


@given(hosts, policies, st.lists(workloads, max_size=8))
def test_nothing_is_released_that_may_still_run(
    host: LostHost, policy: Policy, some: list[Protected]
) -> None:
    verdicts = judge(host, policy, some)
    assert sorted(one.workload.id for one in verdicts) == sorted(one.id for one in some)
    for verdict in verdicts:
        assert verdict.message
        assert verdict.code
        workload = verdict.workload
        if verdict.release is None:
            continue
        assert not any((workload.moving, workload.being_cloned))
        if workload.local_volumes:
            assert host.without_volumes
            assert host.known_off is not None
        assert not workload.leaving
        assert not any((workload.pinned, workload.deleting))
        assert workload.wanted is not PowerState.STOPPED
        if verdict.release is Release.SELF_FENCED:
            assert host.self_fencing
            assert workload.known_to_host
            assert host.unrenewed >= host.lease + policy.margin
            assert policy.failover is FailoverPolicy.AUTOMATIC
            assert not policy.is_mass_outage
        else:
            assert verdict.release is host.known_off


@given(hosts, policies, workloads)
def test_waiting_longer_never_takes_a_release_back(
    host: LostHost, policy: Policy, workload: Protected
) -> None:
    (before,) = judge(host, policy, [workload])
    (later,) = judge(replace(host, unrenewed=host.unrenewed + 50), policy, [workload])
    assert before.release is None or later.release is before.release


@given(st.lists(workloads, max_size=8))
def test_the_greater_priority_goes_first(some: list[Protected]) -> None:
    keys = [(-one.priority, one.created_at) for one in order(some)]
    assert keys == sorted(keys)


@given(st.integers(1, 100), st.floats(0, 1))
def test_one_host_may_always_fail(hosts: int, limit: float) -> None:
    assert not Policy(limit=limit, hosts=hosts, silent=1).is_mass_outage
    assert Policy(limit=limit, hosts=hosts, silent=hosts + 1).is_mass_outage


class World:
    """True time, and a host that renews at times that the watcher does not know."""

    def __init__(self) -> None:
        self.now, self.renewed, self.renewal = 0.0, 0.0, 0


looks = st.lists(
    st.tuples(st.floats(0, 8), st.booleans(), st.floats(0, 3), st.booleans()), max_size=40
)


@given(looks)
def test_a_lease_is_never_taken_for_older_than_it_is(
    steps: list[tuple[float, bool, float, bool]],
) -> None:
    """Whatever passes between looks, however long a look takes, whenever the host renews."""
    world, watch = World(), LeaseWatch()
    for pause, renews_before, reading, renews_during in steps:
        world.now += pause
        if renews_before:
            world.renewal, world.renewed = world.renewal + 1, world.now
        begun = world.now
        world.now += reading
        if renews_during:
            world.renewal, world.renewed = world.renewal + 1, world.now
        read = [HostLease("h", world.renewal, 9.0)]
        seen = watch.look(read, begun, world.now)
        assert seen["h"].age <= world.now - world.renewed + 1e-9


def test_a_break_of_the_watcher_does_not_count() -> None:
    watch, lease = LeaseWatch(), [HostLease("h", 1, 9.0)]
    watch.look(lease, 0, 0)
    assert watch.look(lease, 1, 1)["h"].age == 1
    assert watch.look(lease, 1000, 1000)["h"].age == 1 + STEP
    assert watch.look([HostLease("h", 2, 9.0)], 1001, 1001)["h"].age == 0
