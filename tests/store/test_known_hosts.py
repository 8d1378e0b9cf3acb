"""What a process remembers of hosts is never taken for what they are now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.store.inventory import GIB, Inventory
from virtmgr.domain.host import HostState
from virtmgr.domain.ids import new_id
from virtmgr.domain.scheduling import Amounts, Decision, PlacementRequest
from virtmgr.domain.workload import Affinity, Kind, PlacementSpec, WorkloadSpec
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import placement
from virtmgr.services.known_hosts import KnownHosts, brought_up_to_date, changed_ids
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_FACTS = {"drivers": [{"name": "libvirt", "healthy": True, "kinds": ["vm"]}]}


@pytest.fixture
def known() -> KnownHosts:
    return KnownHosts()


@pytest.fixture(autouse=True)
def ready(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    with units() as uow:
        host = uow.hosts.get(inventory.host.id)
        assert host is not None
        host.facts = _FACTS
        uow.commit()


def decide(
    uow: UnitOfWork, inventory: Inventory, known: KnownHosts, *, memory: int = GIB
) -> tuple[PlacementRequest, Decision]:
    request = PlacementRequest(
        id=new_id(),
        name="w",
        project_id=inventory.project.id,
        cluster_id=inventory.cluster.id,
        kind=Kind.VM,
        vcpus=0.3,
        memory=memory,
        disk=GIB,
    )
    (decision,) = placement.decide(uow, [request], known=known)
    return request, decision


def claim(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts, *, memory: int = GIB
) -> str | None:
    with units() as uow:
        request, decision = decide(uow, inventory, known, memory=memory)
        placement.commit(uow, [request], [decision], known=known)
        uow.commit()
    return decision.host_id


def test_own_claims_are_known_without_reading(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts
) -> None:
    for _ in range(3):
        claim(units, inventory, known)
    with units(read_only=True) as uow:
        assert known.seen.marks == uow.hosts.marks()
        host = uow.hosts.get(inventory.host.id)
        view = known.seen.fleet.host(inventory.host.id)
    assert host is not None
    assert view is not None
    assert view == placement.host_view(host)
    assert (view.claimed_vcpus, view.claimed_memory) == (0.9, 3 * GIB)


def test_what_others_change_is_seen(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts
) -> None:
    claim(units, inventory, known)
    claim(units, inventory, KnownHosts(), memory=60 * GIB)
    with units(read_only=True) as uow:
        _, decision = decide(uow, inventory, known, memory=4 * GIB)
    assert decision.host_id is None
    assert "lack" in decision.explanation.summary


def test_hosts_come_and_go(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts
) -> None:
    claim(units, inventory, known)
    more = inventory.make_host(name="more", facts=_FACTS)
    with units() as uow:
        uow.hosts.add(more)
        first = uow.hosts.get(inventory.host.id)
        assert first is not None
        first.scheduling_state = first.state = HostState.CORDONED
        uow.commit()
    assert claim(units, inventory, known) == more.id
    with units() as uow:
        gone = uow.hosts.lock(more.id)
        assert gone is not None
        uow.hosts.remove(gone)
        uow.commit()
    with units(read_only=True) as uow:
        _, decision = decide(uow, inventory, known)
    assert decision.explanation.summary == "no host fits: 1 is cordoned"


def test_a_cluster_that_changes_is_seen(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts
) -> None:
    claim(units, inventory, known)
    with units() as uow:
        cluster = uow.clusters.get(inventory.cluster.id)
        assert cluster is not None
        cluster.overcommit_memory = 0.001
        uow.commit()
    with units(read_only=True) as uow:
        _, decision = decide(uow, inventory, known)
    assert decision.host_id is None


def test_what_is_rolled_back_was_never_there(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts
) -> None:
    with units() as uow:
        host = uow.hosts.get(inventory.host.id)
        assert host is not None
        host.labels = {"here": "yes"}
        request, decision = decide(uow, inventory, known)
        placement.commit(uow, [request], [decision], known=known)
    assert not len(known.seen.fleet)
    claim(units, inventory, known)
    view = known.seen.fleet.host(inventory.host.id)
    assert view is not None
    assert view.labels == {}


def test_who_is_overtaken_claims_nothing(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts
) -> None:
    claim(units, inventory, known)
    with units(read_only=True) as uow:
        request, decision = decide(uow, inventory, known)
    claim(units, inventory, KnownHosts())
    with units() as uow, pytest.raises(placement.Overtaken):
        placement.commit(uow, [request], [decision], known=known)
    with units(read_only=True) as uow:
        host = uow.hosts.get(inventory.host.id)
    assert host is not None
    assert host.claimed_memory == 2 * GIB


@pytest.mark.parametrize("memory", [GIB, 63 * GIB])
def test_what_somebody_else_claimed_first_is_looked_at_again(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts, memory: int
) -> None:
    claim(units, inventory, known)
    with units(read_only=True) as uow:
        request, decision = decide(uow, inventory, known)
    claim(units, inventory, KnownHosts(), memory=memory)
    with units() as uow:
        if memory == GIB:
            placement.commit(uow, [request], [decision], known=known, moving=False)
        else:
            with pytest.raises(placement.Overtaken):
                placement.commit(uow, [request], [decision], known=known, moving=False)
        uow.commit()
    with units(read_only=True) as uow:
        host = uow.hosts.get(inventory.host.id)
        _, after = decide(uow, inventory, known)
    assert host is not None
    assert host.claimed_memory == (3 * GIB if memory == GIB else 64 * GIB)
    assert (after.host_id is None) == (memory != GIB)
    assert after.host_version in (host.version, None)


def cordon(uow: UnitOfWork, inventory: Inventory) -> None:
    host = uow.hosts.get(inventory.host.id)
    assert host is not None
    host.scheduling_state = host.state = HostState.CORDONED


def keep_apart(uow: UnitOfWork, inventory: Inventory) -> None:
    rule = Affinity(mode="apart", labels={"tier": "web"}, scope="host", required=True)
    spec = WorkloadSpec(
        name="alone", kind=Kind.VM, image="debian", placement=PlacementSpec(affinity=(rule,))
    )
    uow.workloads.add(inventory.make_workload("alone", spec=spec, kind=Kind.VM))
    uow.hosts.claim(inventory.host.id, version_of(uow, inventory), vcpus=1, memory=GIB, disk=0)


def keep_a_reserve(uow: UnitOfWork, inventory: Inventory) -> None:
    cluster = uow.clusters.get(inventory.cluster.id)
    assert cluster is not None
    cluster.reserve = 1
    uow.hosts.claim(inventory.host.id, version_of(uow, inventory), vcpus=1, memory=GIB, disk=0)


def version_of(uow: UnitOfWork, inventory: Inventory) -> int:
    host = uow.hosts.get(inventory.host.id)
    assert host is not None
    return host.version


@pytest.mark.parametrize("change", [cordon, keep_apart, keep_a_reserve])
def test_more_than_a_claim_makes_placing_start_again(
    units: SqlUnitOfWorkFactory,
    inventory: Inventory,
    known: KnownHosts,
    change: Callable[[UnitOfWork, Inventory], None],
) -> None:
    claim(units, inventory, known)
    with units(read_only=True) as uow:
        request, decision = decide(uow, inventory, known)
    with units() as uow:
        change(uow, inventory)
        uow.commit()
    with units() as uow, pytest.raises(placement.Overtaken):
        placement.commit(uow, [request], [decision], known=known, moving=False)


def test_a_batch_claims_each_host_once(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts
) -> None:
    with units() as uow:
        before = uow.hosts.get(inventory.host.id)
        assert before is not None
        version = before.version
    with units() as uow:
        batch = [decide(uow, inventory, known) for _ in range(3)]
        requests, decisions = zip(*batch, strict=True)
        revisions = placement.commit(uow, requests, decisions, known=known)
        uow.commit()
    with units(read_only=True) as uow:
        host = uow.hosts.get(inventory.host.id)
    assert host is not None
    assert (host.claimed_vcpus, host.claimed_memory, host.version) == (0.9, 3 * GIB, version + 1)
    assert revisions == {host.id: host.revision}


def test_a_claim_on_a_host_that_changed_between_two_reads_makes_it_read_again(
    units: SqlUnitOfWorkFactory, inventory: Inventory, known: KnownHosts
) -> None:
    """PostgreSQL shows each statement what is committed by then: a host may be newer than the
    version that was read of it a moment before."""
    id = inventory.host.id
    with units() as uow:
        marks = uow.hosts.marks()
        clusters = [placement.cluster_view(inventory.cluster)]
        view = placement.host_view(next(iter(uow.hosts.those([id]))))
    newer = replace(view, version=view.version + 1)
    known.keep(brought_up_to_date(known.seen, clusters, marks, [newer]))
    known.claimed({id: Amounts(0.3, GIB, GIB)}, {id: newer.version})
    assert changed_ids(known.seen, frozenset({f"{id}:{newer.version + 1}"})) == [id]
