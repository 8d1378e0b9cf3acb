"""Carries rebalancings out, and looks which clusters are out of balance. The leader does both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.host import Cluster, HostState, Rebalancing
from virtmgr.domain.operation import UNFINISHED, Operation, OperationState
from virtmgr.domain.rebalancing.rounds import counted, is_due, is_out
from virtmgr.domain.rebalancing.running import Course, PlannedMove, Standing, standing
from virtmgr.domain.workload import Reason
from virtmgr.ports.unit_of_work import ListQuery, UnitOfWork
from virtmgr.services import migrations, placement, rebalancing
from virtmgr.services.container import Services
from virtmgr.services.context import Context, go_on
from virtmgr.services.operation_end import end
from virtmgr.services.rebalancing import Bounds, Planned
from virtmgr.services.records import Target, add_event

_PASSES: Final = "no_placement"
"""The code of what may be otherwise once a move that is under way has given room back."""

log = structlog.get_logger(__name__)


def advance(services: Services) -> None:
    """Bring every rebalancing that is under way forward."""
    query = ListQuery(filters={"verb": rebalancing.VERB, "state": list(UNFINISHED)}, limit=100)
    with services.units(read_only=True) as uow:
        waiting = [one.id for one in uow.operations.list(query).items if _has_news(uow, one)]
    for id in waiting:
        try:
            with services.units() as uow:
                _advance(services, uow, id)
                uow.after_commit(services.committed.notify)
                uow.commit()
        except placement.Overtaken:
            continue  # looked at again in a moment
        except VirtmgrError as error:
            log.warning("rebalancing.failed", operation=id, error=error.message)


def _standing(uow: UnitOfWork, operation: Operation, course: Course) -> Standing:
    phases = {one.id: one.phase for one in uow.migrations.of_rebalancing(operation.id)}
    return standing(course, phases)


def _has_news(uow: UnitOfWork, operation: Operation) -> bool:
    """Whether anything is to be written: hosts are locked for it."""
    now = _standing(uow, operation, Course.model_validate(operation.parameters))
    return now.ended or bool(now.waiting and now.room) or operation.message != now.message


def _advance(services: Services, uow: UnitOfWork, id: str) -> None:
    uow.hosts.all(locked=True)  # it claims on several: all of them, in one order
    found = uow.operations.get(id)
    if found is None or found.finished_at is not None:
        return
    course = Course.model_validate(found.parameters)
    context = go_on(services, uow, found.user_id)
    course = _begin_some(context, found, course)
    uow.flush()
    operation = uow.operations.lock(id)
    if operation is None or operation.finished_at is not None:
        raise placement.Overtaken(id)  # it was cancelled meanwhile: what was begun is not
    operation.parameters = course.model_dump(mode="json")
    now = _standing(uow, operation, course)
    operation.progress, operation.message = min(0.99, now.progress), now.message
    operation.updated_at = context.now
    if now.ended:
        _conclude(context, operation, now)


def _begin_some(context: Context, operation: Operation, course: Course) -> Course:
    """Begin as many as may be under way. One that lacks room waits while others move."""
    now = _standing(context.uow, operation, course)
    moves = list(course.moves)
    begun = 0
    for index in now.waiting:
        if begun == now.room:
            break
        result = _begin(context, operation, moves[index], course)
        if isinstance(result, str):
            moves[index] = moves[index].model_copy(update={"migration_id": result})
            begun += 1
            continue
        idle = begun == 0 and now.room == course.at_once
        if result.code == _PASSES and not idle:
            break
        moves[index] = moves[index].model_copy(update={"left_out": result.message})
    return course.model_copy(update={"moves": tuple(moves)})


def _begin(
    context: Context, operation: Operation, move: PlannedMove, course: Course
) -> str | Reason:
    """The id of the migration, or why the move is not begun."""
    uow = context.uow
    workload = uow.workloads.lock(move.workload_id)
    source, target = uow.hosts.get(move.source_id), uow.hosts.get(move.target_id)
    if workload is None or source is None or workload.host_id != source.id:
        return Reason(code="gone", message="it is not on that host any more")
    if target is None or target.state is not HostState.READY:
        return Reason(code="target_not_ready", message="its new host is not ready any more")
    if uow.migrations.open_of(workload.id) is not None:
        return Reason(code="being_moved", message="it is on its way to another host")
    (proposal,) = migrations.propose(context, [workload], source, target, rebalancing.wish(course))
    if proposal.target_id is None:
        return proposal.why_not or Reason(code=_PASSES, message="no host takes it")
    moved = migrations.begin(context, [proposal], source, rebalancing=operation)[0]
    return moved.migration.id


def _conclude(context: Context, operation: Operation, now: Standing) -> None:
    problem: dict[str, Any] | None = None
    if now.stayed:
        name = operation.target_name
        problem = {
            "code": "not_rebalanced",
            "detail": f"not everything of the plan for cluster {name!r} was moved: {now.message}",
            "hint": f"see what is left with 'virtmgr cluster rebalance {name} --plan'",
        }
    state = OperationState.FAILED if problem else OperationState.SUCCEEDED
    end(operation, state, context.now, now.message, problem=problem)
    context.uow.flush()
    cluster = context.uow.clusters.lock(operation.target_id)
    if cluster is not None and problem is None:
        cluster.imbalance_rounds = cluster.proposed_moves = 0
    add_event(
        context.uow,
        "cluster.rebalance_incomplete" if problem else "cluster.rebalanced",
        Target("cluster", operation.target_id, operation.target_name),
        now=context.now,
        user_id=operation.user_id,
        operation_id=operation.id,
        message=now.message,
    )


def look(services: Services) -> None:
    """One round: count for each cluster how long it has been out of balance; where that is long
    enough, make a plan, and tell it or carry it out."""
    with services.units(read_only=True) as uow:
        context = go_on(services, uow, None)
        found = uow.clusters.list(ListQuery(limit=500)).items
        sums = placement.sums(uow, found, uow.hosts.sizes())
        rounds = {
            cluster.id: counted(
                cluster.imbalance_rounds, is_out(sums, cluster.id, cluster.rebalancing_threshold)
            )
            for cluster in found
            if rebalancing.open_one(context, cluster) is None
        }
        plans = {
            cluster.id: rebalancing.plan(context, cluster, Bounds())
            for cluster in found
            if is_due(rounds.get(cluster.id, 0))
        }
        changed = [id for id, count in rounds.items() if count or _counts(found, id)]
    for cluster_id in changed:
        with services.units() as uow:
            _note(go_on(services, uow, None), cluster_id, rounds[cluster_id], plans.get(cluster_id))
            uow.after_commit(services.committed.notify)
            uow.commit()


def _counts(clusters: Sequence[Cluster], id: str) -> bool:
    return any(cluster.id == id and cluster.imbalance_rounds > 0 for cluster in clusters)


def _note(context: Context, cluster_id: str, rounds: int, planned: Planned | None) -> None:
    """Write down what a round found.

    :param planned: where a plan was made.
    """
    cluster = context.uow.clusters.lock(cluster_id)
    if cluster is None or rebalancing.open_one(context, cluster) is not None:
        return
    cluster.imbalance_rounds = rounds
    if not rounds:
        cluster.proposed_moves = 0
    if planned is None:
        return
    before, moves = cluster.proposed_moves, len(planned.plan.moves)
    cluster.proposed_moves = moves
    if moves and not before:
        context.record(
            "cluster.out_of_balance",
            cluster,
            f"cluster {cluster.name} has been out of balance for {rounds} rounds: "
            f"{moves} moves would help",
            data={"rounds": rounds, "moves": moves},
        )
    if moves and cluster.rebalancing is Rebalancing.AUTOMATIC:
        rebalancing.begin(context, replace(planned, cluster=cluster), Bounds())
