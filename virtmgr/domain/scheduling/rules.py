"""The filters: one rule each, the hosts that pass it, and the reason why another does not.

A rule that has nothing to say about a request (no label required, no volume bound) is left out.
Those of ``fixed_rules`` are the same for a whole batch, those of ``moving_rules`` change with it.
"""

from __future__ import annotations

from virtmgr.domain.scheduling.fixed_rules import fixed_rules
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.moving_rules import (
    has_room,
    keeps_reserve_anywhere,
    largest_free,
    leaves_nobody_alone,
    moving_rules,
    near,
    refused_besides_room,
)
from virtmgr.domain.scheduling.rule import Filtered, Rule, filtered, first
from virtmgr.domain.scheduling.tally import Tally

__all__ = [
    "Filtered",
    "Rule",
    "filtered",
    "first",
    "fixed_rules",
    "has_room",
    "keeps_reserve_anywhere",
    "largest_free",
    "leaves_nobody_alone",
    "moving_rules",
    "near",
    "refused_besides_room",
    "rules_for",
]


def rules_for(tally: Tally, request: PlacementRequest) -> tuple[Rule, ...]:
    """Every rule that the request must pass, those first that say most about a host."""
    return (*fixed_rules(tally.fleet, request).rules, *moving_rules(tally, request))
