"""Placing: the rules leave the hosts that fit, weighers find the best, one of them is chosen."""

from __future__ import annotations

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
    - The same fleet and requests give the same decisions. Requests with different ids choose
      differently among equally good hosts, so that schedulers at work at the same time collide
      less.

    :param explained: every explanation will be read: work them out on the way, which is faster
        than to play the batch again.
    """
    standings = Standings(fleet)
    tally = standings.tally
    replay = Replay(fleet, tally.taken, standings)
    decisions = []
    for request in requests:
        chosen = standings.of(request).choose(request)
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
