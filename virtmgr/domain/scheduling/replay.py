"""Explanations are worked out when they are first read: the batch is played again up to there."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence

import numpy as np

from virtmgr.domain.scheduling.explanation import Outcome, Said, Told, tell
from virtmgr.domain.scheduling.fleet import Fleet
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.rules import failing_first, fixed_rules, moving_rules
from virtmgr.domain.scheduling.standing import EQUAL, Standing
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.scheduling.weighers import total, weights_for


class Replay:
    """The decisions of one batch. Reading them in their order is the fastest."""

    def __init__(self, fleet: Fleet, taken: Sequence[tuple[PlacementRequest, int]]) -> None:
        """:param taken: what the batch took, in its order; it may still grow."""
        self._fleet, self._taken = fleet, taken
        self._tally: Tally | None = None
        self._standings: dict[Hashable, Standing] = {}
        self._said: dict[Hashable, Said] = {}
        self._lock = threading.Lock()

    def explain(self, request: PlacementRequest, chosen: int | None, taken: int) -> Told:
        """Why ``request`` got ``chosen`` when the batch had taken so much."""
        with self._lock:
            if self._tally is None or len(self._tally.taken) > taken:
                self._tally, self._standings = Tally(self._fleet), {}
            for one, host in self._taken[len(self._tally.taken) : taken]:
                self._tally.take(one, host)
            if request.shape not in self._standings:
                self._standings[request.shape] = Standing(self._tally, request)
            standing = self._standings[request.shape]
            standing.catch_up()
            said = self._said.setdefault(request.shape, {})
            outcome = work_out(self._tally, request, standing, chosen)
            return tell(self._tally, request, outcome, said)


def work_out(
    tally: Tally, request: PlacementRequest, standing: Standing, chosen: int | None
) -> Outcome:
    """What every rule and every weigher says, as the tally is now."""
    fixed, moving = fixed_rules(tally.fleet, request), moving_rules(tally, request, standing.room)
    failing, fitting = failing_first(moving, fixed.passing)
    if chosen is None:
        return Outcome(fixed, moving, failing, fitting)
    weights = weights_for(tally, request, fitting, standing.liked)
    ranked = np.where(fitting, total(weights), -np.inf)
    equals = np.count_nonzero(ranked >= ranked.max() - EQUAL)
    return Outcome(fixed, moving, failing, fitting, weights, ranked, chosen, int(equals))
