"""The plan: which moves, what they do, and why not more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.rebalancing.emptying import Emptying
from virtmgr.domain.rebalancing.exact import Solver, solved
from virtmgr.domain.rebalancing.levelling import level
from virtmgr.domain.rebalancing.measure import NOTHING, Balance, Scale, balance, counted
from virtmgr.domain.rebalancing.model import Aim, Movable, RebalancePlan, WhyNot
from virtmgr.domain.rebalancing.moving import Board
from virtmgr.domain.scheduling import Fleet
from virtmgr.domain.scheduling.fleet import Mask
from virtmgr.domain.workload import Reason

REAL_GAIN: Final = 0.1
"""A plan that takes a smaller share off the imbalance is none: the moves would cost more."""


def worth_looking(fleet: Fleet, aim: Aim) -> list[str]:
    """Ids of the hosts that moves would start from, the most promising first; for those who cannot
    look at what is on all of them."""
    scale = Scale(fleet, aim.cluster_id, aim.threshold)
    return scale.worth_looking(fleet.claimed)


def plan_rebalance(
    fleet: Fleet, movables: Iterable[Movable], aim: Aim, solver: Solver | None = None
) -> RebalancePlan:
    """The moves that bring a cluster within its policy, or as near as they may.

    What is promised, and held by tests:

    - Every move keeps the scheduler's rules, at its turn, and there are at most ``aim.most_moves``.
    - A plan with moves is better by the measure: less imbalance, or more empty hosts.
    - Planned again after its moves, nothing is left to do, unless the bound cut it short.
    - The same input gives the same plan.

    :param fleet: with all that is placed, the movables too, and what they publish.
    :param movables: what is on hosts of the cluster; what is left out stays.
    :param solver: looks for a better plan than going move by move finds.
    """
    scale = Scale(fleet, aim.cluster_id, aim.threshold)
    there = [
        one
        for one in movables
        if one.host_id in fleet.index and scale.taking[fleet.index[one.host_id]]
    ]
    there.sort(key=lambda one: one.request.id)
    before = balance(scale, fleet.claimed, counted(fleet))
    if np.count_nonzero(scale.taking) < 2:
        return _nothing(scale, before, _alone())
    empties = scale.policy is SchedulingPolicy.PACK
    if not empties and before.imbalance <= NOTHING:
        return _nothing(scale, before, _balanced(aim))
    make = _emptied if empties else _levelled
    board = _board(fleet, scale, aim, there)
    plan = make(board, there, before)
    if solver is None:
        return plan
    other = _board(fleet, scale, aim, there)
    solved(other, there, solver, board.places)
    return min(plan, make(other, there, before), key=_rank)


def _board(fleet: Fleet, scale: Scale, aim: Aim, movables: Sequence[Movable]) -> Board:
    board = Board(fleet, scale, aim)
    board.register(movables)
    return board


def _rank(plan: RebalancePlan) -> tuple[float, int]:
    """The better of two plans has the lesser."""
    if plan.policy is not SchedulingPolicy.PACK:
        return round(plan.after.imbalance, 6), len(plan.moves)
    left = {load.host_id for load in plan.after.hosts if load.workloads}
    if any(move.source_id in left for move in plan.moves):
        return np.inf, 0  # it empties hosts by halves
    return -plan.after.empty, len(plan.moves)


def _levelled(board: Board, movables: Sequence[Movable], before: Balance) -> RebalancePlan:
    reasons = level(board, movables)
    after = _now(board)
    why_not = _staying(board, movables)
    if board.whys and before.imbalance - after.imbalance < REAL_GAIN * before.imbalance:
        return _nothing(board.scale, before, _too_little(), why_not)
    return RebalancePlan(
        policy=board.scale.policy,
        moves=board.moves(movables),
        before=before,
        after=after,
        reasons=reasons,
        why_not=why_not,
    )


def _emptied(board: Board, movables: Sequence[Movable], before: Balance) -> RebalancePlan:
    emptying = Emptying(board, movables)
    reasons = emptying.run()
    moves = board.moves(movables)
    if not moves and not reasons:
        reasons = (_none_to_empty(),)
    return RebalancePlan(
        policy=board.scale.policy,
        moves=moves,
        before=before,
        after=_now(board),
        reasons=reasons,
        why_not=tuple(emptying.why_not[host] for host in sorted(emptying.why_not)),
    )


def _now(board: Board) -> Balance:
    return balance(board.scale, board.tally.claimed, board.counts)


def _staying(board: Board, movables: Sequence[Movable]) -> tuple[WhyNot, ...]:
    """What may not be moved and is on a host that has too much even so."""
    scale = board.scale
    loads = scale.loads(board.tally.claimed)
    over: Mask = np.any(loads - scale.level[:, np.newaxis] > scale.threshold + NOTHING, axis=0)
    return tuple(
        WhyNot(
            workload_id=one.request.id,
            workload_name=one.request.name,
            project_id=one.request.project_id,
            host_id=one.host_id,
            reason=one.why_not,
        )
        for one in movables
        if one.why_not is not None and over[board.fleet.index[one.host_id]]
    )


def _nothing(
    scale: Scale, before: Balance, why: Reason, why_not: tuple[WhyNot, ...] = ()
) -> RebalancePlan:
    return RebalancePlan(
        policy=scale.policy,
        moves=(),
        before=before,
        after=before,
        reasons=(why,),
        why_not=why_not,
    )


def _balanced(aim: Aim) -> Reason:
    return Reason(
        code="balanced",
        message=f"no host is more than {aim.threshold:.0%} from the cluster's share",
    )


def _alone() -> Reason:
    return Reason(
        code="too_few_hosts",
        message="fewer than two hosts of the cluster are ready and take workloads that move",
        hint="see 'virtmgr host list' for their states; simulated hosts take none",
    )


def _too_little() -> Reason:
    return Reason(
        code="too_little_gain",
        message="all moves that are allowed would take less than a tenth off the imbalance",
        hint="see why workloads stay; --cold allows those that have to be stopped for it",
    )


def _none_to_empty() -> Reason:
    return Reason(code="none_to_empty", message="no host is left that the others could take all of")
