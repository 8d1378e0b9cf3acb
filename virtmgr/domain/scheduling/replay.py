"""Explanations are worked out when they are first read: the batch is played again up to there.

Who reads one before the next request is placed finds everything as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence

from virtmgr.domain.scheduling.explanation import Outcome, Said, Told, tell
from virtmgr.domain.scheduling.fleet import Fleet
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.standing import Standing
from virtmgr.domain.scheduling.tally import Tally


class Standings:
    """A tally, and where its hosts stand for requests of every shape."""

    def __init__(self, fleet: Fleet) -> None:
        self.tally = Tally(fleet)
        self._by_shape: dict[Hashable, Standing] = {}

    def of(self, request: PlacementRequest) -> Standing:
        """For requests like this one."""
        if request.shape not in self._by_shape:
            self._by_shape[request.shape] = Standing(self.tally, request)
        return self._by_shape[request.shape]


class Replay:
    """The decisions of one batch. Reading them in their order is the fastest."""

    def __init__(
        self, fleet: Fleet, taken: Sequence[tuple[PlacementRequest, int]], now: Standings
    ) -> None:
        """:param taken: what the batch took, in its order; it may still grow.
        :param now: where it is while it is placed.
        """
        self._fleet, self._taken, self._now = fleet, taken, now
        self._said: dict[Hashable, Said] = {}
        self._lock = threading.Lock()

    def explain(self, request: PlacementRequest, chosen: int | None, taken: int) -> Told:
        """Why ``request`` got ``chosen`` when the batch had taken so much."""
        with self._lock:
            if len(self._now.tally.taken) > taken:
                self._now = Standings(self._fleet)
            tally = self._now.tally
            for one, host in self._taken[len(tally.taken) : taken]:
                tally.take(one, host)
            standing = self._now.of(request)
            standing.catch_up()
            said = self._said.setdefault(request.shape, {})
            return tell(tally, request, work_out(standing, chosen), said)


def work_out(standing: Standing, chosen: int | None) -> Outcome:
    """What every rule and every weigher says, as the tally is now."""
    fixed, moving = standing.fixed, standing.moving()
    if chosen is None:
        return Outcome(fixed, moving)
    return Outcome(fixed, moving, standing.ranked(), chosen)
