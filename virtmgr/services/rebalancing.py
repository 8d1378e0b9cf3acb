"""Rebalancing a cluster: the plan, and the operation that carries it out.

``plan`` decides and writes nothing; ``rebalance`` begins an operation, which ``rebalancing_worker``
brings forward move by move.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from virtmgr.domain.host import Cluster, Host
from virtmgr.domain.live_migration import Wish
from virtmgr.domain.migration import AT_SOURCE, obstacle
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.rebalancing import Aim, Movable, RebalancePlan, plan_rebalance, worth_looking
from virtmgr.domain.rebalancing.model import AT_ONCE, MOST_MOVES
from virtmgr.domain.rebalancing.rounds import is_out
from virtmgr.domain.rebalancing.running import Course
from virtmgr.domain.scheduling import PlacementRequest
from virtmgr.domain.workload import Init, Kind, Reason, Workload
from virtmgr.services import clusters, migrations, placement
from virtmgr.services.context import Context
from virtmgr.services.migrations import Checks, Proposal
from virtmgr.services.operation_end import end

VERB: Final = "rebalance"
_MOST_LOOKED_AT: Final = 500  # workloads that a plan chooses from; each is looked up in full
_ON_ITS_WAY: Final = Reason(
    code="being_moved",
    message="it is on its way to another host",
    hint="plan again once it is there",
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much may be moved, and how."""

    most_moves: int = MOST_MOVES
    at_once: int = AT_ONCE
    cold: bool = False


@dataclass(frozen=True)
class Planned:
    """A plan, and each workload of it as its move was looked at."""

    cluster: Cluster
    plan: RebalancePlan
    proposals: Mapping[str, Proposal]  # by workload id


@dataclass(frozen=True)
class Rebalanced:
    """An operation that is under way; without a plan where it was so before."""

    operation: Operation
    planned: Planned | None


def plan(context: Context, cluster: Cluster, bounds: Bounds) -> Planned:
    """The moves that would bring the cluster to where its policy wants it; nothing is begun."""
    uow = context.uow
    fleet = placement.fleet(uow, with_ports=True, with_ha=True, moving=True)
    aim = Aim(
        cluster_id=cluster.id,
        threshold=cluster.rebalancing_threshold,
        most_moves=bounds.most_moves,
        cold=bounds.cold,
    )
    hosts = uow.hosts.all()
    out = is_out(fleet, cluster.id, cluster.rebalancing_threshold)
    promising = worth_looking(fleet, aim) if out else []  # else there is nothing to choose from
    proposals: dict[str, Proposal] = {}
    movables: list[Movable] = []
    skipped = False
    for host in _in_order(hosts, promising):
        there = uow.workloads.on_host(host.id)
        if len(movables) + len(there) > _MOST_LOOKED_AT:
            skipped = True
            break
        for proposal, movable in _movables(context, host, hosts, there, bounds):
            proposals[movable.request.id] = proposal
            movables.append(movable)
    found = plan_rebalance(fleet, movables, aim, context.services.rebalancing_solver)
    if skipped:
        found = replace(found, reasons=(*found.reasons, _only_some(len(movables))))
    return Planned(cluster, found, proposals)


def _in_order(hosts: Sequence[Host], ids: Sequence[str]) -> Iterator[Host]:
    known = {host.id: host for host in hosts}
    return (known[id] for id in ids if id in known)


def _movables(
    context: Context,
    host: Host,
    hosts: Sequence[Host],
    workloads: Sequence[Workload],
    bounds: Bounds,
) -> Iterator[tuple[Proposal, Movable]]:
    """What is on a host, as a plan looks at it."""
    checks = Checks(context, host, hosts)
    moving = {one.workload_id for one in context.uow.migrations.open_on(host.id)}
    for workload in workloads:
        proposal = migrations.asked(context, workload, None)
        request, why_not = proposal.request, proposal.why_not
        if workload.id in moving:
            why_not = _ON_ITS_WAY
        if request is None or why_not is not None:
            yield proposal, Movable(request=_as_it_is(workload), host_id=host.id, why_not=why_not)
            continue
        live = checks.live_hosts(workload)
        request = replace(request, live_host_ids=live)
        cold = obstacle(workload)
        if not live:
            why_not = cold if bounds.cold else checks.refusal(workload)
        yield (
            replace(proposal, request=request),
            Movable(request=request, host_id=host.id, why_not=why_not, only_live=cold is not None),
        )


