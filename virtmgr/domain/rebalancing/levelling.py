"""Plans for ``spread`` and ``balanced``: move by move, each the one that helps most.

How much a move would help is worked out for all workloads and hosts at once, rules left aside;
then the rules are asked for the most promising until none of the others can be better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from virtmgr.domain.rebalancing.measure import NOTHING, Scale, Values
from virtmgr.domain.rebalancing.model import Movable
from virtmgr.domain.rebalancing.moving import Board
from virtmgr.domain.workload import Reason

LEAST_GAIN: Final = 0.005
"""A move that takes less off the imbalance (half a point of one host) is not worth it."""
_EVENNESS: Final = 0.01
"""How much being nearer the level within the threshold counts: enough to choose by, no more."""


@dataclass(frozen=True)
class _Best:
    index: int  # of the movable
    target: int
    value: float


def level(board: Board, movables: Sequence[Movable]) -> tuple[Reason, ...]:
    """Make moves until every host is near enough, or none helps; why there are no more."""
    able = [one for one in movables if one.why_not is None]
    while board.scale.imbalance(board.tally.claimed) > NOTHING:
        if len(board.whys) >= board.aim.most_moves:
            return (bounded(board.aim.most_moves),)
        best = _best(board, able)
        if best is None:
            return (_no_more(bool(board.whys)),)
        one = able[best.index]
        board.move(one, best.target, _why(board, board.places[one.request.id], best.target))
    return ()


def bounded(most: int) -> Reason:
    """The plan stops at its bound."""
    return Reason(
        code="bounded",
        message=f"more would help, and a plan has at most {most} moves",
        hint="run it, and plan again; or allow more moves",
    )


def gains(scale: Scale, loads: Values, amounts: Values, sources: Sequence[int]) -> Values:
    """How much each workload's move to each host takes off the imbalance, with a little for being
    more even; −∞ where it cannot go.

    :param amounts: vCPUs and memory of each workload.
    """
    at = np.asarray(sources, np.intp)
    steps = np.einsum("dr,kr,rn->dkn", scale.mix, amounts, scale.inverse)
    leaving = np.take_along_axis(steps, at[np.newaxis, :, np.newaxis], axis=2)[:, :, 0]
    here = loads[:, at]
    found = _cost(scale, here) - _cost(scale, here - leaving)
    arriving = _cost(scale, loads) - _cost(scale, loads[:, np.newaxis, :] + steps)
    result: Values = found[:, np.newaxis] + arriving
    result[:, ~scale.taking] = -np.inf
    result[np.arange(len(at)), at] = -np.inf
    return result


def _cost(scale: Scale, loads: Values) -> Values:
    cost: Values = (scale.outside(loads) + _EVENNESS * scale.off(loads)).sum(axis=0)
    return cost


def _best(board: Board, able: Sequence[Movable]) -> _Best | None:
    """The move that takes most off; of equal ones that of the least disk."""
    if not able:
        return None
    scale = board.scale
    loads = scale.loads(board.tally.claimed)
    amounts = np.array([[one.request.vcpus, float(one.request.memory)] for one in able])
    table = gains(scale, loads, amounts, [board.places[one.request.id] for one in able])
    promise = table.max(axis=1)
    disk = np.array([one.request.disk for one in able])
    best: _Best | None = None
    for index in np.lexsort((disk, -promise)):
        if promise[index] < LEAST_GAIN or (best is not None and promise[index] <= best.value):
            break
        passes, _ = board.targets(able[index])
        reached = np.where(passes, table[index], -np.inf)
        target = int(reached.argmax())
        value = float(reached[target])
        enough = _real_gain(board, able[index], target) >= LEAST_GAIN if passes.any() else False
        if enough and (best is None or value > best.value):
            best = _Best(int(index), target, value)
    return best


def _real_gain(board: Board, one: Movable, target: int) -> float:
    """What the move takes off the imbalance alone."""
    claimed, source = board.tally.claimed.copy(), board.places[one.request.id]
    before = board.scale.imbalance(claimed)
    for sign, host in ((-1, source), (1, target)):
        claimed.vcpus[host] += sign * one.request.vcpus
        claimed.memory[host] += sign * one.request.memory
    return before - board.scale.imbalance(claimed)


def _no_more(some: bool) -> Reason:
    return Reason(
        code="no_gain",
        message=f"no {'further ' if some else ''}move that is allowed brings it nearer",
        hint="see why workloads stay; --cold allows those that have to be stopped for it",
    )


def _why(board: Board, source: int, target: int) -> str:
    """The move in words: whichever of its hosts is farther outside."""
    scale, loads = board.scale, board.scale.loads(board.tally.claimed)
    above = loads[:, source] - scale.level
    below = scale.level - loads[:, target]
    host, row = (
        (source, int(above.argmax()))
        if above.max() >= below.max()
        else (target, int(below.argmax()))
    )
    how = "" if host == source else "only "
    return (
        f"{board.fleet.hosts[host].name} has {how}{loads[row, host]:.0%} of its {scale.names[row]} "
        f"claimed, the cluster {scale.level[row]:.0%}"
    )
