"""What the scheduler promises (``place``'s docstring), for any fleet and any requests."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.host import HostState
from virtmgr.domain.live_migration import choosy_first
from virtmgr.domain.scheduling import (
    Amounts,
    ClusterView,
    Decision,
    Fleet,
    HostView,
    Overcommit,
    PlacedWorkload,
    PlacementRequest,
    fits,
    limits,
    place,
)
from virtmgr.domain.scheduling.capacity import capacity_of, claimed_of, overcommit_of
from virtmgr.domain.workload import GIB, Affinity

from .strategies import (
    a_host,
    batches,
    both,
    clusters,
    cpus,
    fleets,
    hosts,
    overcommit,
    placed,
    request,
    requests,
)


@given(fleets(), batches())
def test_never_places_over_capacity(fleet: Fleet, batch: list[PlacementRequest]) -> None:
    decisions = place(fleet, batch)
    claimed = {host.id: claimed_of(host) for host in fleet.hosts}
    for wanted, decision in zip(batch, decisions, strict=True):
        if decision.host_id is None:
            continue
        host = fleet.hosts[fleet.index[decision.host_id]]
        now = claimed[host.id] = claimed[host.id] + wanted.asked
        limit = limits(capacity_of(host), overcommit_of(fleet.clusters[host.cluster_id]))
        assert now.vcpus <= limit.vcpus + 1e-6
        assert now.memory <= limit.memory
        assert now.disk <= limit.disk


@given(st.data(), clusters, hosts(), batches())
def test_the_order_of_hosts_changes_nothing(
    data: st.DataObject, one: ClusterView, machines: list[HostView], batch: list[PlacementRequest]
) -> None:
    others = data.draw(placed(machines))
    shuffled = data.draw(st.permutations(machines))
    assert _told(place(Fleet(both(one), machines, others), batch)) == _told(
        place(Fleet(both(one), shuffled, others), batch)
    )


@given(st.data(), clusters, hosts(), requests())
def test_one_more_host_never_makes_a_success_a_failure(
    data: st.DataObject, one: ClusterView, machines: list[HostView], wanted: PlacementRequest
) -> None:
    others = data.draw(placed(machines))
    more = [*machines, data.draw(a_host(len(machines)))]
    (before,) = place(Fleet(both(one), machines, others), [wanted])
    (after,) = place(Fleet(both(one), more, others), [wanted])
    assert before.host_id is None or after.host_id is not None


@given(fleets(), requests())
def test_a_host_fits_exactly_when_no_reason_is_true(fleet: Fleet, wanted: PlacementRequest) -> None:
    (decision,) = place(fleet, [wanted])
    explanation = decision.explanation
    assert explanation.complete
    for verdict in explanation.verdicts:
        host = fleet.hosts[fleet.index[verdict.host_id]]
        assert {reason.code for reason in verdict.reasons} == true_reasons(fleet, host, wanted)
        assert verdict.fits == (not verdict.reasons)
    fitting = [verdict for verdict in explanation.verdicts if verdict.fits]
    assert explanation.fitting == len(fitting)
    assert (decision.host_id is not None) == bool(fitting)
    if fitting:
        assert decision.host_id == explanation.verdicts[0].host_id
        assert max(v.score or 0.0 for v in fitting) <= (fitting[0].score or 0.0) + 1e-9
    for code, number in explanation.rejected.items():
        assert number == sum(
            code in {reason.code for reason in verdict.reasons} for verdict in explanation.verdicts
        )


@given(fleets(), batches(), st.data())
def test_where_it_can_go_live_comes_before_all_else(
    fleet: Fleet, batch: list[PlacementRequest], data: st.DataObject
) -> None:
    ids = st.frozensets(st.sampled_from([host.id for host in fleet.hosts] or ["none"]))
    batch = [dataclasses.replace(one, live_host_ids=data.draw(ids)) for one in batch]
    for wanted, decision in zip(batch, place(fleet, batch), strict=True):
        fitting = {one.host_id for one in decision.explanation.verdicts if one.fits}
        able = fitting & wanted.live_host_ids
        assert not able or decision.host_id in able
    (without,) = place(fleet, [dataclasses.replace(batch[0], live_host_ids=frozenset())])
    (first, *_) = place(fleet, batch)
    assert (first.host_id is None) == (without.host_id is None)  # a wish, and no condition


@given(batches())
def test_who_can_go_live_to_few_hosts_chooses_first(batch: list[PlacementRequest]) -> None:
    counts = [len(one.live_host_ids) for one in choosy_first(batch)]
    live = [count for count in counts if count]
    assert counts == sorted(live) + [0] * (len(counts) - len(live))
    assert {one.id for one in choosy_first(batch)} == {one.id for one in batch}


@given(fleets(), batches())
def test_a_batch_decides_as_one_after_the_other_with_running_claims(
    fleet: Fleet, batch: list[PlacementRequest]
) -> None:
    batch = [dataclasses.replace(wanted, spread_by=None) for wanted in batch]
    together = place(fleet, batch)
    machines, others = {host.id: host for host in fleet.hosts}, list(fleet.placed)
    for wanted, decision in zip(batch, together, strict=True):
        (alone,) = place(Fleet(fleet.clusters.values(), machines.values(), others), [wanted])
        assert _told([alone]) == _told([decision])
        if alone.host_id is not None:
            machines[alone.host_id] = _claim(machines[alone.host_id], wanted)
            others.append(
                PlacedWorkload(
                    id=wanted.id,
                    project_id=wanted.project_id,
                    host_id=alone.host_id,
                    labels=wanted.labels,
                    affinity=wanted.affinity,
                )
            )


amounts = st.builds(
    Amounts, cpus, st.integers(0, 2**60), st.integers(0, 2**60) | st.sampled_from((GIB, 2 * GIB))
)


@given(capacity=amounts, claimed=amounts, asked=amounts, ratio=overcommit)
def test_the_scheduler_and_the_commit_agree_on_what_fits(
    capacity: Amounts, claimed: Amounts, asked: Amounts, ratio: float
) -> None:
    _agree(capacity, claimed, asked, ratio)
    # On the very edge, and one byte beyond.
    limit = limits(capacity, Overcommit(ratio, ratio, ratio))
    edge = limit - claimed
    if min(edge.vcpus, edge.memory, edge.disk) >= 0:
        assert _agree(capacity, claimed, edge, ratio)
        beyond = Amounts(edge.vcpus, edge.memory + 1, edge.disk)
        assert not _agree(capacity, claimed, beyond, ratio)


def _agree(capacity: Amounts, claimed: Amounts, asked: Amounts, ratio: float) -> bool:
    host = HostView(
        id="h",
        name="h",
        cluster_id="c",
        state=HostState.READY,
        capacity_vcpus=capacity.vcpus,
        capacity_memory=capacity.memory,
        capacity_disk=capacity.disk,
        claimed_vcpus=claimed.vcpus,
        claimed_memory=claimed.memory,
        claimed_disk=claimed.disk,
        kinds=frozenset({"vm"}),
    )
    cluster = ClusterView(
        id="c", name="c", overcommit_vcpus=ratio, overcommit_memory=ratio, overcommit_disk=ratio
    )
    wanted = request(vcpus=asked.vcpus, memory=asked.memory, disk=asked.disk)
    (decision,) = place(Fleet([cluster], [host]), [wanted])
    lacking = fits(capacity, claimed, Overcommit(ratio, ratio, ratio), asked)
    (verdict,) = decision.explanation.verdicts
    assert [reason.code for reason in verdict.reasons] == [short.code for short in lacking]
    assert [reason.message for reason in verdict.reasons] == [short.message for short in lacking]
    return not lacking


def _claim(host: HostView, wanted: PlacementRequest) -> HostView:
    return dataclasses.replace(
        host,
        claimed_vcpus=host.claimed_vcpus + wanted.vcpus,
        claimed_memory=host.claimed_memory + wanted.memory,
        claimed_disk=host.claimed_disk + wanted.disk,
    )


def _told(decisions: tuple[Decision, ...] | list[Decision]) -> list[object]:
    return [(d.host_id, d.host_version, d.explanation.to_json()) for d in decisions]


def true_reasons(fleet: Fleet, host: HostView, wanted: PlacementRequest) -> set[str]:
    """The codes of all reasons against a host, found in another way than the scheduler's."""
    labels = {**host.labels, "arch": host.architecture}
    cluster = fleet.clusters[host.cluster_id]
    found = {
        "other_cluster": host.cluster_id != wanted.cluster_id,
        "not_the_host": wanted.host_id not in (None, host.id),
        f"host_{host.state.value}": host.state is not HostState.READY,
        "other_architecture": wanted.architecture not in (None, host.architecture),
        "no_driver": wanted.runs_as not in host.kinds,
        "lacks_label": not wanted.require.items() <= labels.items(),
        "no_bridge": not wanted.bridges <= host.bridges,
        "no_tunnel": wanted.overlay_mtu > 0 and host.overlay_mtu == 0,
        "tunnel_too_narrow": wanted.overlay_mtu > host.overlay_mtu > 0,
        "no_vlan": wanted.vlans and not host.vlans,
        "port_taken": any(
            (one.protocol, one.port) == (other.protocol, other.port)
            and (one.address == other.address or "0.0.0.0" in (one.address, other.address))
            for one in wanted.ports
            for other in host.ports
        ),
        "volume_elsewhere": bool(wanted.volume_host_ids - {host.id}),
        "lacks_vcpus": wanted.vcpus + host.claimed_vcpus
        > host.capacity_vcpus * cluster.overcommit_vcpus + 1e-6,
        "lacks_memory": wanted.memory + host.claimed_memory
        > host.capacity_memory * cluster.overcommit_memory,
        "lacks_disk": wanted.disk + host.claimed_disk
        > host.capacity_disk * cluster.overcommit_disk,
        "not_apart": any(
            rule.required and rule.mode == "apart" and _matches(fleet, wanted, rule, host)
            for rule in wanted.affinity
        ),
        "not_together": any(
            rule.required and rule.mode == "together" and _lonely(fleet, wanted, rule, host)
            for rule in wanted.affinity
        ),
        "kept_apart": any(
            other.project_id == wanted.project_id
            and rule.required
            and rule.mode == "apart"
            and rule.labels.items() <= wanted.labels.items()
            and _near(fleet.hosts[fleet.index[other.host_id]], host, rule.scope)
            for other in fleet.placed
            for rule in other.affinity
        ),
    }
    return {code for code, holds in found.items() if holds}


def _matches(fleet: Fleet, wanted: PlacementRequest, rule: Affinity, host: HostView | None) -> bool:
    return any(
        other.project_id == wanted.project_id
        and rule.labels.items() <= other.labels.items()
        and (host is None or _near(fleet.hosts[fleet.index[other.host_id]], host, rule.scope))
        for other in fleet.placed
    )


def _lonely(fleet: Fleet, wanted: PlacementRequest, rule: Affinity, host: HostView) -> bool:
    first = rule.labels.items() <= wanted.labels.items() and not _matches(fleet, wanted, rule, None)
    return not first and not _matches(fleet, wanted, rule, host)


def _near(one: HostView, other: HostView, scope: str) -> bool:
    if one.id == other.id:
        return True
    if scope == "host" or scope not in one.labels:
        return False
    same = one.labels[scope] == other.labels.get(scope)
    return same and (scope == "zone" or one.labels.get("zone") == other.labels.get("zone"))
