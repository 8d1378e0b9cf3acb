"""What hosts report all the time is written in few statements, and nothing else with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.fixtures.statements import statements
from tests.store.inventory import GIB, NOW, Inventory
from virtmgr.domain.host import Pool
from virtmgr.domain.ids import new_id
from virtmgr.domain.sync import ObservedPool, ObservedWorkload, SyncRequest
from virtmgr.domain.workload import State, Usage, Workload, WorkloadStatus
from virtmgr.images.blobs import BlobStore
from virtmgr.services.container import Services
from virtmgr.services.sync import sync
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

RUNNING = WorkloadStatus(state=State.RUNNING, started_at=NOW)


@pytest.fixture
def services(units: SqlUnitOfWorkFactory, tmp_path: Path) -> Services:
    return Services(units=units, blobs=BlobStore(tmp_path / "images"))


@pytest.fixture
def workloads(units: SqlUnitOfWorkFactory, inventory: Inventory) -> list[Workload]:
    """Two of the host, of which one has a volume, and one of another host."""
    other = inventory.make_host(name="other")
    made = [
        inventory.make_workload("a", status=RUNNING),
        inventory.make_workload("b", status=RUNNING),
        inventory.make_workload("c", status=RUNNING, host_id=other.id),
    ]
    volume = inventory.make_volume(host_id=inventory.host.id, workload_id=made[0].id)
    with units() as uow:
        uow.hosts.add(other)
        uow.workloads.add_all(made)
        uow.volumes.add(volume)
        uow.commit()
    return made


def test_usage_is_written_into_the_statuses_of_the_hosts_own(
    units: SqlUnitOfWorkFactory, inventory: Inventory, workloads: list[Workload]
) -> None:
    first, second, others = (one.id for one in workloads)
    used = Usage(at=NOW, cpu_seconds=1.5, memory=GIB)
    host_id = inventory.host.id
    with units() as uow:
        assert uow.workloads.usages([first, others, new_id()], host_id) == {first: None}
        loaded = uow.workloads.get(first)
        assert loaded is not None
        uow.workloads.note_usages(dict.fromkeys((first, others), used), host_id)
        assert loaded.status == RUNNING.model_copy(update={"usage": used})
        uow.commit()
    with units(read_only=True) as uow:
        assert uow.workloads.usages([first, second], host_id) == {first: used, second: None}
        there = uow.workloads.by_ids([first, second, others])
        assert there[first].status == RUNNING.model_copy(update={"usage": used})
        assert there[second].status == there[others].status == RUNNING


def test_a_pool_that_is_known_stays_the_one_that_it_is(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    def pool(name: str, used: int) -> Pool:
        return Pool(
            id=new_id(), host_id=inventory.host.id, name=name, path="/p", capacity=GIB, used=used,
            created_at=NOW,
        )  # fmt: skip

    first = pool("default", 1)
    for told in ([first], [pool("default", 2), pool("fast", 3)], [pool("default", 2)], []):
        with units() as uow:
            uow.pools.note(told)
            uow.commit()
    with units(read_only=True) as uow:
        found = uow.pools.of_host(inventory.host.id)
    assert [(one.name, one.used) for one in found] == [("default", 2), ("fast", 3)]
    assert found[0].id == first.id


def test_volumes_of_many(
    units: SqlUnitOfWorkFactory, inventory: Inventory, workloads: list[Workload]
) -> None:
    del inventory
    with units(read_only=True) as uow:
        found = uow.volumes.of_workloads(one.id for one in workloads)
        assert {id: [one.name for one in some] for id, some in found.items()} == {
            workloads[0].id: ["data"],
            workloads[1].id: [],
            workloads[2].id: [],
        }
        assert uow.volumes.of_workloads(()) == {}


def test_an_agent_that_starts_and_says_what_is_known_writes_of_its_host_alone(
    services: Services, inventory: Inventory, workloads: list[Workload]
) -> None:
    observed = tuple(
        ObservedWorkload(id=one.id, observed_generation=0, status=RUNNING) for one in workloads[:2]
    )
    pool = ObservedPool(name="default", path="/p", capacity=GIB, used=1)
    request = SyncRequest(full=True, workloads=observed, pools=(pool,), images=())
    sync(services, inventory.host.id, request)
    with statements() as told:
        answer = sync(services, inventory.host.id, request)
    assert {one.id for one in answer.workloads} == {one.id for one in workloads[:2]}
    written = [one.split()[1] for one in told if one.startswith(("UPDATE", "DELETE"))]
    assert written == ["hosts"]
    assert len(told) <= 16


def test_what_ends_in_the_report_is_not_answered_any_more(
    services: Services, inventory: Inventory, workloads: list[Workload]
) -> None:
    first, second, _ = workloads
    with services.units() as uow:
        entity = uow.workloads.get(first.id)
        assert entity is not None
        entity.deleting = True
        uow.commit()
    gone = ObservedWorkload(
        id=first.id, observed_generation=0, status=WorkloadStatus(state=State.DELETING), gone=True
    )
    answer = sync(services, inventory.host.id, SyncRequest(full=True, workloads=(gone,)))
    assert [one.id for one in answer.workloads] == [second.id]


def test_the_share_of_a_cpu_is_since_the_usage_before(
    services: Services, inventory: Inventory, workloads: list[Workload]
) -> None:
    first = workloads[0].id
    for seconds, cpu in ((0, 10.0), (10, 15.0)):
        used = Usage(at=NOW + timedelta(seconds=seconds), cpu_seconds=cpu)
        sync(services, inventory.host.id, SyncRequest(usage={first: used}))
    with services.units(read_only=True) as uow:
        found = uow.workloads.get(first)
    assert found is not None
    assert found.status.usage is not None
    assert found.status.usage.cpus == 0.5
