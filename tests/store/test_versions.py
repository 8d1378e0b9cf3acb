"""Optimistic versions, claims and quota, one unit at a time."""

from __future__ import annotations

import pytest

from tests.store.inventory import GIB, Inventory
from virtmgr.domain.errors import Conflict, NotFound, QuotaExceeded
from virtmgr.domain.host import HostState
from virtmgr.domain.ids import new_id
from virtmgr.domain.workload import State, WorkloadStatus
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


def test_desired_changes_bump_and_observations_do_not(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    workload = inventory.make_workload()
    with units() as uow:
        uow.workloads.add(workload)
        uow.commit()
        workload.status = WorkloadStatus(state=State.RUNNING)
        workload.observed_generation = 1
        uow.flush()
        assert workload.version == 1
        workload.spec = workload.spec.model_copy(update={"description": "changed"})
        workload.generation += 1
        uow.flush()
        assert workload.version == 2
        workload.force_stop = workload.force_stop
        uow.commit()
    with units(read_only=True) as uow:
        found = uow.workloads.get(workload.id)
        assert found is not None
        assert (found.version, found.generation, found.status.state) == (2, 2, "running")


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_a_lost_update_is_refused_and_a_report_is_not(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    """Only PostgreSQL runs two writing units side by side."""
    workload = inventory.make_workload()
    with units() as uow:
        uow.workloads.add(workload)
        uow.commit()
    with units() as patch, units() as late_patch, units() as report:
        first = patch.workloads.get(workload.id)
        second = late_patch.workloads.get(workload.id)
        observed = report.workloads.get(workload.id)
        assert first is not None
        assert second is not None
        assert observed is not None
        first.restart_nonce = 7
        patch.commit()
        observed.status = WorkloadStatus(state=State.RUNNING)
        report.commit()
        second.restart_nonce = 8
        with pytest.raises(Conflict) as caught:
            late_patch.commit()
        assert caught.value.code == "changed_meanwhile"
    with units(read_only=True) as uow:
        found = uow.workloads.get(workload.id)
        assert found is not None
        assert (found.restart_nonce, found.status.state, found.version) == (7, "running", 2)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_a_report_on_a_deleted_row_is_a_conflict(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    workload = inventory.make_workload()
    with units() as uow:
        uow.workloads.add(workload)
        uow.commit()
    with units() as report, units() as delete:
        observed = report.workloads.get(workload.id)
        found = delete.workloads.get(workload.id)
        assert observed is not None
        assert found is not None
        delete.workloads.remove(found)
        delete.commit()
        observed.status = WorkloadStatus(state=State.RUNNING)
        with pytest.raises(Conflict):
            report.hosts.all()


def test_claims(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    with units() as uow:
        host = uow.hosts.get(inventory.host.id)
        assert host is not None
        assert uow.hosts.claim(host.id, 1, vcpus=0.1, memory=GIB, disk=2 * GIB)
        assert (host.version, host.claimed_vcpus, host.claimed_memory) == (2, 0.1, GIB)
        assert not uow.hosts.claim(host.id, 1, vcpus=1, memory=1, disk=1)
        assert not uow.hosts.claim(host.id, 2, vcpus=-1, memory=0, disk=0)
        assert not uow.hosts.claim(new_id(), 2, vcpus=1, memory=0, disk=0)
        assert uow.hosts.claim(host.id, 2, vcpus=0.2, memory=-GIB, disk=0)
        assert (host.version, host.claimed_vcpus, host.claimed_memory) == (3, 0.3, 0)
        host.state = HostState.CORDONED
        uow.flush()
        assert host.version == 4
        uow.hosts.release(host.id, vcpus=9, memory=9, disk=GIB)
        assert (host.version, host.claimed_vcpus, host.claimed_disk) == (5, 0.0, GIB)
        assert [uow.hosts.next_revision(host.id) for _ in range(3)] == [1, 2, 3]
        assert (host.version, host.revision) == (5, 3)
        with pytest.raises(NotFound):
            uow.hosts.next_revision(new_id())
        uow.commit()
    with units(read_only=True) as uow:
        found = uow.hosts.get(inventory.host.id)
        assert found is not None
        assert (found.version, found.revision, found.claimed_disk) == (5, 3, GIB)


def test_fractions_never_drift(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    with units() as uow:
        for _ in range(50):
            uow.quotas.charge(inventory.project.id, {"vcpus": 0.1})
            uow.hosts.release(inventory.host.id, vcpus=-0.1, memory=0, disk=0)
        quota = uow.quotas.get(inventory.project.id)
        host = uow.hosts.get(inventory.host.id)
        assert quota is not None
        assert host is not None
        assert quota.used_vcpus == host.claimed_vcpus == 5.0


def test_quota(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    id = inventory.project.id
    with units() as uow:
        quota = uow.quotas.lock(id)
        assert quota is not None
        quota.limit_vcpus = 2.0
        quota.limit_memory = GIB
        uow.commit()
        assert quota.version == 2
    with units() as uow:
        uow.quotas.charge(id, {"vcpus": 1.5, "memory": GIB, "workloads": 1, "volumes": 0})
        quota = uow.quotas.get(id)
        assert quota is not None
        assert (quota.used_vcpus, quota.used_memory, quota.used_workloads) == (1.5, GIB, 1)
        with pytest.raises(QuotaExceeded) as caught:
            uow.quotas.charge(id, {"vcpus": 0.501, "memory": -5, "disk": 7})
        assert "vcpus: 1.5 of 2 used, 0.501 asked" in caught.value.message
        assert caught.value.detail["exceeded"] == {
            "vcpus": {"used": 1.5, "asked": 0.501, "limit": 2.0}
        }
        assert (quota.used_vcpus, quota.used_memory, quota.used_disk) == (1.5, GIB, 0)
        uow.quotas.charge(id, {"vcpus": 0.5, "memory": -5})
        uow.quotas.charge(id, {"vcpus": -99, "workloads": -1})
        assert (quota.used_vcpus, quota.used_memory, quota.used_workloads) == (0.0, GIB - 5, 0)
        uow.quotas.charge(id, {"vcpus": 2})
        assert quota.version == 2
        with pytest.raises(NotFound):
            uow.quotas.charge(new_id(), {"vcpus": 1})