def _as_it_is(workload: Workload) -> PlacementRequest:
    """What a workload that stays takes of its host."""
    init = workload.init or (Init.APP if workload.kind is Kind.CONTAINER else None)
    return PlacementRequest(
        id=workload.id,
        name=workload.name,
        project_id=workload.project_id,
        cluster_id=workload.cluster_id,
        kind=workload.kind,
        init=init,
        vcpus=workload.claim_vcpus,
        memory=workload.claim_memory,
        disk=workload.claim_disk,
        labels=workload.spec.labels,
        affinity=workload.spec.placement.affinity,
    )


def _only_some(count: int) -> Reason:
    return Reason(
        code="only_some",
        message=f"only the {count} workloads of the most promising hosts were looked at",
        hint="run it, and plan again",
    )


def rebalance(context: Context, reference: str, bounds: Bounds) -> Rebalanced:
    """Begin to carry out the plan as it is now. Asked again, what is under way goes on.

    :raises NotFound: there is no such cluster.
    """
    cluster = clusters.lock(context, reference)  # one at a time
    under_way = open_one(context, cluster)
    if under_way is not None:
        return Rebalanced(under_way, None)
    planned = plan(context, cluster, bounds)
    return Rebalanced(begin(context, planned, bounds), planned)


def begin(context: Context, planned: Planned, bounds: Bounds) -> Operation:
    """The operation that carries a plan out; one without moves is finished at once."""
    cluster, moves = planned.cluster, planned.plan.moves
    course = Course.of(
        moves, at_once=bounds.at_once, cold=bounds.cold, most_moves=bounds.most_moves
    )
    operation = context.begin(VERB, "cluster", cluster, parameters=course.model_dump(mode="json"))
    operation.state = OperationState.RUNNING
    operation.message = f"{len(moves)} workloads are to move"
    context.record(
        "cluster.rebalance_requested", cluster, operation.message, operation_id=operation.id
    )
    if not moves:
        why = "; ".join(reason.message for reason in planned.plan.reasons)
        end(operation, OperationState.SUCCEEDED, context.now, f"nothing is to be moved: {why}")
    return operation


def open_one(context: Context, cluster: Cluster) -> Operation | None:
    """The cluster's rebalancing that is under way."""
    open_ones = context.uow.operations.open_for(cluster.id)
    return next((one for one in open_ones if one.verb == VERB), None)


def wish(course: Course) -> Wish:
    """How its moves go."""
    return Wish.EITHER if course.cold else Wish.LIVE


def cancel(context: Context, reference: str) -> Operation | None:
    """End the cluster's rebalancing: what is on its way to a host that has it not yet stays, and
    nothing more begins. None: none is under way.

    :raises NotFound: there is no such cluster.
    """
    context.uow.hosts.all(locked=True)  # claims on others are given back
    cluster = clusters.find(context, reference)
    operation = open_one(context, cluster)
    if operation is None:
        return None
    for migration in context.uow.migrations.of_rebalancing(operation.id):
        if migration.phase in AT_SOURCE:
            migrations.stop(context.services, context, migration)
    locked = context.uow.operations.lock(operation.id)
    if locked is None or locked.finished_at is not None:
        return locked
    end(locked, OperationState.CANCELLED, context.now, locked.message)
    context.record(
        "cluster.rebalance_cancelled",
        cluster,
        f"the rebalancing of cluster {cluster.name} was cancelled",
        operation_id=locked.id,
    )
    return locked
