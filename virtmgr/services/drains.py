"""Draining a host: everything on it is moved elsewhere, and then it is in maintenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from virtmgr.domain.host import Host
from virtmgr.domain.host_states import HostVerb, after
from virtmgr.domain.live_migration import Wish
from virtmgr.domain.migration import AT_SOURCE
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.services import drain_end, hosts, migrations
from virtmgr.services.context import Context
from virtmgr.services.migrations import Proposal
from virtmgr.services.operation_end import end

VERB = "drain"


@dataclass(frozen=True)
class Drained:
    """A drain that is under way, and what was planned for each workload."""

    host: Host
    operation: Operation
    plan: Sequence[Proposal]


def drain(context: Context, reference: str, wish: Wish = Wish.EITHER) -> Drained:
    """Move everything away from a host that takes nothing new from now on.

    What cannot be moved stays as it is and is named at the end. Asked again, a drain that is under
    way goes on; after its end, what is left is planned anew.

    :raises NotFound: there is no such host.
    :raises IllegalTransition: it does not answer, or nothing runs on it.
    :raises placement.Overtaken: another placement was faster; try again in a new unit.
    """
    context.uow.hosts.all(locked=True)  # it claims others, so all of them in one order
    host = hosts.lock(context, reference)
    wanted = after(HostVerb.DRAIN, host)
    under_way = _under_way(context, host)
    if under_way is not None:
        return Drained(host, under_way, ())
    hosts.set_scheduling(host, wanted)
    context.uow.flush()
    there = list(context.uow.workloads.on_host(host.id))
    plan = migrations.propose(context, there, host, wish=wish)
    operation = context.begin(VERB, "host", host, parameters={"mode": wish.value})
    operation.state = OperationState.RUNNING
    moved = migrations.begin(context, plan, host, operation)
    stay = len(plan) - len(moved)
    to_move = "1 workload is to move" if len(moved) == 1 else f"{len(moved)} workloads are to move"
    message = to_move + (f", {stay} cannot" if stay else "")
    operation.message = message
    context.record(
        "host.drain_requested", host, message, operation_id=operation.id, host_id=host.id
    )
    if not moved:
        drain_end.conclude(context.uow, host, operation, context.now)
    return Drained(host, operation, plan)


def _under_way(context: Context, host: Host) -> Operation | None:
    open_ones = context.uow.operations.open_for(host.id)
    return next((one for one in open_ones if one.verb == VERB), None)


def cancel(context: Context, reference: str) -> Host:
    """End a drain: what has not left stays, what belongs to its new host arrives there.

    The host stays cordoned.

    :raises IllegalTransition: it is not being drained.
    """
    context.uow.hosts.all(locked=True)  # claims on others are given back
    host = hosts.lock(context, reference)
    hosts.set_scheduling(host, after(HostVerb.CANCEL_DRAIN, host))
    operation = _under_way(context, host)
    if operation is not None:
        end(operation, OperationState.CANCELLED, context.now, operation.message)
        for migration in context.uow.migrations.of_drain(operation.id):
            if migration.phase in AT_SOURCE:
                migrations.stop(context.services, context, migration)
    context.record(
        "host.drain_cancelled",
        host,
        f"the drain of host {host.name} was cancelled",
        operation_id=operation.id if operation else None,
        host_id=host.id,
    )
    context.uow.flush()
    return host
