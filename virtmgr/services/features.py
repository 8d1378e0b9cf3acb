"""What the driver of a workload's host says that it can do."""

from __future__ import annotations

from virtmgr.domain.errors import Unsupported
from virtmgr.domain.workload import Workload
from virtmgr.ports.driver import Feature
from virtmgr.ports.unit_of_work import UnitOfWork


def require(uow: UnitOfWork, workload: Workload, feature: Feature) -> None:
    """Refuse what the workload's host cannot do, before it is asked to. ``feature`` is a verb.

    :raises Unsupported: its driver does not declare it.
    """
    host = uow.hosts.get(workload.host_id) if workload.host_id is not None else None
    if host is None:
        return
    able = any(
        workload.kind in driver.get("kinds", ()) and feature in driver.get("features", ())
        for driver in host.facts.get("drivers", ())
    )
    if not able:
        raise Unsupported(
            f"cannot {feature} workload {workload.name!r}: the driver of host {host.name!r} for "
            f"workloads of kind {workload.kind} does not offer it",
            hint=f"see 'virtmgr host show {host.name}'",
        )
