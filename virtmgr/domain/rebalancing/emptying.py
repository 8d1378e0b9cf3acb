"""Plans for ``pack``: the least used hosts are emptied, as far as the others take all of theirs.

An empty host can be switched off. So what the reserve keeps for failures has to be there without
the empty hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from virtmgr.domain.rebalancing.levelling import bounded
from virtmgr.domain.rebalancing.model import Movable, WhyNot
from virtmgr.domain.rebalancing.moving import Board
from virtmgr.domain.scheduling.fleet import Mask
from virtmgr.domain.scheduling.reserve import is_kept
from virtmgr.domain.workload import Reason

_NO_ROOM: Final = "no_room"


class Emptying:
    """The hosts in use and those that are empty by now."""

    def __init__(self, board: Board, movables: Sequence[Movable]) -> None:
        self._board = board
        self._known = {one.request.id: one for one in movables}
        self.why_not: dict[str, WhyNot] = {}  # by host

    def run(self) -> tuple[Reason, ...]:
        """Empty hosts, the least used first, until none can be emptied; why not more."""
        tried: set[int] = set()
        cut_short = False
        while np.count_nonzero(self._in_use()) > 1:
            host = self._next(tried)
            if host is None:
                break
            there = self._on(host)
            if there is None:
                tried.add(host)
            elif not self._has_moves_for(there):
                tried.add(host)
                cut_short = True
            elif self._empty(host, there):
                tried.clear()
                self.why_not.clear()
                cut_short = False
            else:
                tried.add(host)
        return (bounded(self._board.aim.most_moves),) if cut_short else ()

    def _in_use(self) -> Mask:
        hosts = self._board.fleet.hosts
        used: Mask = np.array([self._board.counts[host.id] > 0 for host in hosts], bool)
        return used & self._board.scale.taking

    def _next(self, tried: set[int]) -> int | None:
        """The least used host that is not tried yet."""
        left = [host for host in np.flatnonzero(self._in_use()) if host not in tried]
        load = self._board.scale.mean_load(self._board.tally.claimed)
        return int(min(left, key=lambda host: (load[host], host))) if left else None

    def _on(self, host: int) -> list[Movable] | None:
        """What is on the host, the greatest first; None: not all of that can be moved."""
        places = self._board.places
        there = [self._known[id] for id, place in places.items() if place == host]
        stays = next((one for one in there if one.why_not is not None), None)
        if stays is not None and stays.why_not is not None:
            self._note(host, stays, stays.why_not)
            return None
        if len(there) < self._board.counts[self._board.fleet.hosts[host].id]:
            return None  # something comes, or was not looked at
        return sorted(there, key=lambda one: (-one.request.memory, -one.request.vcpus))

    def _has_moves_for(self, there: Sequence[Movable]) -> bool:
        new = sum(one.request.id not in self._board.whys for one in there)
        return len(self._board.whys) + new <= self._board.aim.most_moves

    def _empty(self, host: int, there: Sequence[Movable]) -> bool:
        """Move all of it away, or nothing."""
        name = self._board.fleet.hosts[host].name
        before = dict(self._board.whys)
        gone: list[Movable] = []
        for one in there:
            target = self._target(one, host)
            if target is None:
                self._note(host, one, _no_room(self._board.aim.cold))
                break
            self._board.move(one, target, f"{name} is emptied")
            gone.append(one)
        else:
            if self._reserve_is_kept():
                return True
            self._note(host, there[0], _reserve())
        for one in reversed(gone):
            self._board.move(one, host, "")
        self._board.whys = before
        return False

    def _target(self, one: Movable, host: int) -> int | None:
        """The host in use that the scheduler's weighers like best, as ``place`` would choose."""
        passes, request = self._board.targets(one)
        passes &= self._in_use()
        passes[host] = False
        if not passes.any():
            return None
        self._board.tally.leave(one.request, host)
        scores = self._board.scores(request, passes)
        self._board.tally.take(one.request, host)
        return int(np.where(passes, scores, -np.inf).argmax())

    def _reserve_is_kept(self) -> bool:
        empty = self._board.scale.taking & ~self._in_use()
        return is_kept(self._board.tally, self._board.aim.cluster_id, without=empty)

    def _note(self, host: int, one: Movable, reason: Reason) -> None:
        place = self._board.fleet.hosts[host].id
        self.why_not[place] = WhyNot(
            workload_id=one.request.id,
            workload_name=one.request.name,
            project_id=one.request.project_id,
            host_id=place,
            reason=reason,
        )


def _no_room(cold: bool) -> Reason:
    return Reason(
        code=_NO_ROOM,
        message="no other host in use takes it"
        + ("" if cold else " while it runs")
        + ", with what its owner asks for",
        hint="see 'virtmgr move NAME --plan'",
    )


def _reserve() -> Reason:
    return Reason(
        code="reserve",
        message="without its host, too little would be left for the failures that the cluster's "
        "reserve is for",
        hint="lower the cluster's reserve, or add a host",
    )
