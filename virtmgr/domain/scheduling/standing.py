"""Where the hosts stand for requests of one shape: which fit, and how good they are.

What a batch takes changes few hosts, so their standing is kept and brought up to date instead of
worked out anew. ``replay.work_out`` puts explanations together from the same.
"""

from __future__ import annotations

import numpy as np

from virtmgr.domain.scheduling.capacity import Resource
from virtmgr.domain.scheduling.fleet import Hosts, Mask, Scores
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.policies import liked
from virtmgr.domain.scheduling.rules import (
    Filtered,
    filtered,
    first,
    fixed_rules,
    has_room,
    keeps_reserve_anywhere,
    moving_rules,
    refused_besides_room,
)
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.scheduling.weighers import (
    FACTORS,
    NEVER,
    Ranked,
    Weight,
    best_of,
    moved,
    total,
    unmoved,
    weights_for,
)

_FEW = 4  # hosts that are looked at faster one by one than as arrays


class Standing:
    """For requests of one shape (``PlacementRequest.shape``).

    Everything is as it was at the last ``choose`` or ``catch_up``. Where nothing but room and the
    policy's liking can change (``_is_steady``), what the rules and the weighers say is kept until
    a host that was taken does not fit any more.
    """

    def __init__(self, tally: Tally, request: PlacementRequest) -> None:
        """:param request: one of the shape; any will do."""
        self._tally, self._request, self._asked = tally, request, request.asked
        self.fixed = fixed_rules(tally.fleet, request)
        self._up_to = len(tally.taken)
        self._alone = not (
            request.ports or request.affinity or request.spread_by or request.live_host_ids
        )
        self._scores = np.full(len(tally.fleet), NEVER)
        self._room: dict[Resource, Mask] = has_room(tally, self._asked)
        self._liked: Scores = np.zeros(len(tally.fleet))
        self._filtered: Filtered | None = None
        self._weights: tuple[Weight, ...] | None = None
        self._equals: Mask | None = None
        self._steady: bool | None = None
        self._possible = bool(self.fixed.passing.any())
        if self._possible:
            self._unmoved = unmoved(tally, request)
            self._look_at(slice(None))

    def choose(self, start: int) -> int | None:
        """The host that the next request of this shape is to get; None: none fits.

        :param start: of equally good ones, the first from this place on, going round: who says the
            same again gets the next one, once the first is not as good any more.
        """
        self.catch_up()
        if self._is_steady():
            equals = self._best()
        else:
            refused = refused_besides_room(self._tally, self._request)
            scores = moved(self._tally, self._request, self._scores)
            np.copyto(scores, NEVER, where=refused)
            equals = best_of(scores)
        begin = start % max(equals.size, 1)
        found = first(equals[begin:], 1)
        if found:
            return begin + found[0]
        return next(iter(first(equals[:begin], 1)), None)

    def moving(self) -> Filtered:
        """What the rules say that a batch moves."""
        if not self._is_steady():
            rules = moving_rules(self._tally, self._request, self._room)
            return filtered(rules, self.fixed.passing)
        if self._filtered is None:
            rules = moving_rules(self._tally, self._request, self._room)
            self._filtered = filtered(rules, self.fixed.passing)
        return self._filtered

    def ranked(self) -> Ranked:
        """What the weighers say."""
        fitting = self.moving().passing
        if not self._is_steady():
            weights = weights_for(self._tally, self._request, fitting, self._liked)
            scores = np.where(fitting, total(weights), NEVER)
            return Ranked(weights, scores, best_of(scores))
        if self._weights is None:
            self._weights = weights_for(self._tally, self._request, fitting, self._liked)
        return Ranked(self._weights, self._scores, self._best())

    def _best(self) -> Mask:
        if self._equals is None:
            self._equals = best_of(self._scores)
        return self._equals

    def takes(self, host: int) -> bool:
        """Whether a host takes one more, if nothing but the host itself has to be looked at."""
        self.catch_up()
        return self._is_steady() and bool(self.moving().passing[host])

    def catch_up(self) -> None:
        """Look again at the hosts that were taken since the last time."""
        taken = self._tally.taken
        hosts = {host for _, host in taken[self._up_to :]}
        self._up_to = len(taken)
        if hosts:
            self._steady = None
        if len(hosts) <= _FEW:
            for host in hosts:
                self._look_at(host)
        else:
            self._look_at(np.fromiter(hosts, np.intp, len(hosts)))

    def _is_steady(self) -> bool:
        if self._steady is None:
            request = self._request
            self._steady = (
                self._alone
                and self._tally.kept_apart(request) is None
                and keeps_reserve_anywhere(self._tally, request)
            )
        return self._steady

    def _look_at(self, hosts: Hosts) -> None:
        fitting = self.fixed.passing[hosts]
        for resource, mask in has_room(self._tally, self._asked, hosts).items():
            self._room[resource][hosts] = mask
            fitting = fitting & mask
        still = fitting & (self._scores[hosts] > NEVER)
        if not (still if isinstance(hosts, int) else still.all()):
            self._filtered = self._weights = None  # one that fitted may not fit any more
        if not self._possible:
            return
        self._equals = None
        self._liked[hosts] = liked(self._tally, self._request, hosts)
        scores = self._unmoved[hosts] + FACTORS["policy"] * self._liked[hosts]
        self._scores[hosts] = np.where(fitting, scores, NEVER)
