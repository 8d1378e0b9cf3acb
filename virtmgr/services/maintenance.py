"""Keeping hosts in maintenance empty."""

from __future__ import annotations

from virtmgr.domain.errors import Conflict
from virtmgr.domain.host import HostState
from virtmgr.domain.workload import PowerState, Workload
from virtmgr.ports.unit_of_work import UnitOfWork


def refuse_in_maintenance(uow: UnitOfWork, workload: Workload, wanted: PowerState) -> None:
    """Refuse to start what rests on a host in maintenance.

    :raises Conflict: (host_maintenance) it is on one.
    """
    if wanted is PowerState.STOPPED or workload.host_id is None:
        return
    host = uow.hosts.get(workload.host_id)
    if host is not None and host.scheduling_state is HostState.MAINTENANCE:
        raise Conflict(
            f"workload {workload.name!r} is on host {host.name!r}, which is in maintenance",
            code="host_maintenance",
            hint=f"move it with 'virtmgr move {workload.name}', or activate the host",
        )
