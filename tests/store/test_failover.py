"""Leases, duties, claims and failovers, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.store.inventory import Inventory
from virtmgr.domain.errors import NameTaken
from virtmgr.domain.failover import Failover, FailoverPhase
from virtmgr.domain.fencing import FenceAgent, FenceDevice
from virtmgr.domain.host import HostState
from virtmgr.domain.ids import new_id
from virtmgr.domain.scheduling import Amounts
from virtmgr.domain.workload import GIB
from virtmgr.ports.unit_of_work import Duties
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_NOTHING_ELSE = {"moves": False, "volumes": False, "images": False}
_NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_renewal(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    id = inventory.host.id
    with units() as uow:
        host = uow.hosts.lock(id)
        assert host is not None
        host.state, host.revision, host.lease_seconds = HostState.READY, 7, 9.0
        host.certificate_serial = "abc"
        uow.commit()
    with units() as uow:
        assert uow.hosts.leases() == []  # it has never synced
        assert uow.hosts.renew(id, 6, "abc", _NOW) is None  # it has missed something
        assert uow.hosts.renew(id, 7, "old", _NOW) is None
        renewal = uow.hosts.renew(id, 7, "abc", _NOW)
        assert renewal is not None
        assert renewal.lease_seconds == 9
        uow.commit()
    with units() as uow:
        (lease,) = uow.hosts.leases()
        assert (lease.host_id, lease.renewal, lease.seconds) == (id, 1, 9)
        host = uow.hosts.lock(id)
        assert host is not None
        assert host.lease_expires_at == _NOW + timedelta(seconds=9)
        host.state = HostState.UNREACHABLE
        uow.flush()
        assert uow.hosts.renew(id, 7, "abc", _NOW) is None  # more is to be said to it
        assert [one.id for one in uow.hosts.lost()] == [id]
        assert uow.hosts.silent_shares() == {host.cluster_id: (1, 1)}


def test_what_is_highly_available(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    host_id = inventory.host.id
    with units() as uow:
        for name, since in (("a", 1), ("b", None), ("c", 3)):
            uow.workloads.add(
                inventory.make_workload(
                    name, host_id=host_id, ha_since=since, claim_vcpus=0.5, claim_memory=GIB
                )
            )
        uow.commit()
    with units(read_only=True) as uow:
        assert [one.name for one in uow.workloads.ha_on(host_id)] == ["a", "c"]
        assert uow.hosts.duties(host_id) == Duties(ha=True, leftovers=False, **_NOTHING_ELSE)
        (claim,) = uow.workloads.ha_claims().values()
        assert (claim.vcpus, claim.memory) == (1.0, 2 * GIB)
        assert isinstance(claim, Amounts)


def test_failovers(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    host_id, workload = inventory.host.id, inventory.make_workload()

    def failover() -> Failover:
        return Failover(
            id=new_id(), workload_id=workload.id, workload_name=workload.name,
            project_id=workload.project_id, lost_host_id=host_id, created_at=_NOW, updated_at=_NOW,
        )  # fmt: skip

    with units() as uow:
        uow.failovers.add(failover())
        uow.commit()
    with units() as uow, pytest.raises(NameTaken):
        uow.failovers.add(failover())  # one at a time
    with units() as uow:
        (waiting,) = uow.failovers.waiting_on(host_id)
        assert uow.failovers.left_on(host_id) == []
        waiting.phase = FailoverPhase.RESTARTED
        uow.flush()
        assert uow.failovers.waiting_on(host_id) == []
        assert uow.failovers.left_on(host_id) == [waiting]
        assert uow.hosts.duties(host_id) == Duties(ha=False, leftovers=True, **_NOTHING_ELSE)
        waiting.phase, waiting.finished_at = FailoverPhase.DONE, _NOW
        uow.flush()
        assert uow.failovers.open_of(workload.id) == []
        uow.failovers.add(failover())
        uow.commit()


def test_fence_devices_go_with_their_host(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    with units() as uow:
        host = inventory.make_host(name="other")
        uow.hosts.add(host)
        for name, level in (("b", 1), ("a", 2), ("c", 1)):
            uow.fence_devices.add(
                FenceDevice(
                    id=new_id(), host_id=host.id, name=name, agent=FenceAgent.IPMI,
                    address="192.0.2.1", port=623, user="u", sealed="x", level=level,
                    created_at=_NOW,
                )
            )  # fmt: skip
        uow.commit()
    with units() as uow:
        assert [one.name for one in uow.fence_devices.of_host(host.id)] == ["b", "c", "a"]
        found = uow.hosts.get(host.id)
        assert found is not None
        uow.hosts.remove(found)
        uow.commit()
    with units(read_only=True) as uow:
        assert uow.fence_devices.of_host(host.id) == []
