"""What the inventory is asked for overlay networks, and that their hosts are told without a jam."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from tests.store.inventory import NOW, Inventory
from virtmgr.domain.host import Host
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import Network, NetworkType
from virtmgr.services import overlays
from virtmgr.services.container import Services
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


def _far() -> Network:
    return Network(
        id=new_id(), project_id=None, name="far", type=NetworkType.OVERLAY, vni=7,
        ipv4="10.90.0.0/24", created_at=NOW,
    )  # fmt: skip


def _hosts_on(
    units: SqlUnitOfWorkFactory, inventory: Inventory, network: Network, count: int
) -> Sequence[Host]:
    """Hosts with a workload each on the network, in the order of their ids."""
    hosts = [
        inventory.make_host(name=f"h{number}", tunnel_address=f"192.0.2.{number + 1}")
        for number in range(count)
    ]
    with units() as uow:
        uow.networks.add(network)
        for host in hosts:
            uow.hosts.add(host)
            workload = inventory.make_workload(f"on-{host.name}", host_id=host.id)
            uow.workloads.add(workload)
            uow.nics.add(inventory.make_nic(workload, network_id=network.id))
        uow.commit()
    return sorted(hosts, key=lambda each: each.id)


def test_what_is_asked_of_the_inventory(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    far = _far()
    first, second = _hosts_on(units, inventory, far, 2)
    with units() as uow:
        assert uow.networks.vnis() == {7}
        assert uow.networks.overlays([far.id, inventory.network.id]) == [far.id]
        assert uow.hosts.tunnels() == {host.id: host.tunnel_address for host in (first, second)}
        assert uow.hosts.next_revisions([inventory.network.id]) == []
        assert uow.hosts.next_revisions([far.id]) == [first.id, second.id]
        assert uow.hosts.next_revisions([far.id], besides=[first.id]) == [second.id]
        uow.commit()
    with units(read_only=True) as uow:
        found = {host.id: host.revision for host in uow.hosts.all()}
    assert found == {inventory.host.id: 0, first.id: 1, second.id: 2}


def test_hosts_that_change_at_once_do_not_wait_for_each_other_in_a_circle(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    """As two syncs do: each locks its own host, and tells the others."""
    far = _far()
    hosts = _hosts_on(units, inventory, far, 4)
    woken: list[str] = []
    nothing = cast(Any, None)
    services = Services(units=units, blobs=nothing, wake_host=woken.append)

    def change(host: Host) -> None:
        for _ in range(10):
            with units() as uow:
                assert uow.hosts.lock(host.id) is not None
                overlays.announce(services, uow, [far.id], told=[host.id])
                uow.commit()

    with ThreadPoolExecutor(len(hosts)) as threads:
        list(threads.map(change, hosts))
    assert len(woken) == 4 * 10 * 3  # each change reached every other host
    with units(read_only=True) as uow:
        assert {host.revision for host in uow.hosts.all() if host.name != "host1"} == {30}
