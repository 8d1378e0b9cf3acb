"""Leaving workloads alone that are on their way to another host."""

from __future__ import annotations

from virtmgr.domain.migration import MOVING
from virtmgr.domain.states import check_not_moved
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork


def refuse_while_moved(uow: UnitOfWork, workload: Workload, verb: str) -> None:
    """Its hosts have to agree first who has it.

    :raises IllegalTransition: it is on its way to another host; or it is to be deleted, and the
        host that it came from has not cleared up yet.
    """
    migration = uow.migrations.open_of(workload.id)
    if migration is None or (migration.phase not in MOVING and verb not in ("delete", "move")):
        return
    target = uow.hosts.get(migration.target_host_id) if migration.target_host_id else None
    check_not_moved(verb, workload.name, target.name if target else "another one")
