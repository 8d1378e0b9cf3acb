"""Rebalancing as a problem of whole numbers, for a solver that looks for the best of all plans.

A solver knows of room, of the level and of which hosts take which workload by itself; not of rules
among those that move. So what it finds is made move by move with the scheduler's rules, what they
do not allow is left out, and the plan counts only where it is better than the one that was made
move by move: a solver can make a plan better, and never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.rebalancing.levelling import LEAST_GAIN
from virtmgr.domain.rebalancing.measure import Scale
from virtmgr.domain.rebalancing.model import Movable
from virtmgr.domain.rebalancing.moving import Board
from virtmgr.domain.scheduling.capacity import RESOURCES
from virtmgr.domain.scheduling.fleet import Mask

UNITS: Final = 10_000
"""Of load: whole numbers in hundredths of a point."""
_MIB: Final = 1024**2
_GRAINS: Final = {"vcpus": 0.001, "memory": _MIB, "disk": _MIB}

Wholes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """Items are workloads, bins the hosts that take part; all amounts are whole numbers.

    To be made small: ``empties`` False: what the bins' loads are outside of ``level`` ±
    ``threshold``, plus ``price`` for each move; True: the bins that are not empty, then the moves.
    """

    empties: bool
    sources: Wholes  # the bin of each item
    allowed: Mask  # item × bin; its own too
    amounts: Wholes  # item × resource
    room: Wholes  # bin × resource, of what items may take
    loads: Wholes  # item × row × bin: what it adds to a bin's load
    base: Wholes  # row × bin: the load of what is no item
    level: Wholes  # row
    threshold: int
    price: int
    most_moves: int
    fixed: Mask  # bins that have something which is no item
    hint: Wholes  # the bin of each item in a plan that is there already


Solver = Callable[[Problem], Sequence[int] | None]
"""The bin of each item, or None where it found nothing in its time."""


def solved(
    board: Board, movables: Sequence[Movable], solver: Solver, hint: Mapping[str, int]
) -> None:
    """Make the moves of the solver's plan that the rules allow.

    :param hint: the host's index of each workload in a plan that is there already.
    """
    items = [one for one in movables if one.why_not is None]
    if not items:
        return
    bins = np.flatnonzero(board.scale.taking)
    found = solver(problem_of(board, items, bins, hint))
    if found is None:
        return
    wanted = [
        (one, int(bins[place]))
        for one, place in zip(items, found, strict=True)
        if int(bins[place]) != board.places[one.request.id]
    ]
    _made(board, wanted)


def _made(board: Board, wanted: list[tuple[Movable, int]]) -> None:
    """Those that the rules allow, in rounds: one may make room for another."""
    progress = True
    while progress and wanted:
        progress, left = False, []
        for one, target in wanted:
            passes, _ = board.targets(one)
            if passes[target] and len(board.whys) < board.aim.most_moves:
                board.move(one, target, "best found by the solver")
                progress = True
            else:
                left.append((one, target))
        wanted = left


def problem_of(
    board: Board,
    items: Sequence[Movable],
    bins: npt.NDArray[np.intp],
    hint: Mapping[str, int],
) -> Problem:
    """The board as whole numbers."""
    scale, fleet = board.scale, board.fleet
    position = {int(host): place for place, host in enumerate(bins)}
    sources = np.array([position[board.places[one.request.id]] for one in items], np.int64)
    amounts = _amounts(items)
    claimed = _claimed(board, bins)
    np.subtract.at(claimed, sources, amounts)
    limit = np.stack(
        [np.floor(fleet.limits.of(name)[bins] / _GRAINS[name]) for name in RESOURCES], axis=1
    ).astype(np.int64)
    allowed = np.zeros((len(items), len(bins)), bool)
    for row, one in enumerate(items):
        allowed[row] = board.targets(one)[0][bins]
        allowed[row, sources[row]] = True
    loads, base = _loads(scale, items, bins, sources, board)
    counts = np.array([board.counts[fleet.hosts[host].id] for host in bins])
    return Problem(
        empties=scale.policy is SchedulingPolicy.PACK,
        sources=sources,
        allowed=allowed,
        amounts=amounts,
        room=limit - claimed,
        loads=loads,
        base=base,
        level=np.round(scale.level * UNITS).astype(np.int64),
        threshold=int(scale.threshold * UNITS),
        price=round(LEAST_GAIN * UNITS),
        most_moves=board.aim.most_moves,
        fixed=counts > np.bincount(sources, minlength=len(bins)),
        hint=np.array([position[hint[one.request.id]] for one in items], np.int64),
    )


def _amounts(items: Sequence[Movable]) -> Wholes:
    rows = [[one.request.asked.of(name) / _GRAINS[name] for name in RESOURCES] for one in items]
    return np.ceil(np.array(rows) - 1e-6).astype(np.int64)


def _claimed(board: Board, bins: npt.NDArray[np.intp]) -> Wholes:
    columns = [board.tally.claimed.of(name)[bins] / _GRAINS[name] for name in RESOURCES]
    return np.ceil(np.stack(columns, axis=1) - 1e-6).astype(np.int64)


def _loads(
    scale: Scale,
    items: Sequence[Movable],
    bins: npt.NDArray[np.intp],
    sources: Wholes,
    board: Board,
) -> tuple[Wholes, Wholes]:
    wanted = np.array([[one.request.vcpus, float(one.request.memory)] for one in items])
    exact = np.einsum("dr,kr,rn->kdn", scale.mix, wanted, scale.inverse[:, bins])
    loads = np.round(exact * UNITS).astype(np.int64)
    base = np.round(scale.loads(board.tally.claimed)[:, bins] * UNITS).astype(np.int64)
    for row, source in enumerate(sources):
        base[:, source] -= loads[row, :, source]
    return loads, base
