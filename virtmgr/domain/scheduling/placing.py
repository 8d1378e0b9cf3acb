"""Placing: the rules leave the hosts that fit, weighers find the best, one of them is chosen."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from virtmgr.domain.scheduling.explanation import Explanation, Outcome, explain
from virtmgr.domain.scheduling.fleet import Fleet
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.rules import rules_for
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.scheduling.weighers import total, weights_for

_EQUAL = 1e-9  # scores no farther apart than this are the same


@dataclass(frozen=True)
class Decision:
    """The host that a request is given, at the version that was read; or none, and why."""

    request_id: str
    host_id: str | None
    host_version: int | None
    explanation: Explanation


def place(fleet: Fleet, requests: Iterable[PlacementRequest]) -> tuple[Decision, ...]:
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
    """
    tally = Tally(fleet)
    return tuple(_decide(tally, request) for request in requests)


def _decide(tally: Tally, request: PlacementRequest) -> Decision:
    outcome = _work_out(tally, request)
    explanation = explain(tally, request, outcome)
    if outcome.chosen is None:
        return Decision(request.id, None, None, explanation)
    tally.take(request, outcome.chosen)
    host = tally.fleet.hosts[outcome.chosen]
    return Decision(request.id, host.id, host.version, explanation)


def _work_out(tally: Tally, request: PlacementRequest) -> Outcome:
    rules = rules_for(tally, request)
    fitting = np.ones(len(tally.fleet), bool)
    failing_first = []
    for rule in rules:
        failing_first.append(fitting & ~rule.passes)
        fitting = fitting & rule.passes
    if not fitting.any():
        return Outcome(rules, tuple(failing_first), fitting)
    weights = weights_for(tally, request, fitting)
    scores = total(weights)
    best = scores[fitting].max()
    equals = np.flatnonzero(fitting & (scores >= best - _EQUAL))
    chosen = int(equals[zlib.crc32(request.id.encode()) % equals.size])
    return Outcome(rules, tuple(failing_first), fitting, weights, scores, chosen, equals.size)
