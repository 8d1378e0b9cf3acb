"""Placing: the rules leave the hosts that fit, weighers find the best, one of them is chosen."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from virtmgr.domain.scheduling.explanation import Explanation
from virtmgr.domain.scheduling.fleet import Fleet
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.replay import Replay, Standings


@dataclass(frozen=True)
class Decision:
    """The host that a request is given, at the version that was read; or none, and why."""

    request_id: str
    host_id: str | None
    host_version: int | None
    explanation: Explanation


def place(
    fleet: Fleet, requests: Iterable[PlacementRequest], *, explained: bool = False
) -> tuple[Decision, ...]:
    """Decide for all requests together, in their order.

    What earlier requests were given counts for later ones: their claims, their labels in affinity
    rules, their places for ``spread_by``. A request that fits nowhere takes nothing, and the
    others are decided all the same; the caller chooses whether to commit some or none. All
    decisions carry the version of the view: commit the claims of one host as one sum.

    What is promised, and held by tests:

    - No host's claims exceed its limits by these decisions.
    - The order of the hosts in the fleet does not matter at all.
    - For a request by itself: a further host that nothing is placed on never turns a decision for
      a host into a refusal. (For batches nobody can promise that: a further host may lead a first
      request to where a later one finds no room.)
    - The same fleet and requests give the same decisions. Among equally good hosts a batch takes
      one after the other, from where its first request's id says: so batches that are placed at
      the same time seldom choose the same hosts.

    :param explained: every explanation will be read: work them out on the way, which is faster
        than to play the batch again.
    """
    standings = Standings(fleet)
    tally = standings.tally
    replay = Replay(fleet, tally.taken, standings)
    decisions = []
    start: int | None = None
    for request in requests:
        if start is None:
            start = zlib.crc32(request.id.encode())
        chosen = standings.of(request).choose(start)
        explanation = Explanation(partial(replay.explain, request, chosen, len(tally.taken)))
        if explained:
            explanation.work_out()
        if chosen is None:
            decisions.append(Decision(request.id, None, None, explanation))
            continue
        tally.take(request, chosen)
        host = fleet.hosts[chosen]
        decisions.append(Decision(request.id, host.id, host.version, explanation))
    return tuple(decisions)


def still_take(fleet: Fleet, decided: Iterable[tuple[PlacementRequest, str]]) -> bool:
    """Whether hosts, as they are by now, take together what was decided for them earlier.

    ``False`` also where that cannot be said by these hosts alone: for what publishes ports, is
    spread or has affinity rules, and where a cluster keeps a reserve.

    :param fleet: these hosts; others may be missing.
    :param decided: requests, and the ids of their hosts.
    """
    standings = Standings(fleet)
    for request, host_id in decided:
        host, cluster = fleet.index.get(host_id), fleet.clusters.get(request.cluster_id)
        if host is None or cluster is None or cluster.reserve:
            return False
        if not standings.of(request).takes(host):
            return False
        standings.tally.take(request, host)
    return True
