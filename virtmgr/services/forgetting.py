"""Taking workloads and volumes out of the inventory, with all that they hold there."""

from __future__ import annotations

from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import failover_end, ipam, overlays
from virtmgr.services.container import Services


def forget_workload(services: Services, uow: UnitOfWork, workload: Workload) -> None:
    """Give back claim, quota and addresses, and drop the row; its volumes stay."""
    nics = uow.nics.of_workloads([workload.id]).get(workload.id, ())
    # Its own host hears of it by the answer to its sync.
    told = (workload.host_id,) if workload.host_id else ()
    overlays.announce(services, uow, [nic.network_id for nic in nics], told=told)
    addresses = sum(ipam.remove_nic(uow, nic) for nic in nics)
    for volume in uow.volumes.of_workload(workload.id):
        volume.workload_id = None
    if workload.ha_since is not None:
        failover_end.workload_forgotten(uow, workload)
    uow.quotas.give_back(
        workload.project_id,
        {
            "workloads": 1,
            "vcpus": workload.claim_vcpus,
            "memory": workload.claim_memory,
            "disk": workload.claim_disk,
            "addresses": addresses,
        },
    )
    if workload.host_id is not None:
        uow.hosts.release(
            workload.host_id,
            vcpus=workload.claim_vcpus,
            memory=workload.claim_memory,
            disk=workload.claim_disk,
        )
    uow.flush()
    uow.workloads.remove(workload)


def forget_volume(uow: UnitOfWork, volume: Volume) -> None:
    """Give back its quota, and drop the row."""
    uow.quotas.give_back(volume.project_id, {"volumes": 1, "disk": volume.size})
    uow.flush()
    uow.volumes.remove(volume)
