"""Where the hosts stand for requests of one shape: which fit, and how good they are.

What a batch takes changes few hosts, so their standing is kept and brought up to date instead of
worked out anew. The choice is the same as by ``replay.work_out``, which explanations use.
"""

from __future__ import annotations

import zlib

import numpy as np

from virtmgr.domain.scheduling.capacity import Resource
from virtmgr.domain.scheduling.fleet import Hosts, Mask, Scores
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.policies import liked
from virtmgr.domain.scheduling.rules import fixed_rules, has_room, refused_besides_room
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.scheduling.weighers import FACTORS, moved, unmoved

EQUAL = 1e-9  # scores no farther apart than this are the same
_NEVER = -np.inf
_FEW = 4  # hosts that are looked at faster one by one than as arrays


class Standing:
    """For requests of one shape (``PlacementRequest.shape``).

    ``room`` (by resource, who has it) and ``liked`` (by the cluster's policy) are as they were at
    the last ``choose`` or ``catch_up``.
    """

    def __init__(self, tally: Tally, request: PlacementRequest) -> None:
        """:param request: one of the shape; any will do."""
        self._tally, self._request, self._asked = tally, request, request.asked
        self._passing = fixed_rules(tally.fleet, request).passing
        self._up_to = len(tally.taken)
        self._alone = not (request.ports or request.affinity or request.spread_by)
        self._scores = np.full(len(tally.fleet), _NEVER)
        self.room: dict[Resource, Mask] = has_room(tally, self._asked)
        self.liked: Scores = np.zeros(len(tally.fleet))
        self._possible = bool(self._passing.any())
        if self._possible:
            cluster = tally.fleet.clusters[request.cluster_id]
            self._alone = self._alone and (request.from_reserve or not cluster.reserve)
            self._unmoved = unmoved(tally, request)
            self._look_at(slice(None))

    def choose(self, request: PlacementRequest) -> int | None:
        """The host that the next request of this shape is to get; None: none fits.

        Among equally good ones the request's id chooses.
        """
        self.catch_up()
        scores = self._scores
        if not self._alone or self._tally.kept_apart(request) is not None:
            refused = refused_besides_room(self._tally, request)
            scores = moved(self._tally, request, scores)
            np.copyto(scores, _NEVER, where=refused)
        best = scores.max(initial=_NEVER)
        if best == _NEVER:
            return None
        equals = np.flatnonzero(scores >= best - EQUAL)
        return int(equals[zlib.crc32(request.id.encode()) % equals.size])

    def catch_up(self) -> None:
        """Look again at the hosts that were taken since the last time."""
        taken = self._tally.taken
        hosts = {host for _, host in taken[self._up_to :]}
        self._up_to = len(taken)
        if len(hosts) <= _FEW:
            for host in hosts:
                self._look_at(host)
        else:
            self._look_at(np.fromiter(hosts, np.intp, len(hosts)))

    def _look_at(self, hosts: Hosts) -> None:
        fitting = self._passing[hosts]
        for resource, mask in has_room(self._tally, self._asked, hosts).items():
            self.room[resource][hosts] = mask
            fitting = fitting & mask
        if not self._possible:
            return
        self.liked[hosts] = liked(self._tally, self._request, hosts)
        scores = self._unmoved[hosts] + FACTORS["policy"] * self.liked[hosts]
        self._scores[hosts] = np.where(fitting, scores, _NEVER)
