"""What one move may do: the scheduler's rules, and what is better left as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from virtmgr.domain.rebalancing.measure import Scale, counted
from virtmgr.domain.rebalancing.model import Aim, Movable, Move
from virtmgr.domain.scheduling import Fleet, PlacementRequest
from virtmgr.domain.scheduling.fleet import Mask, Scores
from virtmgr.domain.scheduling.reserve import is_kept
from virtmgr.domain.scheduling.rules import leaves_nobody_alone, rules_for
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.scheduling.weighers import FACTORS, total, weights_for

_WISHES: Final = ("spread_by", "affinity", "prefer")
"""Weighers that tell what a workload's owner would like."""


@dataclass
class Board:
    """The moves so far, on top of the fleet. A workload counts once, wherever it went between."""

    fleet: Fleet
    scale: Scale
    aim: Aim
    tally: Tally = field(init=False)
    places: dict[str, int] = field(init=False)  # host's index by workload, of those movable
    whys: dict[str, str] = field(default_factory=dict)  # by workload, in the order of the moves
    counts: Counter[str] = field(init=False)  # of what is placed on each host, by its id
    keeps_reserve: bool = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.fleet, moving=True)
        self.places = {}
        self.counts = counted(self.fleet)
        self.keeps_reserve = is_kept(self.tally, self.aim.cluster_id)

    def register(self, movables: Iterable[Movable]) -> None:
        """Put each where it is."""
        self.places.update({one.request.id: self.fleet.index[one.host_id] for one in movables})

    def targets(self, one: Movable) -> tuple[Mask, PlacementRequest]:
        """The hosts that may take it now, once it has left its own; and what was asked.

        The tally is as before at the end. What its owner would like (``prefer``, soft affinity,
        ``spread_by``) is kept at least as well as where it is. Where the reserve is kept, it stays
        kept.
        """
        source = self.places[one.request.id]
        request = self._asking(one)
        self.tally.leave(one.request, source)
        try:
            passes = self._passing(one, request, source)
            if passes.any():
                passes &= self._as_good(request, source, passes)
        finally:
            self.tally.take(one.request, source)
        return passes, request

    def scores(self, request: PlacementRequest, fitting: Mask) -> Scores:
        """What the scheduler's weighers say of hosts, for one that has left its own."""
        return total(weights_for(self.tally, request, fitting))

    def move(self, one: Movable, target: int, why: str) -> None:
        """Give it that host."""
        key = one.request.id
        source = self.places[key]
        self.tally.leave(one.request, source)
        self.tally.take(one.request, target)
        self.counts[self.fleet.hosts[source].id] -= 1
        self.counts[self.fleet.hosts[target].id] += 1
        self.places[key] = target
        self.whys.pop(key, None)
        if self.fleet.hosts[target].id != one.host_id:
            self.whys[key] = why

    def moves(self, movables: Sequence[Movable]) -> tuple[Move, ...]:
        """All so far, in their order."""
        known = {one.request.id: one for one in movables}
        return tuple(self._move(known[key], why) for key, why in self.whys.items())

    def _move(self, one: Movable, why: str) -> Move:
        target = self.fleet.hosts[self.places[one.request.id]].id
        return Move(
            workload_id=one.request.id,
            workload_name=one.request.name,
            project_id=one.request.project_id,
            source_id=one.host_id,
            target_id=target,
            live=target in one.request.live_host_ids,
            why=why,
        )

    def _asking(self, one: Movable) -> PlacementRequest:
        return replace(one.request, from_reserve=not self.keeps_reserve)

    def _passing(self, one: Movable, request: PlacementRequest, source: int) -> Mask:
        passes = self.scale.taking.copy()
        passes[source] = False
        for rule in rules_for(self.tally, request):
            passes &= rule.passes
        passes &= leaves_nobody_alone(self.tally, request, source)
        if one.only_live or not self.aim.cold:
            passes &= self._live(one)
        return passes

    def _live(self, one: Movable) -> Mask:
        wanted = one.request.live_host_ids
        return self.fleet.where(("live", wanted), lambda host: host.id in wanted)

    def _as_good(self, request: PlacementRequest, source: int, passes: Mask) -> Mask:
        """The hosts that are no worse than its own in what its owner would like."""
        compared = passes.copy()
        compared[source] = True
        liked = np.zeros(len(self.fleet))
        for weight in weights_for(self.tally, request, compared):
            if weight.name in _WISHES:
                liked = liked + FACTORS[weight.name] * weight.values
        mask: Mask = liked >= liked[source] - 1e-9
        return mask
